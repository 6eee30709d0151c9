#include "ponder/text/jinja/text.h"

#include <fmt/format.h>
#include <locale.h>
#include <string.h>
#include <wctype.h>

#include <algorithm>
#include <utility>

#include "ponder/base/utf8.h"

namespace ponder::text::jinja {
namespace {

// The Unicode classes of the C library; where it has no UTF-8 locale, those of ASCII.
locale_t unicode() {
  static const locale_t locale = [] {
    const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    return utf8 ? utf8 : newlocale(LC_CTYPE_MASK, "C", nullptr);
  }();
  return locale;
}

char32_t upper(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return static_cast<char32_t>(towupper_l(static_cast<wint_t>(c), unicode()));
}
char32_t lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return static_cast<char32_t>(towlower_l(static_cast<wint_t>(c), unicode()));
}

template <class F>
std::string mapped(std::string_view text, F&& f) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const char32_t to = f(c.value);
    if (to == c.value)
      out.append(text.substr(at, c.bytes));
    else
      append_utf8(out, to);
    at += c.bytes;
  }
  return out;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  if (byte(0) < 0x80) return {byte(0), 1};
  switch (utf8_char_bytes(text.substr(at))) {
    case 2: return {static_cast<char32_t>((byte(0) & 0x1F) << 6 | (byte(1) & 0x3F)), 2};
    case 3: return {static_cast<char32_t>((byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F)), 3};
    case 4:
      return {static_cast<char32_t>((byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
                                    (byte(3) & 0x3F)),
              4};
    default: return {0xFFFD, 1};
  }
}

size_t count_code_points(std::string_view text) {
  size_t n = 0;
  for (size_t at = 0; at < text.size(); ++n) at += code_point_at(text, at).bytes;
  return n;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t n = code_point_at(text, at).bytes;
    out.push_back(text.substr(at, n));
    at += n;
  }
  return out;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t b) { out.push_back(static_cast<char>(b)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  if (c < 0x10000) return put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c != 0x7f;
  if (is_space(c) || c < 0xA0 || c == 0xAD) return false;
  // Formatting characters and private use, which the C library counts as printable.
  if ((c >= 0x600 && c <= 0x605) || c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x180E) return false;
  if ((c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F)) return false;
  if ((c >= 0xD800 && c <= 0xF8FF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) || c >= 0xE0000) return false;
  return iswprint_l(static_cast<wint_t>(c), unicode()) != 0;
}

bool is_alpha(char32_t c) { return iswalpha_l(static_cast<wint_t>(c), unicode()) != 0 && !is_digit(c); }
bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_upper(char32_t c) { return iswupper_l(static_cast<wint_t>(c), unicode()) != 0; }
bool is_lower(char32_t c) { return iswlower_l(static_cast<wint_t>(c), unicode()) != 0; }

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  std::vector<char32_t> set;
  if (chars)
    for (size_t at = 0; at < chars->size();) {
      const CodePoint c = code_point_at(*chars, at);
      set.push_back(c.value);
      at += c.bytes;
    }
  const auto goes = [&](char32_t c) { return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c); };
  if (side != Side::right)
    while (!text.empty()) {
      const CodePoint c = code_point_at(text, 0);
      if (!goes(c.value)) break;
      text.remove_prefix(c.bytes);
    }
  if (side != Side::left)
    while (!text.empty()) {
      size_t at = text.size() - 1;  // the last code point: back over at most three continuation bytes
      for (size_t back = 1; back < 4 && back < text.size() && (text[at] & 0xC0) == 0x80; ++back) --at;
      if (at + code_point_at(text, at).bytes != text.size()) at = text.size() - 1;
      if (!goes(code_point_at(text, at).value)) break;
      text = text.substr(0, at);
    }
  return text;
}

std::string to_upper(std::string_view text) {
  std::string out = mapped(text, upper);
  // The one letter in use whose capital form is two.
  return replace(out, "\u00DF", "SS", -1);
}
std::string to_lower(std::string_view text) { return mapped(text, lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t c) { return std::exchange(first, false) ? upper(c) : lower(c); });
}

std::string swap_case(std::string_view text) {
  return mapped(text, [](char32_t c) { return is_upper(c) ? lower(c) : upper(c); });
}

std::string title_method(std::string_view text) {
  bool inside = false;
  return mapped(text, [&](char32_t c) {
    const char32_t to = inside ? lower(c) : upper(c);
    inside = lower(c) != c || upper(c) != c;
    return to;
  });
}

std::string title_filter(std::string_view text) {
  bool inside = false;
  return mapped(text, [&](char32_t c) {
    const char32_t to = inside ? lower(c) : upper(c);
    inside = !(is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<');
    return to;
  });
}

size_t find_text(std::string_view text, std::string_view sought, size_t from) {
  if (from > text.size()) return text.npos;
  if (sought.empty()) return from;
  const void* at = memmem(text.data() + from, text.size() - from, sought.data(), sought.size());
  return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : text.npos;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit, bool from_right) {
  std::vector<std::string_view> out;
  while (limit != 0) {
    const size_t at = from_right ? text.rfind(separator) : find_text(text, separator);
    if (at == text.npos) break;
    out.push_back(from_right ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
    --limit;
  }
  out.push_back(text);
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_space(std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string_view> words;
  text = strip(text, from_right ? Side::right : Side::left);
  if (from_right) {
    std::vector<size_t> starts;
    for (size_t at = 0; at < text.size(); at += code_point_at(text, at).bytes) starts.push_back(at);
    size_t end = text.size();
    for (size_t i = starts.size(); i-- > 0 && limit != 0;) {
      if (!is_space(code_point_at(text, starts[i]).value)) continue;
      const size_t after = starts[i] + code_point_at(text, starts[i]).bytes;
      if (after < end) words.push_back(text.substr(after, end - after)), --limit;
      end = starts[i];
    }
    const std::string_view rest = strip(text.substr(0, end), Side::right);
    if (!rest.empty()) words.push_back(limit == 0 ? rest : strip(rest, Side::left));
    std::reverse(words.begin(), words.end());
    return words;
  }
  while (!text.empty() && limit != 0) {
    size_t end = 0;
    while (end < text.size() && !is_space(code_point_at(text, end).value)) end += code_point_at(text, end).bytes;
    words.push_back(text.substr(0, end));
    text = strip(text.substr(end), Side::left);
    --limit;
  }
  if (!text.empty()) words.push_back(text);
  return words;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    size_t after = at + c.bytes;
    if (is_line_end(c.value)) {
      if (c.value == '\r' && after < text.size() && text[after] == '\n') ++after;
      lines.push_back(text.substr(start, (keep_ends ? after : at) - start));
      start = after;
    }
    at = after;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

size_t replaced_size(std::string_view text, std::string_view from, std::string_view to, int64_t limit) {
  uint64_t hits = 0;
  if (from.empty()) {
    hits = count_code_points(text) + 1;
  } else {
    for (size_t at = find_text(text, from); at != text.npos; at = find_text(text, from, at + from.size())) ++hits;
  }
  if (limit >= 0) hits = std::min(hits, static_cast<uint64_t>(limit));
  return text.size() - hits * from.size() + hits * to.size();
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit) {
  std::string out;
  if (from.empty()) {  // Python puts it before every code point and at the end
    for (const std::string_view c : code_points(text)) {
      if (limit != 0) out.append(to), --limit;
      out.append(c);
    }
    if (limit != 0) out.append(to);
    return out;
  }
  while (limit != 0) {
    const size_t at = find_text(text, from);
    if (at == text.npos) break;
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
    --limit;
  }
  return out.append(text);
}

std::string quoted(std::string_view text) {
  const bool single = text.find('\'') == text.npos || text.find('"') != text.npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const auto u = static_cast<uint32_t>(c.value);
    if (u == static_cast<unsigned char>(quote) || u == '\\')
      out += '\\', out += static_cast<char>(u);
    else if (u == '\n')
      out += "\\n";
    else if (u == '\r')
      out += "\\r";
    else if (u == '\t')
      out += "\\t";
    else if (is_printable(c.value))
      out.append(text.substr(at, c.bytes));
    else if (u < 0x100)
      out += fmt::format("\\x{:02x}", u);
    else if (u < 0x10000)
      out += fmt::format("\\u{:04x}", u);
    else
      out += fmt::format("\\U{:08x}", u);
    at += c.bytes;
  }
  return out += quote;
}

}  // namespace ponder::text::jinja
