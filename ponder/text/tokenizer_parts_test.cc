#include "ponder/text/tokenizer_parts.h"

#include <gtest/gtest.h>

#include "ponder/base/error.h"

namespace ponder::text {
namespace {

std::string nested(size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

// What is said of the text; "" if nothing.
std::string error_of(const std::string& text) {
  try {
    Parts root, model;
    find_parts(text, "f.json", root, model);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "";
}

TEST(TokenizerParts, TakesWhatIsWellFormed) {
  for (const std::string& text :
       {std::string("0"), std::string(" [ ] "), std::string("{}"), std::string("-0.5e+10"), std::string("1E9"),
        std::string("[1,{\"a\":[]},null,true,false,\"\"]"), std::string("\t{\"a\" : 1 ,\r\n\"a\":-2}"),
        std::string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\ud83d\\uDE00 \x7F \u00E9\u4E2D\U0001F600\""), nested(64),
        "{\"model\":" + nested(63) + "}", '"' + std::string((size_t{1} << 20) - 2, 'a') + '"'})
    EXPECT_EQ(error_of(text), "") << text.substr(0, 100);
}

TEST(TokenizerParts, SaysWhatIsWrongAndWhere) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "f.json:1: byte 0: unexpected end of input"},
      {"[1,\n2", "f.json:2: byte 5: unexpected end of input"},
      {"[1,]", "f.json:1: byte 4: unexpected ']'"},
      {"{\"a\" 1}", "byte 7: unexpected number literal"},
      {"{}{}", "byte 3: unexpected '{'"},
      {"{\"model\":{\"type\":truE}}", "byte 21: invalid literal"},
      {"\"abcdefgh\n\"", "byte 10: invalid string"},
      {"\"\\ud83dx\"", "byte 8: invalid string: surrogate"},
      {"\"ab\xFF\"", "byte 4: invalid string: ill-formed UTF-8"},
      {std::string("{}\0", 3), "byte 2: a NUL byte"},
      {"[1e999]", "number overflow"},
      {nested(65), "byte 65: more than 64 levels of nesting"},
      {'"' + std::string(2 << 20, 'a') + '"', "byte 1048577: a text, or a stretch without one, of more than 1048576"},
      {"[0," + std::string(2 << 20, '['), "byte 67: more than 64 levels of nesting"},
      {"[0," + std::string(2 << 20, ' ') + "0]", "a stretch without one"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string error = error_of(text);
    EXPECT_NE(error.find(expected), std::string::npos) << text.substr(0, 100) << ": " << error;
  }
  std::string brackets = "[";  // which the parser would collect
  for (int i = 0; i < 1 << 19; ++i) brackets += "[],";
  EXPECT_NE(error_of(brackets + "0]").find("a stretch without one"), std::string::npos);
}

TEST(TokenizerParts, FindsMembers) {
  const std::string text =
      R"( {"a":12,"b": -1.5 ,"\u0063":true , "d" : "x\"}" , "e":[1,[2,3],{"a":0},"",null], "f":{},"a":13,"model":5,)"
      R"("g":{"a":1,"model":{"type":7}},"model" : {"type":1e2,"x":{"type":0,"a":1},"a":[ ],"type":9,"b":0},)"
      R"("type":"root","model":{"y":1},"z":0})";
  Parts root, model;
  for (const char* name : {"a", "b", "c", "d", "e", "f", "type", "absent", "model", "z"}) root[name] = {};
  for (const char* name : {"type", "x", "a", "b", "y"}) model[name] = {};
  find_parts(text, "f.json", root, model);
  std::string seen;
  for (const Parts* parts : {&root, &model}) {
    for (const auto& [name, part] : *parts) {
      seen += fmt::format("{}={}({})\n", name, part.json, part.items);
      EXPECT_TRUE(part.json.empty() ||
                  (part.json.data() > text.data() && part.json.data() < text.data() + text.size()));
    }
  }
  EXPECT_EQ(seen,
            "a=12(0)\nabsent=(0)\nb=-1.5(0)\nc=true(0)\nd=\"x\\\"}\"(0)\ne=[1,[2,3],{\"a\":0},\"\",null](5)\nf={}(0)\n"
            "model=5(0)\ntype=\"root\"(0)\nz=0(0)\n"
            "a=[ ](0)\nb=0(0)\ntype=1e2(0)\nx={\"type\":0,\"a\":1}(2)\ny=(0)\n");
}

std::string shown(const Scalar& s) {
  if (const auto* text = as_text(s)) return *text;
  if (const auto* n = as_integer(s)) return fmt::format("{}", *n);
  return s == Scalar(true) ? "yes" : s == Scalar(false) ? "no" : s == Scalar(nullptr) ? "-" : "real";
}

TEST(TokenizerParts, GivesEntries) {
  const auto read = [](std::string_view json) {
    std::string seen;
    read_entries({json}, "f.json", false, [&](const Entry& e) {
      seen += fmt::format("{}:{}{}", e.name, shown(e.value), e.is_array ? "[" : "(");
      for (const auto& f : e.fields) seen += fmt::format("{}:{} ", f.name, shown(f.value));
      seen += e.is_array ? "]" : ")";
    });
    return seen;
  };
  EXPECT_EQ(read(R"({"a":1,"\n":[2,"b",[3,{"x":4}],{}],"c":{"d":-5,"e":[6],"f":true},"":null})"),
            "a:1()\n:-[:2 :b :- :- ]c:-(d:-5 e:- f:yes ):-()");
  EXPECT_EQ(read(R"([false, 9223372036854775807, 9223372036854775808, 1.0, [], "\u00e9\ud83d\ude00"])"),
            ":no():9223372036854775807():real():real():-[]:\u00E9\U0001F600()");
  EXPECT_EQ(read("[]") + read("{}"), "");
  Entry entry;
  entry.fields = {{"a", true}, {"a", int64_t{1}}};
  EXPECT_TRUE(entry.is_true("a"));
  EXPECT_FALSE(entry.is_true("b"));
  std::string many = "[[0";
  for (size_t i = 1; i < Entry::kMaxFields; ++i) many += ",0";
  EXPECT_EQ(read(many + "]]").size(), 3 + 3 * Entry::kMaxFields + 1);
  try {
    Parts root = {{"a", {}}}, none;
    const std::string text = "{\"a\":" + many + ",0]]}";
    find_parts(text, "f.json", root, none);
    read_entries(root["a"], "f.json", false, [](const Entry&) {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "f.json: an entry of more than 64 fields (byte 137)");  // behind the number
  }
}

}  // namespace
}  // namespace ponder::text
