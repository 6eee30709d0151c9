#include "ponder/base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/rng.h"
#include "ponder/base/utf8.h"

namespace ponder {
namespace {

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "f.json", 7, limits);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "no error";
}

TEST(Json, WritesWhatItReads) {
  std::string line;
  JsonWriter json(line);
  json.begin_object().member("step", 3).member("loss", 0.1).member("ok", true).member("text", "a\"b\\\n\t\x01é");
  json.key("list").begin_array().value(1).begin_array().end_array().null().value(-2.5f).end_array();
  json.key("object").begin_object().end_object().member("big", ~uint64_t{0}).member("nan", NAN).end_object();
  EXPECT_EQ(line, R"({"step":3,"loss":0.1,"ok":true,"text":"a\"b\\\n\t\u0001é","list":[1,[],null,-2.5],"object":{},)"
                  R"("big":18446744073709551615,"nan":null})");
  const Json value = parse_json(line, "x");
  EXPECT_EQ(value["text"], "a\"b\\\n\t\x01é");
  EXPECT_EQ(value["big"], ~uint64_t{0});
  std::string vectors;
  const std::vector<double> numbers = {1, 2.5};
  JsonWriter(vectors).value(std::span<const double>(numbers));
  EXPECT_EQ(vectors, "[1,2.5]");
}

TEST(Json, RepairsTextThatIsNotUtf8) {
  std::string out;
  append_json_string(out,
                     "a\xff"
                     "b\xe2\x82");
  EXPECT_EQ(out,
            "\"a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(Json, DoublesSurviveToTheBit) {
  CounterRng rng(1, Stream::test, 0);
  const auto check = [](double x) {
    std::string text;
    JsonWriter(text).value(x);
    EXPECT_EQ(parse_json(text, "x").get<double>(), x) << text;
  };
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bits = rng.next_u64();
    double x;
    std::memcpy(&x, &bits, sizeof x);
    if (std::isfinite(x)) check(x);
  }
  for (const double x :
       {0.0, 5e-324, 2.2250738585072011e-308, 1.7976931348623157e308, 9007199254740993.0, 0.1 + 0.2, 1e22, 1e23})
    check(x);
  EXPECT_EQ(parse_json("123456789012345678901234567890", "x").get<double>(), 123456789012345678901234567890.0);
  EXPECT_EQ(parse_json("9223372036854775807", "x").get<int64_t>(), std::numeric_limits<int64_t>::max());
}

TEST(Json, Limits) {
  EXPECT_EQ(parse_json(std::string(64, '[') + std::string(64, ']'), "x").size(), 1u);
  EXPECT_EQ(error_of(std::string(65, '[') + std::string(65, ']')), "f.json:7: byte 65: more than 64 levels of nesting");
  EXPECT_EQ(error_of(std::string(1000000, '[')), "f.json:7: byte 65: more than 64 levels of nesting");
  EXPECT_EQ(error_of("[1,2,3]", {.max_bytes = 6}), "f.json:7: 7 bytes of JSON, more than the 6 allowed here");
  EXPECT_EQ(error_of("[1,2,3]", {.max_values = 3}), "f.json:7: byte 7: more than 3 values");
  EXPECT_EQ(error_of("{\"a\":1,\n\"a\":2}"), "f.json:8: byte 11: the key \"a\" stands twice in one object");
}

TEST(Json, ErrorsSayWhere) {
  EXPECT_TRUE(error_of("").starts_with("f.json:7: byte 0: unexpected end of input")) << error_of("");
  EXPECT_TRUE(error_of("[1,\n2,\n]").starts_with("f.json:9: byte 8: unexpected ']'")) << error_of("[1,\n2,\n]");
  for (const char* bad : {"{", "[1", "nul", "{\"a\"}", "{a:1}", "'x'", "01", "1.", "+1", "\"\x01\"", "\"\\ud800\"",
                          "\"\xff\"", "1e999", "NaN", "[1]x", "\"\xed\xa0\x80\"", "{\"a\":1,}", "// x\n1"})
    EXPECT_NE(error_of(bad), "no error") << bad;
  EXPECT_NE(error_of(std::string_view("1\0", 2)), "no error");
}

TEST(Json, Lines) {
  TempFolder folder;
  write_file_atomic(folder.file("a.jsonl"), "{\"a\":1}\n\n  \n{\"a\":2}\r\n{\"a\":3}");
  std::vector<std::pair<int, int>> seen;
  read_json_lines(folder.file("a.jsonl"),
                  [&](Json& value, int line) { seen.emplace_back(line, value["a"].get<int>()); });
  EXPECT_EQ(seen, (std::vector<std::pair<int, int>>{{1, 1}, {4, 2}, {5, 3}}));
  write_file_atomic(folder.file("b.jsonl"), "{}\n{\"a\":}\n");
  try {
    read_json_lines(folder.file("b.jsonl"), [](Json&, int) {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with(folder.file("b.jsonl") + ":2: byte 6: unexpected")) << e.what();
  }
}

TEST(Utf8, EveryCodePointAndNothingElse) {
  // Encode by the definition; decode by the table.
  for (uint32_t c = 0; c <= 0x110000; ++c) {
    std::string s;
    if (c < 0x80)
      s = {static_cast<char>(c)};
    else if (c < 0x800)
      s = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    else if (c < 0x10000)
      s = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
           static_cast<char>(0x80 | (c & 63))};
    else
      s = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
           static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    const bool valid = c < 0x110000 && !(c >= 0xD800 && c <= 0xDFFF);
    ASSERT_EQ(utf8_char_bytes(s), valid ? s.size() : 0) << c;
    if (s.size() > 1) {
      ASSERT_EQ(utf8_char_bytes(std::string_view(s).substr(0, s.size() - 1)), 0u) << c;
    }
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF5\x80\x80\x80", "\xFF"})
    EXPECT_FALSE(is_utf8(bad));
  EXPECT_EQ(utf8_valid_prefix("ab\xff"), 2u);
  for (size_t length = 0; length < 40; ++length) {
    EXPECT_TRUE(is_utf8(std::string(length, 'a')));
    for (size_t at = 0; at < length; ++at) {
      std::string bad(length, 'a');
      bad[at] = '\x80';
      EXPECT_EQ(utf8_valid_prefix(bad), at) << length;
    }
  }
  EXPECT_EQ(utf8_repaired("\xff"
                          "a\xc3"),
            "\xEF\xBF\xBD"
            "a\xEF\xBF\xBD");
}

}  // namespace
}  // namespace ponder
