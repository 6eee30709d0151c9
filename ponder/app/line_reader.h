// A line from a person: with editing and history on a terminal (libedit, where the build has it), else plain.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace ponder::app {

class LineReader {
 public:
  explicit LineReader(std::string prompt);
  ~LineReader();
  // nullopt: the end of the input. """ begins a text of several lines, another """ ends it.
  std::optional<std::string> read();

 private:
  std::optional<std::string> read_line(bool more);
  struct Editor;
  std::string prompt_;
  std::unique_ptr<Editor> editor_;
};

}  // namespace ponder::app
