// The hand-written splitters. Each follows its expression alternative by alternative; the comments name the alternative.
// They are linear: what one call scans in vain, it or the next call consumes.
#include <array>

#include "ponder/text/pretokenizer.h"
#include "ponder/text/unicode.h"

namespace ponder::text {

const std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kDeepSeekV3Pattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kDeepSeekV3CjkPattern = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";

namespace {

struct Char {
  uint32_t classes, bytes;
};

// The character at p < end.
inline Char at(const uint8_t* table, const char* p) {
  const CodePoint c = code_point(p);
  return {c.value < 0x10000 ? table[c.value] : classes_of(c.value), c.bytes};
}

// The end of the run of characters from p on that have one of the classes.
inline const char* skip(const uint8_t* table, const char* p, const char* end, uint32_t classes) {
  while (p < end) {
    const Char c = at(table, p);
    if (!(c.classes & classes)) break;
    p += c.bytes;
  }
  return p;
}

// ... that have none of them.
inline const char* skip_not(const uint8_t* table, const char* p, const char* end, uint32_t classes) {
  while (p < end) {
    const Char c = at(table, p);
    if (c.classes & classes) break;
    p += c.bytes;
  }
  return p;
}

inline const char* skip_line_breaks(const char* p, const char* end) {
  while (p < end && (*p == '\r' || *p == '\n')) ++p;
  return p;
}

// White space at p, in the alternatives that all these expressions end with. `lines`: \s*[\r\n]+ comes first, which
// takes the run up to its last line break. Then \s+(?!\S)|\s+: a run at the end whole, else all but its last character,
// unless that is the only one.
const char* next_space(const uint8_t* table, const char* p, const char* end, bool lines) {
  const char *last = p, *after_break = nullptr, *q = p;
  while (q < end) {
    const Char c = at(table, q);
    if (!(c.classes & kSpace)) break;
    last = q;
    q += c.bytes;
    if (c.classes & kLineBreak) after_break = q;
  }
  if (lines && after_break) return after_break;
  return q == end || last == p ? q : last;
}

// 's|'t|'re|'ve|'m|'ll|'d behind the apostrophe at p: its length with the apostrophe, or 0. Ignoring case, U+017F (long
// s) is an s too, as Unicode folds it.
size_t contraction(const char* p, const char* end, bool ignore_case) {
  const auto letter = [&](int i) {
    if (p + i >= end) return '\0';
    const char c = p[i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = letter(1), b = letter(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return ignore_case && a == '\xC5' && b == '\xBF' ? 3 : 0;
}

const char* next_gpt2(const char* p, const char* end) {
  const uint8_t* table = bmp_classes();
  if (*p == '\'') {
    if (const size_t n = contraction(p, end, false)) return p + n;
  }
  Char c = at(table, p);
  const char* q = p;
  if (*p == ' ' && p + 1 < end) {  // " ?" of three alternatives
    const Char second = at(table, p + 1);
    if (!(second.classes & kSpace)) {
      c = second;
      ++q;
    }
  }
  if (c.classes & kSpace) return next_space(table, p, end, false);
  if (c.classes & kLetter) return skip(table, q + c.bytes, end, kLetter);  // ?\p{L}+
  if (c.classes & kNumber) return skip(table, q + c.bytes, end, kNumber);  // ?\p{N}+
  return skip_not(table, q + c.bytes, end, kSpace | kLetter | kNumber);    // ?[^\s\p{L}\p{N}]+
}

template <int kMaxNumbers>
const char* next_numbers(const uint8_t* table, const char* p, const char* end) {
  for (int i = 0; p < end && (kMaxNumbers == 0 || i < kMaxNumbers); ++i) {
    const Char c = at(table, p);
    if (!(c.classes & kNumber)) break;
    p += c.bytes;
  }
  return p;
}

// Qwen (numbers one by one) and Llama 3 (up to three).
template <int kMaxNumbers>
const char* next_tiktoken(const char* p, const char* end) {
  const uint8_t* table = bmp_classes();
  if (*p == '\'') {
    if (const size_t n = contraction(p, end, true)) return p + n;
  }
  const Char c = at(table, p);
  if (c.classes & kLetter) return skip(table, p + c.bytes, end, kLetter);  // \p{L}+ without the first character
  if (c.classes & kNumber) return next_numbers<kMaxNumbers>(table, p, end);
  const char* q = p + c.bytes;
  if (!(c.classes & kLineBreak) && q < end) {  // [^\r\n\p{L}\p{N}]\p{L}+
    const Char second = at(table, q);
    if (second.classes & kLetter) return skip(table, q + second.bytes, end, kLetter);
  }
  const auto is_sign = [](Char x) { return !(x.classes & (kSpace | kLetter | kNumber)); };
  if (*p == ' ' ? q < end && is_sign(at(table, q)) : is_sign(c))  // ?[^\s\p{L}\p{N}]+[\r\n]*
    return skip_line_breaks(skip_not(table, q, end, kSpace | kLetter | kNumber), end);
  return next_space(table, p, end, true);
}

// The third expression of DeepSeek V3 and R1. nullptr: nothing matches at p (control characters, numbers).
const char* match_deepseek(const uint8_t* table, const char* p, const char* end) {
  constexpr uint32_t kWord = kLetter | kMark, kSign = kPunctuation | kSymbol;
  const Char c = at(table, p);
  const char* q = p + c.bytes;
  // [!-/:-~][A-Za-z]+: ASCII's punctuation and symbols
  if (c.bytes == 1 && (c.classes & kSign) && q < end && (table[static_cast<unsigned char>(*q)] & kAsciiLetter) &&
      static_cast<unsigned char>(*q) < 0x80) {
    while (q < end && static_cast<unsigned char>(*q) < 0x80 && (table[static_cast<unsigned char>(*q)] & kAsciiLetter))
      ++q;
    return q;
  }
  // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
  if (c.classes & kLetter) return skip(table, q, end, kWord);
  if (!(c.classes & (kLineBreak | kSign))) {
    const char* word = skip(table, q, end, kWord);
    if (word > q || (c.classes & kMark)) return word;
  }
  if (c.classes & kSign) return skip_line_breaks(skip(table, q, end, kSign), end);  // ?[\p{P}\p{S}]+[\r\n]*
  if (*p == ' ') {
    const char* signs = skip(table, q, end, kSign);
    if (signs > q) return skip_line_breaks(signs, end);
  }
  return c.classes & kSpace ? next_space(table, p, end, true) : nullptr;
}

const char* next_deepseek(const char* p, const char* end) {
  const uint8_t* table = bmp_classes();
  if (const char* match = match_deepseek(table, p, end)) return match;
  do {  // the gap up to the next match
    p += code_point(p).bytes;
  } while (p < end && !match_deepseek(table, p, end));
  return p;
}

const char* next_cjk(const char* p, const char* end) {
  const auto inside = [](const char* c) {
    if (static_cast<unsigned char>(*c) < 0xE3) return false;  // U+3000 is the first that begins with it
    const uint32_t v = code_point(c).value;
    return (v >= 0x4E00 && v <= 0x9FA5) || (v >= 0x3040 && v <= 0x30FF);
  };
  const bool match = inside(p);
  do {
    p += code_point(p).bytes;
  } while (p < end && inside(p) == match);
  return p;
}

// \p{N}, \p{N}{1,n}, \p{N}+ (n = 0), and the gaps between.
template <int kMaxNumbers>
const char* next_number(const char* p, const char* end) {
  const uint8_t* table = bmp_classes();
  const char* match = next_numbers<kMaxNumbers>(table, p, end);
  return match > p ? match : skip_not(table, p, end, kNumber);
}

}  // namespace

NextPiece known_splitter(std::string_view pattern) {
  std::string p;  // a line break that stands for itself means the same as its escape
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      p += c == '\r' ? "\\r" : "\\n";
    } else {
      p += c;
    }
  }
  const std::array<std::pair<std::string_view, NextPiece>, 8> known = {{
      {kGpt2Pattern, next_gpt2},
      {kQwenPattern, next_tiktoken<1>},
      {kLlama3Pattern, next_tiktoken<3>},
      {kDeepSeekV3Pattern, next_deepseek},
      {kDeepSeekV3CjkPattern, next_cjk},
      {R"(\p{N})", next_number<1>},
      {R"(\p{N}{1,3})", next_number<3>},
      {R"(\p{N}+)", next_number<0>},
  }};
  for (const auto& [text, next] : known) {
    if (p == text) return next;
  }
  return nullptr;
}

}  // namespace ponder::text
