#include "ponder/app/result_file.h"

#include <filesystem>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder::app {

void check_result_file(const std::string& path) {
  // A rename onto /dev/null would replace it.
  if (path_exists(path) && !std::filesystem::is_regular_file(path))
    throw_error(Exit::usage, "{}: it is no file that could be replaced; name another", path);
  const std::string aside = name_aside(path);
  { const FileWriter probe(aside, path); }
  remove_file(aside);
}

}  // namespace ponder::app
