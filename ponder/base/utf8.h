// UTF-8 at the doors: what is well-formed (Unicode 15, table 3-7: no overlong forms, no surrogates, at most U+10FFFF).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ponder {

// Bytes of the well-formed character at the front, 0 if there is none.
size_t utf8_char_bytes(std::string_view text);
// Where the first malformed byte is, or text.size().
size_t utf8_valid_prefix(std::string_view text);
inline bool is_utf8(std::string_view text) { return utf8_valid_prefix(text) == text.size(); }
// Each malformed byte becomes U+FFFD.
std::string utf8_repaired(std::string_view text);

}  // namespace ponder
