#include "ponder/base/error.h"

namespace ponder {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw Error(Exit::failure,
              fmt::format("internal error at {}:{}: {} (check `{}`). This is a bug in ponder; please report it.", file,
                          line, message, condition));
}

}  // namespace ponder
