#include "ponder/tensor/tensor_io.h"

#include "ponder/base/utf8.h"

namespace ponder {

std::string shown(std::string_view name) {
  std::string out = "'";
  for (char c : name.substr(0, 80)) out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return utf8_repaired(out + (name.size() > 80 ? "...'" : "'"));
}

}  // namespace ponder
