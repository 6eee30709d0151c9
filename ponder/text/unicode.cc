#include "ponder/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "ponder/base/error.h"

namespace ponder::text {
namespace {

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint8_t compute_classes(uint32_t c) {
  uint8_t bits = is_space(c) ? kSpace : 0;
  if (c == '\r' || c == '\n') bits |= kLineBreak;
  if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) bits |= kAsciiLetter;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return bits | kLetter;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return bits | kMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return bits | kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return bits | kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return bits | kSymbol;
    default: return bits;
  }
}

}  // namespace

const uint8_t* bmp_classes() {
  static const auto table = [] {
    auto t = std::make_unique<uint8_t[]>(0x10000);
    for (uint32_t c = 0; c < 0x10000; ++c) t[c] = compute_classes(c);
    return t;
  }();
  return table.get();
}

uint8_t classes_of(uint32_t c) { return c < 0x10000 ? bmp_classes()[c] : compute_classes(c); }

void append_utf8(std::string& out, uint32_t c) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool may_change_in_nfc(std::string_view text) {
  // Below U+0300 (led by bytes below 0xCC) nothing changes by itself. Above, what does not decompose, is no mark and
  // composes with nothing in front of it stays as it is.
  constexpr uint16_t kNone = UINT16_MAX, kSecond = 0x8000;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0xCC) {
      ++i;
      continue;
    }
    const CodePoint c = code_point(text.data() + i);
    i += c.bytes;
    const auto* p = utf8proc_get_property(static_cast<utf8proc_int32_t>(c.value));
    const bool hangul = (c.value >= 0x1160 && c.value <= 0x11FF) || (c.value >= 0xAC00 && c.value <= 0xD7A3);
    if (hangul || p->combining_class != 0 || (p->decomp_seqindex != kNone && p->decomp_type == 0) ||
        (p->comb_index != kNone && (p->comb_index & kSecond)))
      return true;
  }
  return false;
}

std::string to_nfc(std::string_view text) {
  constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point(text.data() + i);
    i += c.bytes;
    utf8proc_int32_t parts[32];  // no canonical decomposition is longer than 4
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 32, options, nullptr);
    PONDER_CHECK(n >= 0 && n <= 32, "the decomposition of U+{:04X} failed", c.value);
    points.insert(points.end(), parts, parts + n);
  }
  // Canonical order: marks between two starters by their combining class, equal ones as they stood.
  const auto combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (size_t i = 0; i < points.size(); ++i) {
    if (combining(points[i]) == 0) continue;
    const size_t begin = i;
    while (i < points.size() && combining(points[i]) != 0) ++i;
    std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(begin),
                     points.begin() + static_cast<std::ptrdiff_t>(i),
                     [&](auto a, auto b) { return combining(a) < combining(b); });
  }
  const auto length = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), options);
  PONDER_CHECK(length >= 0, "composing {} code points failed", points.size());
  points.resize(static_cast<size_t>(length));
  std::string out;
  out.reserve(text.size());
  for (const auto c : points) append_utf8(out, static_cast<uint32_t>(c));
  return out;
}

}  // namespace ponder::text
