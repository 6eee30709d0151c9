#include "ponder/text/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/rng.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/model_text.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

// All 256 bytes, some merges, three marks. `pre` as GGUF names it.
GgufVocabulary small(std::string pre) {
  GgufVocabulary v{.pre = std::move(pre), .tokens = byte_alphabet()};
  for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{
           {"a", "a"}, {"aa", "aa"}, {"t", "h"}, {"th", "e"}, {"\u0120", "the"}, {"\u0120", "\u0120"}, {"1", "2"}}) {
    v.merges.push_back(a + " " + b);
    v.tokens.push_back(a + b);
  }
  v.token_types.assign(v.tokens.size(), GgufVocabulary::kNormal);
  for (const char* mark : {"<|bos|>", "<|eos|>", "<think>"}) {
    v.tokens.emplace_back(mark);
    v.token_types.push_back(mark[1] == '|' ? GgufVocabulary::kControl : GgufVocabulary::kUserDefined);
  }
  v.bos = 263;
  v.eos = 264;
  return v;
}

std::string spelled(const Tokenizer& t, std::string_view text) {
  std::string out;
  for (const int32_t id : t.encode(text)) out += (out.empty() ? "" : " ") + t.token(id);
  return out;
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "";
}

TEST(Bpe, MergesByRank) {
  const auto t = tokenizer_from_gguf(small("gpt-2"), "small");
  EXPECT_EQ(spelled(*t, "the the"), "the \u0120the");
  EXPECT_EQ(spelled(*t, "aaaaaaa"), "aaaa aa a");
  EXPECT_EQ(spelled(*t, "112"), "1 12");
  EXPECT_EQ(spelled(*tokenizer_from_gguf(small("smollm"), "small"), "112"), "1 1 2");
  EXPECT_EQ(t->encode("<|bos|>a<think>"), (std::vector<int32_t>{263, 97, 265}));
  EXPECT_EQ(t->encode("<|bos|>", Specials::ignore).size(), 7u);
  EXPECT_EQ(t->decode(t->encode("<|bos|>a<think>"), true), "a<think>");
  EXPECT_EQ(t->special().bos, 263);
  EXPECT_FALSE(t->special().add_bos);
  EXPECT_TRUE(tokenizer_from_gguf(small("llama-bpe"), "small")->special().add_bos);
}

// The long way of merging gives what the short one gives: every cut of a long piece at which no merge crosses.
TEST(Bpe, LongPiecesMergeLikeShortOnes) {
  for (uint64_t i = 0; i < 300; ++i) {
    CounterRng rng(1, Stream::test, i);
    // A random table over four letters, ranks in random order: later merges may have lower ranks.
    std::vector<std::string> tokens = {"a", "b", "c", "d"};
    std::vector<Merge> merges;
    for (int k = 0; k < 40; ++k) {
      const auto x = rng.below(tokens.size()), y = rng.below(tokens.size());
      const std::string both = tokens[x] + tokens[y];
      if (both.size() > 6) continue;
      auto at = std::find(tokens.begin(), tokens.end(), both) - tokens.begin();
      if (at == static_cast<std::ptrdiff_t>(tokens.size())) tokens.push_back(both);
      merges.push_back({static_cast<int32_t>(x), static_cast<int32_t>(y), static_cast<int32_t>(at)});
    }
    for (size_t k = merges.size(); k > 1; --k) std::swap(merges[k - 1], merges[rng.below(k)]);
    const MergeTable table(merges);
    std::vector<int32_t> ids(70 + rng.below(200));
    for (auto& id : ids) id = static_cast<int32_t>(rng.below(4));
    // By the definition: the lowest rank, the leftmost among equals.
    std::vector<int32_t> expected = ids;
    for (;;) {
      size_t best = merges.size(), where = 0;
      for (size_t p = 0; p + 1 < expected.size(); ++p) {
        size_t rank = merges.size();
        for (size_t r = 0; r < merges.size(); ++r) {
          if (merges[r].left == expected[p] && merges[r].right == expected[p + 1]) rank = r;  // the last one counts
        }
        if (rank < best) best = rank, where = p;
      }
      if (best == merges.size()) break;
      expected[where] = merges[best].merged;
      expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    ids.resize(table.apply(ids));
    ASSERT_EQ(ids, expected) << i;
  }
}

// 5 MB without a place to cut. Quadratic merging or splitting would take hours.
TEST(Bpe, LongLinesTakeLinearTime) {
  for (const char* pre : {"gpt-2", "qwen2", "deepseek-v3", "llama-bpe", "deepseek-llm"}) {
    const auto t = tokenizer_from_gguf(small(pre), "small");
    for (const std::string unit : {"a", " ", "the", "\n", "\xCC\x81", "\x01", "!"}) {
      std::string text;
      while (text.size() < 5'000'000) text += unit;
      const auto begin = std::chrono::steady_clock::now();
      const auto ids = t->encode(text);
      const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      EXPECT_LT(s, 20) << pre << " " << unit;
      if (std::getenv("PONDER_TIMES")) fmt::print("{} '{}': {:.2f} s\n", pre, unit, s);
      if (unit == "a") {
        EXPECT_EQ(ids.size(), text.size() / 4);
      }
    }
  }
}

TEST(Bpe, BytesWithoutATokenVanishBeforeMerging) {
  auto v = small("gpt-2");
  v.token_types['x'] = GgufVocabulary::kUnused;
  const auto t = tokenizer_from_gguf(v, "small");
  EXPECT_EQ(spelled(*t, "axa"), "aa");
}

TEST(Bpe, MalformedTextBecomesReplacementCharacters) {
  const auto t = tokenizer_from_gguf(small("qwen2"), "small");
  EXPECT_EQ(t->decode(t->encode("a\xFF\xE2\x82z")), "a\uFFFD\uFFFDz");
  EXPECT_EQ(t->decode(t->encode("e\u0301")), "\u00E9");  // NFC
}

// Random text of everything: decode(encode(s)) is s, or its NFC for Qwen.
TEST(Bpe, AnyTextRoundTrips) {
  for (const char* pre :
       {"gpt-2", "smollm", "qwen2", "llama-bpe", "deepseek-v3", "deepseek-llm", "deepseek-coder", "default"}) {
    const auto t = tokenizer_from_gguf(small(pre), "small");
    for (uint64_t i = 0; i < 2000; ++i) {
      CounterRng rng(2, Stream::test, i);
      const bool nfc = std::string_view(pre) == "qwen2";
      std::string text, stretch, expected;  // marks are cut out before normalisation
      const auto flush = [&](std::string_view mark) {
        text += stretch + std::string(mark);
        expected += (nfc ? to_nfc(stretch) : stretch) + std::string(mark);
        stretch.clear();
      };
      for (uint64_t k = rng.below(40); k > 0; --k) {
        const uint32_t ranges[][2] = {{0, 0x7F},        {0x20, 0x7E},       {0x80, 0x24F},    {0x300, 0x36F},
                                      {0x370, 0x52F},   {0x900, 0x97F},     {0x1100, 0x11FF}, {0x2000, 0x206F},
                                      {0x3000, 0x30FF}, {0x4E00, 0x4EFF},   {0xAC00, 0xAC80}, {0x1F300, 0x1F6FF},
                                      {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
        const auto& r = ranges[rng.below(std::size(ranges))];
        append_utf8(stretch, r[0] + static_cast<uint32_t>(rng.below(r[1] - r[0] + 1)));
        if (rng.below(8) == 0) stretch += " the";
        if (rng.below(8) == 0) flush("<|eos|>");
      }
      flush("");
      ASSERT_EQ(t->decode(t->encode(text)), expected) << pre;
      ASSERT_EQ(t->decode(t->encode(text, Specials::ignore)), nfc ? to_nfc(text) : text) << pre;
    }
  }
}

TEST(Bpe, GgufThereAndBack) {
  for (const char* pre :
       {"gpt-2", "smollm", "qwen2", "llama-bpe", "deepseek-v3", "deepseek-llm", "deepseek-coder", "default"}) {
    const auto t = tokenizer_from_gguf(small(pre), "small");
    const auto v = gguf_vocabulary(*t, 270);
    EXPECT_EQ(v.pre, pre);
    EXPECT_EQ(v.merges, small(pre).merges);
    EXPECT_EQ(v.bos, 263);
    ASSERT_EQ(v.tokens.size(), 270u);
    EXPECT_EQ(v.tokens[268], "[PAD268]");
    EXPECT_EQ(v.token_types[268], GgufVocabulary::kUnused);
    EXPECT_EQ(v.token_types[265], GgufVocabulary::kUserDefined);
    // Through tokenizer.json, too.
    const auto file = parse_tokenizer(t->to_json(), "written");
    for (const auto* other :
         {tokenizer_from_gguf(v, "again").release(), parse_tokenizer(t->to_json(), "written").release()}) {
      const std::unique_ptr<const Tokenizer> owner(other);
      EXPECT_EQ(other->vocab_size(), t->vocab_size());
      const std::string text = "<|bos|>the 1234 aaaaa\r\n\n  <think> it's IT'S \u4E2D\u6587\u3042 e\u0301!?\n";
      EXPECT_EQ(other->encode(text), t->encode(text)) << pre;
    }
    EXPECT_EQ(gguf_vocabulary(*file, 270).pre, pre);
  }
}

TEST(Bpe, GgufErrorsSayWhat) {
  const auto message = [](auto change) {
    GgufVocabulary v = small("gpt-2");
    change(v);
    return error_of([&] { tokenizer_from_gguf(v, "x.gguf"); });
  };
  using V = GgufVocabulary;
  EXPECT_NE(message([](V& v) { v.model = "llama"; }).find("SentencePiece"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.pre = "what"; }).find("llama-bpe, llama3"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.tokens.clear(); }).find("empty"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.token_types.pop_back(); }).find("token types"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.tokens[7] = "\xFF"; }).find("UTF-8"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.tokens[7] = v.tokens[8]; }).find("two ids"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.merges[0] = "ab"; }).find("two tokens"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.merges[0] = "a b"; }).find("the result is not in"), std::string::npos);
  EXPECT_NE(message([](V& v) { v.eos = 266; }).find("eos_token_id"), std::string::npos);
  EXPECT_EQ(message([](V& v) { v.token_types.clear(); }), "");
  EXPECT_EQ(message([](V& v) { v.merges.push_back("a zz"); }), "") << "it can never happen";
}

TEST(ModelText, ReadsAFolder) {
  const TempFolder folder;
  const auto write = [&](const char* name, std::string_view text) { write_file_atomic(folder.file(name), text); };
  write("tokenizer.json", tokenizer_from_gguf(small("qwen2"), "small")->to_json());
  ModelText m = load_model_text(folder.path());
  EXPECT_FALSE(m.chat_template);
  EXPECT_EQ(m.bos_text, "");
  write("config.json", R"({"eos_token_id":263})");  // counts until there is a generation_config.json
  EXPECT_EQ(load_model_text(folder.path()).eos_ids, (std::vector<int32_t>{263}));
  write("tokenizer_config.json",
        R"({"bos_token":{"content":"<|bos|>"},"eos_token":"<|eos|>","pad_token":null,"add_bos_token":true,)"
        R"("chat_template":[{"name":"tool","template":"T"},{"name":"default","template":"D"}]})");
  write("generation_config.json", R"({"eos_token_id":[265,264]})");
  m = load_model_text(folder.path());
  EXPECT_EQ(m.chat_template, "D");
  EXPECT_EQ(m.bos_text, "<|bos|>");
  EXPECT_EQ(m.eos_text, "<|eos|>");
  EXPECT_EQ(m.eos_ids, (std::vector<int32_t>{264, 265}));
  EXPECT_TRUE(m.tokenizer->special().add_bos);
  const TempFolder copy;
  save_model_text(m, copy.path());
  const ModelText again = load_model_text(copy.path());
  EXPECT_EQ(again.chat_template, "D");
  EXPECT_EQ(again.eos_ids, (std::vector<int32_t>{264}));
  EXPECT_TRUE(again.tokenizer->special().add_bos);
  write("chat_template.jinja", "J");
  EXPECT_EQ(load_model_text(folder.path()).chat_template, "J");
  for (const char* bad : {"[]", R"({"bos_token":"<nobody>"})", R"({"bos_token":3})", R"({"chat_template":3})"}) {
    write("tokenizer_config.json", bad);
    EXPECT_NE(error_of([&] { load_model_text(folder.path()); }).find("tokenizer_config.json"), std::string::npos)
        << bad;
  }
  write("tokenizer_config.json", "{}");
  write("generation_config.json", R"({"eos_token_id":"x"})");
  EXPECT_NE(error_of([&] { load_model_text(folder.path()); }).find("generation_config.json"), std::string::npos);
}

TEST(AddedTokens, LeftmostThenLongest) {
  const auto token = [](int32_t id) { return AddedToken{.id = id}; };
  AddedToken greedy = token(5), word = token(6);
  greedy.lstrip = greedy.rstrip = true;
  word.single_word = true;
  const AddedTokenMatcher m(
      {{"<a", token(0)}, {"<a>", token(1)}, {"<ab", token(2)}, {"a", token(3)}, {"__", greedy}, {"wo", word}});
  const auto cut = [&](std::string_view text) {
    std::string out;
    m.cut(text, [&](std::string_view s, std::optional<int32_t> id) {
      out += id ? fmt::format("[{}]", *id) : std::string(s) + "|";
    });
    return out;
  };
  EXPECT_EQ(cut("x<a>y"), "x|[1]y|");
  EXPECT_EQ(cut("<a<ab<"), "[0][2]<|");
  EXPECT_EQ(cut("xa"), "x|[3]");
  EXPECT_EQ(cut("x  __\u3000\n y __"), "x|[5]y|[5]");
  EXPECT_EQ(cut("wo wox \u00E9wo wo"), "[6] wox \u00E9wo |[6]");
  EXPECT_EQ(cut(""), "");
}

}  // namespace
}  // namespace ponder::text
