// Files that a command writes when its work is done.
#pragma once

#include <string>

namespace ponder::app {

// To be called before the work: throws Error where `path` could not be written at its end, because its folder is missing
// or closed to us (failure), or because what has the name is no file that may be replaced (usage).
void check_result_file(const std::string& path);

}  // namespace ponder::app
