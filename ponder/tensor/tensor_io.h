// What the two formats of tensor files share.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace ponder {

class FileWriter;

// A name from a file, fit for a message: quoted, short, on one line, valid UTF-8.
std::string shown(std::string_view name);

// Writes a file whole or not at all: aside, fsync, rename, and the folder synced. Nothing is left aside after an error.
void write_whole_file(const std::string& path, const std::function<void(FileWriter&)>& write);

}  // namespace ponder
