#include "ponder/text/tokenizer.h"

#include <gtest/gtest.h>

#include <array>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/rng.h"

namespace ponder::text {
namespace {

WordLevel words() { return WordLevel({"<pad>", "<bos>", "<end>", "+", "12", "=13"}, std::array<int32_t, 3>{0, 1, 2}); }

std::string error_of(std::string_view json) {
  try {
    parse_tokenizer(json, "t.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    EXPECT_TRUE(std::string_view(e.what()).starts_with("t.json")) << e.what();
    return e.what();
  }
  return "";
}

TEST(WordLevel, EncodesAndDecodes) {
  const WordLevel t = words();
  EXPECT_EQ(t.encode(" <bos> 12\t+ 12\n=13 <end>"), (std::vector<int32_t>{1, 4, 3, 4, 5, 2}));
  EXPECT_EQ(t.encode("<bos>12<end>"), (std::vector<int32_t>{1, 4, 2}));
  EXPECT_EQ(t.encode(""), std::vector<int32_t>{});
  EXPECT_EQ(t.decode(std::vector<int32_t>{1, 4, 3, 99, -1, 5}), "<bos> 12 + =13");
  EXPECT_EQ(t.special().pad, 0);
  EXPECT_EQ(t.special().bos, 1);
  EXPECT_EQ(t.special().eos, 2);
  EXPECT_TRUE(t.is_special(2));
  EXPECT_FALSE(t.is_special(3));
  EXPECT_FALSE(t.is_special(-1));
}

TEST(WordLevel, NamesTheUnknownWord) {
  try {
    words().encode("12 + thirteen");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("\"thirteen\""), std::string::npos) << e.what();
  }
}

TEST(ByteLevel, EveryTextRoundTrips) {
  const ByteLevel t;
  EXPECT_EQ(t.vocab_size(), 259);
  EXPECT_EQ(t.special().eos, 258);
  for (const char* s : {"", "plain", "\xC3\xA4\xE2\x82\xAC\xF0\x9F\xA4\x94", "a <end> b", "\t\r\n"}) {
    EXPECT_EQ(t.decode(t.encode(s)), s);
    EXPECT_EQ(t.decode(t.encode(s, Specials::ignore)), s);
  }
  EXPECT_EQ(t.encode("a<end>"), (std::vector<int32_t>{'a', 258}));
  EXPECT_EQ(t.encode("<end>", Specials::ignore), (std::vector<int32_t>{'<', 'e', 'n', 'd', '>'}));
  EXPECT_EQ(t.decode(t.encode("\xFF")), "\xEF\xBF\xBD");
  EXPECT_EQ(t.token(' '), "\xC4\xA0");  // as GPT-2 spells a space
  EXPECT_EQ(t.token('\n'), "\xC4\x8A");
  EXPECT_EQ(t.token(0xAD), "\xC5\x83");
}

TEST(TokenizerFile, RoundTrips) {
  const TempFolder folder;
  const WordLevel w = words();
  const ByteLevel b;
  for (const Tokenizer* t : {static_cast<const Tokenizer*>(&w), static_cast<const Tokenizer*>(&b)}) {
    t->save(folder.file("tokenizer.json"));
    const auto back = load_tokenizer(folder.file("tokenizer.json"));
    ASSERT_EQ(back->vocab_size(), t->vocab_size());
    for (int32_t i = 0; i < t->vocab_size(); ++i) {
      EXPECT_EQ(back->token(i), t->token(i));
      EXPECT_EQ(back->is_special(i), t->is_special(i));
    }
    EXPECT_EQ(back->to_json(), t->to_json());
    EXPECT_EQ(back->special().bos, t->special().bos);
  }
}

TEST(TokenizerFile, ErrorsSayWhat) {
  const struct {
    const char *json, *expected;
  } cases[] = {
      {"", ""},
      {"[]", "no \"model\""},
      {"{\"model\":{\"type\":\"Unigram\"}}", "Unigram"},
      {"{\"model\":{\"type\":\"WordLevel\"}}", "\"vocab\""},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "empty"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":2}}}", "holes"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":0}}}", "id 0"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":-1}}}", "needs an id"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":99999999}}}", "needs an id"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":\"x\"}}}", "needs an id"},
      {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}", "WhitespaceSplit"},
      {"{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a b\":0}}}",
       "white space"},
      {"{\"added_tokens\":[{\"id\":1,\"content\":\"a\"}],\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}",
       "two ids"},
      {"{\"added_tokens\":[{}],\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}", "content"},
      {"{\"model\":{\"type\":\"WordPiece\"}}", "BERT"},
      {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}", "SentencePiece"},
  };
  for (const auto& c : cases) {
    const std::string error = error_of(c.json);
    EXPECT_FALSE(error.empty()) << c.json;
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.json << ": " << error;
  }
  EXPECT_FALSE(error_of(std::string(100'000, '[')).empty());
  EXPECT_THROW(load_tokenizer("/nonexistent/tokenizer.json"), Error);
}

// A damaged file is an error or another tokenizer, never anything else.
TEST(TokenizerFile, AnyDamageIsAnError) {
  const std::string good = words().to_json();
  int errors = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    CounterRng rng(1, Stream::test, i);
    std::string bad = good;
    for (uint64_t k = 0; k <= rng.below(3); ++k) bad[rng.below(bad.size())] = static_cast<char>(rng.next_u32());
    if (rng.below(4) == 0) bad.resize(rng.below(bad.size()));
    try {
      parse_tokenizer(bad, "t.json")->decode(std::vector<int32_t>{0, 1, 2});
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 1000);
}

}  // namespace
}  // namespace ponder::text
