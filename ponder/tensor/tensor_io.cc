#include "ponder/tensor/tensor_io.h"

#include <cstdio>

#include "ponder/base/file.h"
#include "ponder/base/utf8.h"

namespace ponder {

std::string shown(std::string_view name) {
  std::string out = "'";
  for (char c : name.substr(0, 80)) out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return utf8_repaired(out + (name.size() > 80 ? "...'" : "'"));
}

void write_whole_file(const std::string& path, const std::function<void(FileWriter&)>& write) {
  const std::string aside = path + ".tmp";
  try {
    FileWriter file(aside);
    write(file);
    file.finish();
    rename_path(aside, path);
  } catch (...) {
    std::remove(aside.c_str());  // as far as that goes: the first error is the one to report
    throw;
  }
  sync_folder(parent_folder(path));
}

}  // namespace ponder
