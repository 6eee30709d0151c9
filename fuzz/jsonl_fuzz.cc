// Any bytes as a file of puzzles: problems that the task admits, or an Error.
#include <string_view>

#include "ponder/base/error.h"
#include "ponder/tasks/jsonl.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder::tasks;
  static const auto task = make_task({.name = "game24"});
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    for (const Problem& p : parse_puzzles(text, "fuzz", *task)) task->prompt(p);
  } catch (const ponder::Error&) {
  }
  const ParsedLine parsed = task->parse_line(text);
  if (parsed.problem.has_value() != parsed.error.empty()) __builtin_trap();
  return 0;
}
