#include "ponder/text/tokenizer.h"

#include <gtest/gtest.h>
#include <zstd.h>

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

// A byte-level BPE of few tokens, with parts of the file replaced.
std::string bpe_json(std::string_view pre, std::string_view model = "",
                     std::string_view merges = R"(["a b",["ab","c"]])", std::string_view rest = "") {
  return fmt::format(R"({{"added_tokens":[{{"id":5,"content":"<s>","special":true}}],"pre_tokenizer":{},{})"
                     R"("model":{{"type":"BPE",{}"vocab":{{"a":0,"b":1,"c":2,"ab":3,"abc":4}},"merges":{}}}}})",
                     pre, rest, model, merges);
}
constexpr std::string_view kByteLevel = R"({"type":"ByteLevel","add_prefix_space":false})";

TEST(TokenizerFile, ReadsBpe) {
  const auto t = parse_tokenizer(bpe_json(kByteLevel), "t.json");
  EXPECT_EQ(t->encode("abcab<s>c"), (std::vector<int32_t>{4, 3, 5, 2}));
  EXPECT_FALSE(t->special().add_bos);
  const auto llama =
      parse_tokenizer(bpe_json(kByteLevel, "", R"(["a b"])",
                               R"("post_processor":{"type":"Sequence","processors":[{"type":"TemplateProcessing",)"
                               R"("single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}]}]},)"),
                      "t.json");
  EXPECT_TRUE(llama->special().add_bos);
  EXPECT_EQ(llama->special().bos, 5);
  EXPECT_EQ(llama->encode("abc"), (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(parse_tokenizer(bpe_json(kByteLevel, R"("ignore_merges":true,)", R"(["a b"])"), "t.json")->encode("abc"),
            (std::vector<int32_t>{4}));
  // A byte without a token vanishes, or is the unknown token.
  EXPECT_EQ(t->encode("axxb"), (std::vector<int32_t>{3}));
  EXPECT_EQ(parse_tokenizer(bpe_json(kByteLevel, R"("unk_token":"c",)"), "t.json")->encode("axxb"),
            (std::vector<int32_t>{0, 2, 2, 1}));
  EXPECT_EQ(parse_tokenizer(bpe_json(kByteLevel, R"("unk_token":"c","fuse_unk":true,)"), "t.json")->encode("axxb"),
            (std::vector<int32_t>{0, 2, 1}));
}

TEST(TokenizerFile, ReadsPacked) {
  const TempFolder folder;
  const std::string json = bpe_json(kByteLevel), path = folder.file("tokenizer.json.zst");
  std::string packed(ZSTD_compressBound(json.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), json.data(), json.size(), 3));
  write_file_atomic(path, packed);
  EXPECT_EQ(load_tokenizer(path)->to_json(), parse_tokenizer(json, path)->to_json());
  for (const auto& bad :
       {packed.substr(0, packed.size() - 3), packed.substr(0, 5), packed.substr(0, 8) + "xxxxxxxxxxx"}) {
    write_file_atomic(path, bad);
    EXPECT_THROW(load_tokenizer(path), Error);
  }
}

// As `zstd` writes what it reads from a pipe: a frame that does not say how much it holds.
std::string packed_unsized(std::string_view text) {
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  for (const auto step : {ZSTD_e_continue, ZSTD_e_end}) {
    ZSTD_inBuffer in{text.data(), step == ZSTD_e_continue ? text.size() : 0, 0};
    EXPECT_EQ(ZSTD_compressStream2(context.get(), &to, &in, step), 0u);
  }
  out.resize(to.pos);
  EXPECT_EQ(ZSTD_getFrameContentSize(out.data(), out.size()), ZSTD_CONTENTSIZE_UNKNOWN);
  return out;
}

// A small file that unpacks to a large one: up to 100 times its size is read, whether the frame tells its size or not.
TEST(TokenizerFile, BoundsWhatIsUnpacked) {
  const TempFolder folder;
  const std::string path = folder.file("tokenizer.json.zst");
  const auto error = [&](const std::string& packed) -> std::string {
    write_file_atomic(path, packed);
    try {
      load_tokenizer(path);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Exit::data);
      return e.what();
    }
    return "";
  };
  CounterRng rng(1, Stream::test, 0);
  std::string noise;  // hardly any of it can be packed: two hexadecimal digits a byte
  for (int i = 0; i < 20'000; ++i) noise += fmt::format("{:02x}", rng.next_u32() & 255);
  for (const bool sized : {true, false}) {
    // Some 20,000 bytes packed, to which more of the same adds next to nothing; then all that it unpacks to is that.
    const auto file = [&](size_t more) {
      std::string model = fmt::format("\"x\":\"{}\",", noise);
      for (const size_t bytes = model.size() + more; model.size() < bytes;) model += "\"y\":0,";
      const std::string json = bpe_json(kByteLevel, model);
      if (!sized) return packed_unsized(json);
      std::string packed(ZSTD_compressBound(json.size()), '\0');
      packed.resize(ZSTD_compress(packed.data(), packed.size(), json.data(), json.size(), 3));
      return packed;
    };
    const size_t packed = file(0).size();
    EXPECT_EQ(error(file(90 * packed)), "") << sized;
    const std::string bomb = file(110 * packed);
    EXPECT_EQ(error(bomb), fmt::format("{}: more than {} bytes unpacked", path, 100 * bomb.size())) << sized;
    EXPECT_EQ(error(bomb.substr(0, bomb.size() - 100)), path + ": the zstd data end too early") << sized;
  }
}

// What a file says of its tokenizer is in the file that is written of it.
TEST(TokenizerFile, WritesWhatItRead) {
  const auto read = parse_tokenizer(
      bpe_json(kByteLevel, R"("unk_token":"c","fuse_unk":true,)", R"(["a b"])",
               R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]},)"
               R"("normalizer":{"type":"NFC"},)"),
      "t.json");
  const auto again = parse_tokenizer(read->to_json(), "written");
  EXPECT_EQ(again->to_json(), read->to_json());
  EXPECT_TRUE(again->special().add_bos);
  EXPECT_EQ(again->special().bos, 5);
  for (const char* text : {"axxb", "ab<s>c", "a\u0301"}) EXPECT_EQ(again->encode(text), read->encode(text)) << text;
}

// Members may stand in any order; of those of one name, the first counts. Names and texts may be escaped.
TEST(TokenizerFile, ReadsInAnyOrder) {
  const auto t = parse_tokenizer(
      R"({"model":{"merges":[ "a b" , ["\u0061b", "\u0063"] ],"x":[{"merges":[]}],"v\u006fcab":{"abc":4,"ab":3,)"
      R"("c":2,"b":1,"a":0,"\ud83d\ude00\n":6},"merges":[],"type":"BPE"},"pre_tokenizer":{"use_regex":false,)"
      R"("type":"ByteLevel"},"added_tokens":[{"special":true,"content":"<s>","id":5}]})",
      "t.json");
  EXPECT_EQ(t->encode("abcab<s>c"), (std::vector<int32_t>{4, 3, 5, 2}));
  EXPECT_EQ(t->token(6), "\U0001F600\n");
  EXPECT_EQ(t->token(7), "");
  EXPECT_EQ(t->find("abcd"), std::nullopt);
}

TEST(Vocabulary, KeepsTextsOfAnyLength) {
  Vocabulary v;
  std::string expected[600];
  for (int32_t i = 599; i > 0; --i) {  // from the last to the first, as a file may have them
    expected[i] = std::string(static_cast<size_t>(i), static_cast<char>('a' + i % 26)) + '\0';
    v.set(i, expected[i]);
  }
  v.index();
  EXPECT_EQ(v.size(), 600);
  EXPECT_EQ(v.twice(), std::nullopt);
  EXPECT_EQ(v.find(""), std::nullopt);
  for (int32_t i = 0; i < 600; ++i) {
    EXPECT_EQ(v[i], expected[i]);
    EXPECT_EQ(v.find(expected[i]), i > 0 ? std::optional(i) : std::nullopt);
  }
  EXPECT_EQ(v[-1], "");
  EXPECT_EQ(v[600], "");
}

TEST(TokenizerFile, NamesWhatIsNotSupported) {
  const auto sequence = [](std::string_view step) {
    return fmt::format(R"({{"type":"Sequence","pretokenizers":[{},{}]}})", step, kByteLevel);
  };
  const auto split = [&](std::string_view pattern, std::string_view behavior = "Isolated") {
    return bpe_json(
        sequence(fmt::format(R"({{"type":"Split","pattern":{{"Regex":"{}"}},"behavior":"{}"}})", pattern, behavior)));
  };
  EXPECT_NO_THROW(parse_tokenizer(bpe_json(kByteLevel, R"("dropout":0.0,)"), "t.json"));
  std::string zeros;
  for (int i = 0; i < 600'000; ++i) zeros += "0,";
  const std::pair<std::string, const char*> cases[] = {
      {bpe_json("null"), "SentencePiece"},
      {bpe_json(R"({"type":"Metaspace"})"), "Metaspace"},
      {bpe_json(R"({"type":"ByteLevel","type":0})"), "t.json: pre_tokenizer:1: byte 26: the key \"type\" stands twice"},
      {bpe_json("[" + zeros + "0]"), "a pre_tokenizer of 1200003 bytes; at most 1048576 are read"},
      {bpe_json("[" + zeros.substr(0, 600'000) + "0]"), "more than 65536 values"},
      {bpe_json(R"({"type":"ByteLevel","add_prefix_space":true})"), "add_prefix_space"},
      {bpe_json(kByteLevel, R"("byte_fallback":true,)"), "SentencePiece"},
      {bpe_json(kByteLevel, R"("dropout":0.1,)"), "dropout"},
      {bpe_json(kByteLevel, R"("end_of_word_suffix":"</w>",)"), "end_of_word_suffix"},
      {bpe_json(kByteLevel, R"("unk_token":"?",)"), "unk_token"},
      {bpe_json(kByteLevel, "", R"(["ab"])"), "two tokens"},
      {bpe_json(kByteLevel, "", R"(["a z"])"), "vocabulary"},
      {bpe_json(kByteLevel, "", "[3]"), "neither"},
      {bpe_json(kByteLevel, "", "3"), "merges"},
      {bpe_json(kByteLevel, "", "[]", R"("normalizer":{"type":"Prepend"},)"), "Prepend"},
      {split("a", "MergedWithNext"), "MergedWithNext"},
      {split("(a"), "does not compile"},
      {split("[a&&b]"), "intersection"},
      {split("[a[b]]"), "class inside a class"},
      {split(""), "expression of 0 bytes"},
  };
  for (const auto& [json, expected] : cases) {
    const std::string error = error_of(json);
    EXPECT_NE(error.find(expected), std::string::npos) << json << ": " << error;
  }
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
