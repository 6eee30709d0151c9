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
  // nullopt: the end of the input, or a signal (stop_requested). """ begins a text of several lines, another """ ends it.
  std::optional<std::string> read();
  // Text that was typed before this reader could see it: read first, as if typed now. On a terminal only.
  void push(const std::string& typed);

 private:
  std::optional<std::string> read_line(bool more);
  struct Editor;
  std::string prompt_, unread_;
  std::unique_ptr<Editor> editor_;
};

}  // namespace ponder::app
