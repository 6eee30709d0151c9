#include "ponder/text/tokenizer_json.h"

#include <simdjson.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/utf8.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

constexpr uint64_t kOnes = 0x0101010101010101u, kHighs = 0x8080808080808080u;

// How many of eight bytes stand in front of the first quote, backslash or control character. A borrow makes false hits
// only behind a true one.
int plain_bytes(const char* p) {
  uint64_t w;
  std::memcpy(&w, p, 8);
  if constexpr (std::endian::native == std::endian::big) w = __builtin_bswap64(w);
  const uint64_t quote = w ^ kOnes * '"', backslash = w ^ kOnes * '\\';
  const uint64_t hits = ((quote - kOnes) & ~quote) | ((backslash - kOnes) & ~backslash) | ((w - kOnes * 0x20) & ~w);
  return std::countr_zero(hits & kHighs) / 8;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

uint32_t hex_digits(const char* p) {
  uint32_t out = 0;
  std::from_chars(p, p + 4, out, 16);
  return out;
}

// `json` without its escapes, which are known to be good.
void unescape(std::string_view json, std::string& out) {
  out.clear();
  for (size_t i = 0; i < json.size();) {
    const size_t slash = std::min(json.find('\\', i), json.size());
    out.append(json, i, slash - i);
    if (slash == json.size()) break;
    const char c = json[slash + 1];
    i = slash + 2;
    if (c != 'u') {
      constexpr std::string_view kNames = "bfnrt", kMeanings = "\b\f\n\r\t";
      const size_t known = kNames.find(c);
      out += known == kNames.npos ? c : kMeanings[known];
      continue;
    }
    uint32_t code = hex_digits(json.data() + i);
    i += 4;
    if (code >= 0xD800 && code < 0xE000) {
      code = 0x10000 + ((code & 0x3FF) << 10 | (hex_digits(json.data() + i + 2) & 0x3FF));
      i += 6;
    }
    append_utf8(out, code);
  }
}

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string_view name)
    : file_(text), name_(name), at_(text.data()), end_(text.data() + text.size()) {
  if (!simdjson::validate_utf8(text.data(), text.size())) end_ = text.data() + utf8_valid_prefix(text);
}

void JsonReader::fail(std::string_view what) const {
  const std::string_view before(file_.data(), static_cast<size_t>(at_ - file_.data()));
  throw_error(Exit::data, "{}:{}: byte {}: {}", name_, 1 + std::count(before.begin(), before.end(), '\n'),
              std::min(before.size() + 1, file_.size()), what);
}

void JsonReader::fail_expected(std::string_view what) const {
  if (at_ == file_.data() + file_.size()) fail(fmt::format("the text ends where {} should follow", what));
  if (at_ == end_) fail("bytes that are not UTF-8");
  const auto c = static_cast<unsigned char>(*at_);
  fail(c > ' ' && c < 0x7F ? fmt::format("'{}' where {} should stand", *at_, what)
                           : fmt::format("a byte {:#04x} where {} should stand", c, what));
}

void JsonReader::space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
}

char JsonReader::ahead() {
  space();
  return at_ < end_ ? *at_ : '\0';
}

// False: the object or array is empty, and passed.
bool JsonReader::open(char bracket) {
  space();
  if (!at(bracket)) fail_expected(bracket == '{' ? "an object" : "an array");
  if (depth_ == kMaxDepth) fail(fmt::format("more than {} levels of nesting", kMaxDepth));
  ++at_;
  space();
  if (!at(bracket == '{' ? '}' : ']')) return ++depth_, true;
  ++at_;
  return false;
}

// Behind a member or an item: whether there is another.
bool JsonReader::next(char closing) {
  space();
  if (at(',')) return ++at_, true;
  if (!at(closing)) fail_expected(closing == '}' ? "',' or '}'" : "',' or ']'");
  ++at_;
  --depth_;
  return false;
}

void JsonReader::colon() {
  space();
  if (!at(':')) fail_expected("':'");
  ++at_;
}

uint32_t JsonReader::pass_hex() {
  const char* const begin = at_;
  for (int i = 0; i < 4; ++i, ++at_) {
    if (at_ == end_ || !std::isxdigit(static_cast<unsigned char>(*at_))) fail_expected("a hexadecimal digit");
  }
  return hex_digits(begin);
}

void JsonReader::pass_escape() {
  ++at_;
  constexpr std::string_view kKnown = "\"\\/bfnrtu";
  if (at_ == end_ || kKnown.find(*at_) == kKnown.npos) fail_expected("an escape that JSON knows");
  if (*at_++ != 'u') return;
  const uint32_t code = pass_hex();
  if (code < 0xD800 || code >= 0xE000) return;
  for (const char c : {'\\', 'u'}) {
    if (code >= 0xDC00 || !at(c)) fail_expected("the other half of a surrogate pair");
    ++at_;
  }
  if (const uint32_t low = pass_hex(); low < 0xDC00 || low >= 0xE000) fail("a surrogate pair of two first halves");
}

void JsonReader::pass_text() {
  if (!at('"')) fail_expected("a text in quotes");
  ++at_;
  escaped_ = false;
  for (;;) {
    while (end_ - at_ >= 8) {
      const int n = plain_bytes(at_);
      at_ += n;
      if (n < 8) break;
    }
    while (at_ < end_ && *at_ != '"' && *at_ != '\\' && static_cast<unsigned char>(*at_) >= 0x20) ++at_;
    if (at('"')) break;
    if (at_ == end_) fail_expected("the closing '\"' of a text");
    if (!at('\\')) fail("a control character in a text; JSON writes \\n, \\t or \\u00.. for it");
    escaped_ = true;
    pass_escape();
  }
  ++at_;
}

std::string_view JsonReader::text(std::string& unescaped) {
  space();
  const char* const begin = at_;
  pass_text();
  const std::string_view inner(begin + 1, static_cast<size_t>(at_ - begin) - 2);
  if (inner.size() > kMaxTextBytes) fail(fmt::format("a text of more than {} bytes", kMaxTextBytes));
  if (!escaped_) return inner;
  unescape(inner, unescaped);
  return unescaped;
}

void JsonReader::pass_digits() {
  if (at_ == end_ || !is_digit(*at_)) fail_expected("a digit");
  while (at_ < end_ && is_digit(*at_)) ++at_;
}

void JsonReader::pass_number() {
  if (at('-')) ++at_;
  if (at('0')) {
    ++at_;
  } else {
    pass_digits();
  }
  if (at('.')) {
    ++at_;
    pass_digits();
  }
  if (at('e') || at('E')) {
    ++at_;
    if (at('+') || at('-')) ++at_;
    pass_digits();
  }
}

void JsonReader::pass_scalar() {
  if (at('"')) return pass_text();
  if (at_ < end_ && (is_digit(*at_) || *at_ == '-')) return pass_number();
  for (const std::string_view word : {"true", "false", "null"}) {
    if (!at(word[0])) continue;
    for (const char c : word) {
      if (!at(c)) fail_expected(fmt::format("\"{}\"", word));
      ++at_;
    }
    return;
  }
  fail_expected("a value");
}

JsonReader::Passed JsonReader::skip() {
  space();
  const char* const begin = at_;
  const int outside = depth_;
  uint64_t objects = 0;  // bit 0: of the innermost level that is open
  size_t items = 0;
  static_assert(kMaxDepth <= 64);
  for (;;) {
    space();
    const bool object = at('{');
    if (object || at('[')) {
      const bool inside = open(object ? '{' : '[');
      if (inside) {
        objects = objects << 1 | (object ? 1 : 0);
        items += depth_ == outside + 1;
        if (object) space(), pass_text(), colon();
        continue;
      }
    } else {
      pass_scalar();
    }
    for (;;) {
      if (depth_ == outside) return {{begin, static_cast<size_t>(at_ - begin)}, items};
      if (next(objects & 1 ? '}' : ']')) break;
      objects >>= 1;
    }
    items += depth_ == outside + 1;
    if (objects & 1) space(), pass_text(), colon();
  }
}

void JsonReader::finish() {
  space();
  if (at_ < file_.data() + file_.size()) fail_expected("the end");
}

std::optional<int64_t> json_integer(std::string_view json) {
  int64_t out;
  const auto [end, error] = std::from_chars(json.data(), json.data() + json.size(), out);
  return error == std::errc() && end == json.data() + json.size() ? std::optional(out) : std::nullopt;
}

}  // namespace ponder::text
