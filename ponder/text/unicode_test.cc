#include "ponder/text/unicode.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ponder/base/rng.h"

namespace ponder::text {
namespace {

std::string utf8(std::initializer_list<uint32_t> points) {
  std::string out;
  for (const uint32_t c : points) append_utf8(out, c);
  return out;
}

TEST(Unicode, Classes) {
  EXPECT_EQ(classes_of('a'), kLetter | kAsciiLetter);
  EXPECT_EQ(classes_of('\n'), kSpace | kLineBreak);
  EXPECT_EQ(classes_of('$'), kSymbol);
  EXPECT_EQ(classes_of('%'), kPunctuation);
  EXPECT_EQ(classes_of(0x00BD), kNumber);
  EXPECT_EQ(classes_of(0x0301), kMark);
  EXPECT_EQ(classes_of(0x1D400), kLetter);
  EXPECT_EQ(classes_of(1), 0);
  for (const uint32_t c : {0x85, 0xA0, 0x1680, 0x2028, 0x3000}) EXPECT_TRUE(classes_of(c) & kSpace) << c;
  for (const uint32_t c : {0x180E, 0x200B, 0xFEFF}) EXPECT_FALSE(classes_of(c) & kSpace) << c;
}

TEST(Unicode, CodePointsThereAndBack) {
  for (const uint32_t c : {0x41u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    const CodePoint back = code_point(utf8({c}).data());
    EXPECT_EQ(back.value, c);
    EXPECT_EQ(back.bytes, utf8({c}).size());
  }
}

TEST(Unicode, NormalFormC) {
  EXPECT_EQ(to_nfc(utf8({'e', 0x301})), utf8({0xE9}));
  EXPECT_EQ(to_nfc(utf8({'e', 0x301, 0x323})), utf8({0x1EB9, 0x301}));  // marks change places
  EXPECT_EQ(to_nfc(utf8({0x1100, 0x1161, 0x11A8})), utf8({0xAC01}));    // Hangul
  EXPECT_EQ(to_nfc(utf8({0x212B})), utf8({0xC5}));                      // a singleton
  EXPECT_EQ(to_nfc(utf8({0x958})), utf8({0x915, 0x93C}));               // excluded from composition
}

// The quick check may say yes in vain, never no.
TEST(Unicode, QuickCheckMissesNothing) {
  for (uint32_t c = 0; c < 0x30000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string alone = utf8({c});
    ASSERT_TRUE(may_change_in_nfc(alone) || to_nfc(alone) == alone) << c;
  }
  for (uint64_t i = 0; i < 100'000; ++i) {
    CounterRng rng(1, Stream::test, i);
    std::string text;
    for (int k = 0; k < 3; ++k) {
      uint32_t c = static_cast<uint32_t>(rng.below(rng.below(2) ? 0x3400 : 0x12000));
      if (c >= 0xD800 && c < 0xE000) c = 'e';
      append_utf8(text, c);
    }
    ASSERT_TRUE(may_change_in_nfc(text) || to_nfc(text) == text) << text;
  }
}

}  // namespace
}  // namespace ponder::text
