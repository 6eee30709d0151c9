// Problems from the user's files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ponder/tasks/task.h"

namespace ponder::tasks {

// Puzzles, one JSON object a line: {"numbers": [1, 4, 6, 6], "target": 24} or {"nums": [...], "target": ...}, with an
// optional "id"; further columns are kept. `path` is a file, a folder (its *.jsonl) or a glob. The first record says
// which of the two shapes it is, and every later one must have it. Throws Error (data) that names file and line for a
// line that is not JSON, of another shape, or no problem of this task.
std::vector<Problem> read_puzzles(const std::string& path, const Task& task);
// The same from memory.
std::vector<Problem> parse_puzzles(std::string_view text, const std::string& name, const Task& task);

}  // namespace ponder::tasks
