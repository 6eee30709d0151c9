// What tokenizers need to know of Unicode: the class of a code point, and NFC. The data are utf8proc's.
//
// All functions take well-formed UTF-8 (Tokenizer::encode repairs its input first).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ponder::text {

// One bit each, as pre-tokenizers' expressions name them. A code point may have none (controls, unassigned ones).
enum CharClass : uint8_t {
  kLetter = 1,        // \p{L}
  kMark = 2,          // \p{M}
  kNumber = 4,        // \p{N}
  kPunctuation = 8,   // \p{P}
  kSymbol = 16,       // \p{S}
  kSpace = 32,        // \s: U+0009-000D, 0020, 0085, 00A0, 1680, 2000-200A, 2028, 2029, 202F, 205F, 3000
  kLineBreak = 64,    // \r and \n, which are kSpace too
  kAsciiLetter = 128  // A-Z and a-z, which are kLetter too
};

// The classes of every code point below U+10000; built at the first call (some 0.5 ms).
const uint8_t* bmp_classes();

struct CodePoint {
  uint32_t value;
  uint32_t bytes;  // 1 to 4
};

// The character at p, which is well-formed.
inline CodePoint code_point(const char* p) {
  const auto b = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xE0) return {(b(0) & 0x1F) << 6 | (b(1) & 0x3F), 2};
  if (b(0) < 0xF0) return {(b(0) & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3};
  return {(b(0) & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F), 4};
}

uint8_t classes_of(uint32_t code_point);

void append_utf8(std::string& out, uint32_t code_point);

// Normalisation form C, in time linear in the text (runs of combining marks are sorted, not bubbled).
std::string to_nfc(std::string_view text);
// False only where to_nfc would surely return the text itself; cheap.
bool may_change_in_nfc(std::string_view text);

}  // namespace ponder::text
