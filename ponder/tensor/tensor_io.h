// What the two formats of tensor files share.
#pragma once

#include <string>
#include <string_view>

namespace ponder {

// A name from a file, fit for a message: quoted, short, on one line, valid UTF-8.
std::string shown(std::string_view name);

}  // namespace ponder
