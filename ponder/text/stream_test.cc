#include "ponder/text/stream.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/rng.h"
#include "ponder/text/tokenizer.h"
#include "tests/shared.h"

namespace ponder::text {
namespace {

using Deltas = std::vector<ThinkSplitter::Delta>;

TEST(Utf8Stream, HoldsOnlyWhatMayBecomeACharacter) {
  Utf8Stream s;
  EXPECT_EQ(s.push("a\xF0\x9F"), "a");
  EXPECT_EQ(s.push("\xA4"), "");
  EXPECT_EQ(s.push("\x94!"), "\xF0\x9F\xA4\x94!");
  EXPECT_EQ(s.push("\xE2\x82"), "");
  EXPECT_EQ(s.push("x"), "\xEF\xBF\xBDx");  // one mark for the two bytes
  EXPECT_EQ(s.push("\xC3"), "");
  EXPECT_EQ(s.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(s.flush(), "");
  // Overlong forms and values above U+10FFFF are decided at once, a mark a byte; a surrogate with its third byte.
  for (const char* ill : {"\xC0\xAF", "\xF4\x90", "\xFF\xFE"})
    EXPECT_EQ(Utf8Stream().push(ill), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(s.push("\xED\xA0"), "");
  EXPECT_EQ(s.push("\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(s.push("\xED\xA0"), "");
  EXPECT_EQ(s.flush(), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Utf8Stream, AnyCutGivesTheSame) {
  for (uint64_t i = 0; i < 20'000; ++i) {
    CounterRng rng(1, Stream::test, i);
    const char* parts[] = {"a",        "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\xA4\x94", "\xE2\x82",
                           "\xF0\x9F", "\x80",     "\xFF",         "\xED\xA0\x80"};
    std::string bytes;
    for (uint64_t k = 0; k < rng.below(8); ++k) bytes += parts[rng.below(std::size(parts))];
    Utf8Stream whole, cut;
    std::string expected = whole.push(bytes);
    expected += whole.flush();
    std::string out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = 1 + rng.below(3);
      out += cut.push(std::string_view(bytes).substr(at, n));
      at += n;
    }
    ASSERT_EQ(out + cut.flush(), expected);
  }
}

TEST(StreamDecoder, PiecesJoinToTheText) {
  const WordLevel words({"<bos>", "6", "*", "4"}, std::array<int32_t, 1>{0});
  const ByteLevel bytes;
  for (const Tokenizer* t : {static_cast<const Tokenizer*>(&words), static_cast<const Tokenizer*>(&bytes)}) {
    StreamDecoder stream(*t);
    const std::vector<int32_t> ids = {2, 3, -5, 100'000, 1, 0};
    std::string out;
    for (const int32_t id : ids) out += stream.push(id);
    EXPECT_EQ(out + stream.flush(), t->decode(ids));
  }
  EXPECT_EQ(words.decode(std::vector<int32_t>{-1, 1, 2, 3}), "6 * 4");
}

Deltas all(std::string_view tail, ThinkSplitter::Tags tags, std::span<const std::string> pieces) {
  ThinkSplitter s(tail, tags);
  Deltas out;
  const auto add = [&](Deltas more) { out.insert(out.end(), more.begin(), more.end()); };
  for (const auto& piece : pieces) add(s.push(piece));
  add(s.finish());
  // Neighbours of one part are one text.
  Deltas joined;
  for (const auto& d : out) {
    if (!joined.empty() && joined.back().part == d.part) {
      joined.back().text += d.text;
    } else {
      joined.push_back(d);
    }
  }
  return joined;
}

TEST(ThinkSplitter, Golden) {
  const std::string path = test::shared_folder() / "golden/text/think_split.jsonl";
  PONDER_NEED_SHARED(path);
  const auto deltas = [](const Json& j) {
    Deltas out;
    for (const auto& d : j) {
      out.push_back({d.at(0) == "r" ? ThinkSplitter::State::reasoning : ThinkSplitter::State::content,
                     d.at(1).get<std::string>()});
    }
    return out;
  };
  int cases = 0;
  read_json_lines(path, [&](Json& c, int line) {
    ++cases;
    const std::string tags = c.at("tags");
    for (const auto mode : {ThinkSplitter::Tags::token, ThinkSplitter::Tags::text}) {
      if (tags != "both" && tags != (mode == ThinkSplitter::Tags::token ? "token" : "text")) continue;
      ThinkSplitter s(c.at("template_tail").get<std::string>(), mode);
      std::string reasoning, content;
      const auto check = [&](const Deltas& got, const Json& expected) {
        EXPECT_EQ(got, deltas(expected)) << c.at("name");
        for (const auto& d : got) (d.part == ThinkSplitter::State::reasoning ? reasoning : content) += d.text;
      };
      for (size_t i = 0; i < c.at("token_pieces").size(); ++i)
        check(s.push(c.at("token_pieces")[i].get<std::string>()), c.at("deltas")[i]);
      check(s.finish(), c.at("flush"));
      EXPECT_EQ(reasoning, c.at("reasoning").get<std::string>()) << c.at("name");
      EXPECT_EQ(content, c.at("content").get<std::string>()) << c.at("name");
      EXPECT_EQ(s.state() == ThinkSplitter::State::reasoning ? "reasoning" : "content",
                c.at("ended_in").get<std::string>())
          << c.at("name");
    }
  });
  EXPECT_GT(cases, 0);
}

TEST(ThinkSplitter, AnyCutGivesTheSame) {
  const char* parts[] = {"<think>", "</think>", "<think", "</", "<", ">", "a", " ", "\n", "think>", "</think", "x y"};
  for (uint64_t i = 0; i < 10'000; ++i) {
    CounterRng rng(1, Stream::test, i);
    std::string text;
    for (uint64_t k = 0; k < rng.below(10); ++k) text += parts[rng.below(std::size(parts))];
    if (rng.below(50) == 0) text.insert(0, std::string(60 + rng.below(10), ' '));
    const char* tails[] = {"", "x<think>\n", "x</think>"};
    const char* tail = tails[rng.below(3)];
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + rng.below(5);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    ASSERT_EQ(all(tail, ThinkSplitter::Tags::text, pieces), all(tail, ThinkSplitter::Tags::text, std::array{text}))
        << text;
  }
}

// Whole transcripts, cut anywhere, inside characters and tags too.
TEST(ThinkSplitter, GoldenTranscriptsInAnyCut) {
  const std::string path = test::shared_folder() / "golden/text/think_split.jsonl";
  PONDER_NEED_SHARED(path);
  std::vector<std::pair<std::string, std::string>> transcripts;  // the prompt's end, the output
  read_json_lines(path, [&](Json& c, int) {
    std::string text;
    for (const auto& piece : c.at("token_pieces")) text += piece.get<std::string>();
    transcripts.emplace_back(c.at("template_tail").get<std::string>(), text);
  });
  ASSERT_FALSE(transcripts.empty());
  for (uint64_t i = 0; i < 10'000; ++i) {
    CounterRng rng(3, Stream::test, i);
    const auto& [tail, text] = transcripts[i % transcripts.size()];
    std::vector<std::string> pieces;
    const uint64_t longest = 1 + rng.below(20);
    for (size_t at = 0; at < text.size(); at += pieces.back().size())
      pieces.push_back(text.substr(at, 1 + rng.below(longest)));
    ASSERT_EQ(all(tail, ThinkSplitter::Tags::text, pieces), all(tail, ThinkSplitter::Tags::text, std::array{text}))
        << text;
  }
}

TEST(ThinkSplitter, SpaceBeforeTheOpeningTag) {
  for (const auto tags : {ThinkSplitter::Tags::text, ThinkSplitter::Tags::token}) {
    EXPECT_EQ(all("", tags, std::array<std::string, 5>{"\n", " ", "<think>", "r", "</think>"}),
              (Deltas{{ThinkSplitter::State::reasoning, "r"}}));
    EXPECT_EQ(all("", tags, std::array<std::string, 3>{"\n", " ", "c"}),
              (Deltas{{ThinkSplitter::State::content, "\n c"}}));
    EXPECT_EQ(all("", tags, std::array<std::string, 1>{"\n"}), (Deltas{{ThinkSplitter::State::content, "\n"}}));
  }
}

}  // namespace
}  // namespace ponder::text
