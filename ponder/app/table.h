// Columns for people: texts in, lines with aligned cells out.
#pragma once

#include <string>
#include <vector>

namespace ponder::app {

class Table {
 public:
  // The heading says how a column is set: one that begins with '>' is set to the right (without the '>').
  explicit Table(std::vector<std::string> headings);
  void row(std::vector<std::string> cells);  // missing ones are empty
  // The heading (unless all of it is empty) and the rows, each with its line break, indented by so many spaces.
  std::string text(int indent = 0) const;
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

// A metric as people read it: four digits, "-" for NaN.
std::string short_number(double value);

}  // namespace ponder::app
