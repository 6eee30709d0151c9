#include "ponder/text/tokenizer_json.h"

#include <gtest/gtest.h>

#include <functional>

#include "ponder/base/error.h"

namespace ponder::text {
namespace {

// What the reader says to the text, passed and read; "" if nothing.
std::string error_of(const std::string& text, bool read) {
  const std::function<void(JsonReader&)> pass = [&](JsonReader& r) {
    std::string unescaped;
    switch (r.ahead()) {
      case '{': return r.members([&](std::string_view) { pass(r); });
      case '[': return r.items([&] { pass(r); });
      case '"': return void(r.text(unescaped));
      default: r.skip();
    }
  };
  try {
    JsonReader r(text, "f.json");
    if (read) {
      pass(r);
    } else {
      r.skip();
    }
    r.finish();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "";
}

std::string nested(size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

TEST(JsonReader, TakesWhatIsWellFormed) {
  for (const std::string& text :
       {std::string("0"), std::string(" [ ] "), std::string("{}"), std::string("-0.5e+10"), std::string("1E9"),
        std::string("[1,{\"a\":[]},null,true,false,\"\"]"), std::string("\t{\"a\" : 1 ,\r\n\"a\":-2}"),
        std::string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\ud83d\\uDE00 \x7F \u00E9\u4E2D\U0001F600\""), nested(64)}) {
    EXPECT_EQ(error_of(text, false), "") << text;
    EXPECT_EQ(error_of(text, true), "") << text;
  }
}

TEST(JsonReader, SaysWhatIsWrongAndWhere) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "f.json:1: byte 0: the text ends where a value should follow"},
      {"[1,\n2", "f.json:2: byte 5: the text ends where ',' or ']' should follow"},
      {"[1,]", "byte 4: ']' where a value should stand"},
      {"[1 2]", "byte 4: '2' where ',' or ']' should stand"},
      {"{,}", "byte 2: ',' where a text in quotes should stand"},
      {"{\"a\" 1}", "byte 6: '1' where ':' should stand"},
      {"{\"a\":1,}", "byte 8: '}' where a text in quotes should stand"},
      {"{\"a\":1]", "byte 7: ']' where ',' or '}' should stand"},
      {"{}{}", "byte 3: '{' where the end should stand"},
      {"nul", "byte 3: the text ends where \"null\" should follow"},
      {"truE", "byte 4: 'E' where \"true\" should stand"},
      {"01", "byte 2: '1' where the end should stand"},
      {"-", "byte 1: the text ends where a digit should follow"},
      {"1.", "byte 2: the text ends where a digit should follow"},
      {"1e+x", "byte 4: 'x' where a digit should stand"},
      {"+1", "byte 1: '+' where a value should stand"},
      {"\"abcdefghijk", "byte 12: the text ends where the closing '\"' of a text should follow"},
      {"\"abcdefgh\n\"", "byte 10: a control character in a text"},
      {"\"\\x\"", "byte 3: 'x' where an escape that JSON knows should stand"},
      {"\"\\u12g4\"", "byte 6: 'g' where a hexadecimal digit should stand"},
      {"\"\\ud83dx\"", "byte 8: 'x' where the other half of a surrogate pair should stand"},
      {"\"\\ud83d\\ud83d\"", "byte 14: a surrogate pair of two first halves"},
      {"\"\\ude00\\ud83d\"", "byte 8: '\\' where the other half of a surrogate pair should stand"},
      {"\"ab\xFF\"", "byte 4: bytes that are not UTF-8"},
      {"\xEF\xBB\xBF{}", "byte 1: a byte 0xef where a value should stand"},
      {std::string("[\0]", 3), "byte 2: a byte 0x00 where a value should stand"},
      {nested(65), "byte 65: more than 64 levels of nesting"},
  };
  for (const auto& [text, expected] : cases) {
    for (const bool read : {false, true}) {
      const std::string error = error_of(text, read);
      EXPECT_NE(error.find(expected), std::string::npos) << text << ": " << error;
    }
  }
  const std::string large = "\"" + std::string(JsonReader::kMaxTextBytes + 1, 'a') + "\"";
  EXPECT_EQ(error_of(large, false), "");
  EXPECT_NE(error_of(large, true).find("a text of more than 1048576 bytes"), std::string::npos);
}

TEST(JsonReader, GivesWhatItPasses) {
  JsonReader r(" {\"a\" : [1, [2, 3], {}] , \"\\u00e9\\n\\ud83d\\ude00\":\"b\"} ", "f.json");
  std::string seen, unescaped;
  r.members([&](std::string_view name) {
    const auto passed = r.skip();
    seen += fmt::format("{}={}({})", name, passed.json, passed.items);
  });
  r.finish();
  EXPECT_EQ(seen, "a=[1, [2, 3], {}](3)\u00E9\n\U0001F600=\"b\"(0)");
  EXPECT_EQ(json_integer("-12"), -12);
  EXPECT_EQ(json_integer("9223372036854775807"), INT64_MAX);
  for (const char* bad : {"9223372036854775808", "1.0", "1e3", "\"1\"", "null", ""})
    EXPECT_EQ(json_integer(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace ponder::text
