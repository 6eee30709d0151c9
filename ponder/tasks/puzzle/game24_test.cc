#include "ponder/tasks/puzzle/game24.h"

#include <gtest/gtest.h>

#include <set>

#include "ponder/base/error.h"
#include "ponder/tasks/evaluate.h"

namespace ponder::tasks {
namespace {

const Game24& game() {
  static const Game24 task;
  return task;
}

Problem problem(std::string_view line) {
  const ParsedLine parsed = game().parse_line(line);
  EXPECT_EQ(parsed.error, "");
  return parsed.problem.value();
}

Grade grade(std::string_view line, std::string_view completion) {
  return game().grade(problem(line), game().tokenizer().encode(completion));
}

TEST(Game24, Counts) {
  EXPECT_EQ(game().tokenizer().vocab_size(), 159);
  EXPECT_EQ(game24_puzzles().size(), 1362u);
  // The tree leaves out zero, negative numbers, what is above 99 and denominators above 13; little of the game is lost.
  int whole = 0, all = 0;
  for (const Problem& p : game24_puzzles()) {
    whole += game().reached(p, false);
    all += game().reached(p, true);
  }
  EXPECT_EQ(whole, 1334);
  EXPECT_EQ(all, 1350);
}

TEST(Game24, HeldOutBySetAndTarget) {
  std::set<std::vector<int64_t>> train;
  for (int64_t i = 0; i < game().problem_count(Split::train); ++i) {
    const Problem p = game().problem(Split::train, i);
    ASSERT_NE(p.target, 24);
    train.insert(p.numbers);
  }
  bool has_24 = false;
  std::set<std::vector<int64_t>> held_out;
  for (int64_t i = 0; i < game().problem_count(Split::held_out); ++i) {
    const Problem p = game().problem(Split::held_out, i);
    ASSERT_FALSE(train.contains(p.numbers)) << p.text;
    held_out.insert(p.numbers);
    has_24 |= p.target == 24;
  }
  EXPECT_TRUE(has_24);
  EXPECT_EQ(train.size() + held_out.size(), 1820u);
  EXPECT_EQ(held_out.size(), 273u);
}

// Every text is a problem of the training split, fits, grades as it was made, and has no errors.
TEST(Game24, CorpusGradesAsMade) {
  const Corpus corpus = make_corpus(game(), 500'000, 3);
  Summary summary(game().modes());
  const auto& words = game().tokenizer();
  for (int64_t i = 0; i < corpus.size(); ++i) {
    const auto ids = corpus.text(i);
    ASSERT_LE(ids.size(), 400u);
    Problem p;
    for (size_t j = 1; j < 5; ++j) p.numbers.push_back(std::stoi(words.token(ids[j]).substr(1)));
    p.target = 10 * std::stoi(words.token(ids[5]).substr(1)) + std::stoi(words.token(ids[6]).substr(2));
    ASSERT_EQ(game().admit(p), "");
    ASSERT_NE(p.target, 24);
    const Grade g = game().grade(p, ids.subspan(7));
    const Diagnostics& d = g.diagnostics;
    ASSERT_EQ(g.right(), !d.gave_up) << words.decode(ids) << g.reason;
    ASSERT_FALSE(d.truncated || d.malformed) << words.decode(ids);
    ASSERT_EQ(d.wrong_arithmetic + d.copy_errors + d.wrong_checks + d.false_yes + d.missed_yes, 0) << words.decode(ids);
    ASSERT_EQ(d.leaves, d.checks) << words.decode(ids);
    ASSERT_EQ(g.mode == "search", d.leaves > 0);
    summary.add(g, static_cast<int64_t>(ids.size()) - 7);
  }
  EXPECT_NEAR(summary.mode_share("search"), 0.45, 0.02);
  EXPECT_EQ(summary.mode_success("guess"), 1);
  EXPECT_EQ(
      make_corpus(game(), 10'000, 3).ids,
      std::vector<int32_t>(corpus.ids.begin(), corpus.ids.begin() + make_corpus(game(), 10'000, 3).offsets.back()));
}

TEST(Game24, TracesLookLikeTheHeader) {
  std::set<std::string> seen;
  for (uint64_t i = 0; i < 4000; ++i) {
    CounterRng rng(1, Stream::test, i);
    seen.insert(game().tokenizer().decode(game().trace(problem("3 7 9 10 -> 23"), rng)));
    seen.insert(game().tokenizer().decode(game().trace(problem("3 3 8 8 -> 24"), rng)));
  }
  EXPECT_TRUE(
      seen.contains("<bos> #10 #9 #7 #3 =2x =x3 <think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 * 78 high + 29 high - "
                    "23 yes </think> ( ( 10 + 9 ) + 7 ) - 3 <end>"));
  EXPECT_TRUE(seen.contains("<bos> #8 #8 #3 #3 =2x =x4 8 / ( 3 - ( 8 / 3 ) ) <end>"));
  const bool fraction = std::any_of(seen.begin(), seen.end(), [](const std::string& s) {
    return s.find("8 / 3 = 8 _3 : 8 3 8 _3") != std::string::npos &&
           s.find("3 - 8 _3 = 1 _3 : 8 1 _3 / 24 yes") != std::string::npos;
  });
  EXPECT_TRUE(fraction);
}

TEST(Game24, GradesAnswers) {
  const struct {
    const char *line, *completion;
    bool right, malformed;
  } cases[] = {
      {"3 3 8 8 -> 24", "8 / ( 3 - ( 8 / 3 ) ) <end>", true, false},
      {"3 3 8 8 -> 24", "8 / ( 3 - 8 / 3 ) <end>", true, false},
      {"3 3 8 8 -> 24", "( 8 / ( 3 - 8 / 3 ) ) <end>", true, false},
      {"1 1 4 6 -> 24", "6 * 4 * 1 * 1 <end>", true, false},
      {"1 1 4 6 -> 24", "6 * 4 * 1 <end>", false, false},
      {"1 1 4 6 -> 24", "6 * 4 * 1 + 1 <end>", false, false},
      {"1 1 4 6 -> 24", "6 * 4 * 1 * 1", false, false},
      {"1 1 4 6 -> 24", "6 * 4 * 1 * 1 _2 <end>", false, true},
      {"1 1 4 6 -> 24", "6 * 4 * 1 = 24 <end>", false, true},
      {"1 1 4 6 -> 24", "#6 * #4 * #1 * #1 <end>", false, true},
      {"1 1 4 6 -> 24", "6 / ( 1 - 1 ) + 4 <end>", false, false},
      {"1 1 4 6 -> 24", "<think> 6 * 4 * 1 * 1 <end>", false, true},
      {"1 1 4 6 -> 24", "<think> </think> 6 * 4 * 1 * 1 <end>", true, false},
      {"1 1 4 6 -> 24", "<end>", false, true},
  };
  for (const auto& c : cases) {
    const Grade g = grade(c.line, c.completion);
    EXPECT_EQ(g.right(), c.right) << c.completion << ": " << g.reason;
    EXPECT_EQ(g.diagnostics.malformed, c.malformed) << c.completion;
  }
}

TEST(Game24, CountsErrorsApart) {
  const auto errors = [](const char* completion) {
    const Diagnostics d = grade("10 9 7 3 -> 23", completion).diagnostics;
    return std::array<int, 6>{d.equations,   d.wrong_arithmetic, d.leaves,
                              d.copy_errors, d.wrong_checks,     d.false_yes + 10 * d.missed_yes};
  };
  using Counts = std::array<int, 6>;
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 * 78 high + 29 high - 23 yes"),
            (Counts{5, 0, 3, 0, 0, 0}));
  EXPECT_EQ(errors("<think> 10 + 9 = 18 : 18 7 3 18 + 7 = 25 : 25 3 * 75 high"), (Counts{3, 1, 1, 0, 0, 0}));  // 10 + 9
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 2 19 + 7 = 26 : 26 2 * 52 high"),
            (Counts{3, 0, 1, 1, 0, 0}));  // 2 is not in play
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 * 77 high"), (Counts{3, 1, 1, 0, 0, 0}));  // 26 * 3
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 - 23 high"),
            (Counts{3, 0, 1, 0, 1, 10}));  // missed
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 * 78 yes"),
            (Counts{3, 0, 1, 0, 1, 1}));                                                    // false yes
  EXPECT_EQ(errors("<think> 10 + 9 = 19 : 19 7 3 * 57 high"), (Counts{2, 1, 1, 1, 0, 0}));  // three in play
  EXPECT_EQ(
      errors("<think> 10 + 9 = 19 : 19 7 3 19 + 7 = 26 : 26 3 * 78 high back 19 - 7 = 12 : 12 3 * 36 high back back "
             "10 - 9 = 1 : 7 3 1 7 + 3 = 10 : 10 1 + 11 low"),
      (Counts{8, 0, 3, 0, 0, 0}));
}

TEST(Game24, NeverThrowsForAnyTokens) {
  const Problem p = problem("1 4 6 6 -> 24");
  for (uint64_t i = 0; i < 20'000; ++i) {
    CounterRng rng(2, Stream::test, i);
    std::vector<int32_t> ids(rng.below(40));
    if (!ids.empty()) ids[0] = 4;
    for (size_t k = 1; k < ids.size(); ++k)
      ids[k] = rng.below(50) ? static_cast<int32_t>(rng.below(30)) : static_cast<int32_t>(rng.next_u32());
    EXPECT_FALSE(game().grade(p, ids).reason.empty());
  }
}

TEST(Game24, SaysWhatIsAllowed) {
  for (const char* line :
       {"1 2 3 -> 24", "1 2 3 4 5 -> 24", "1 2 3 14 -> 24", "1 2 3 0 -> 24", "1 2 3 4 -> 61", "1 2 3 4"}) {
    const ParsedLine parsed = game().parse_line(line);
    EXPECT_FALSE(parsed.problem) << line;
    EXPECT_NE(parsed.error.find("from 1 to 13"), std::string::npos) << parsed.error;
  }
  EXPECT_EQ(game().parse_line("1 5 5 5 -> 24").note, "");
  EXPECT_NE(game().parse_line("1 1 1 1 -> 24").note, "");
  TaskConfig config;
  config.numbers_to = 14;
  EXPECT_THROW(Game24{config}, Error);
}

TEST(Game24, SolverKnowsTheHardOnes) {
  for (const auto& n : {std::array<int64_t, 4>{3, 3, 8, 8}, {1, 5, 5, 5}, {1, 3, 4, 6}, {3, 3, 7, 7}, {2, 2, 11, 11}})
    EXPECT_TRUE(game24_solvable(n, 24));
  for (const auto& n : {std::array<int64_t, 4>{1, 1, 1, 1}, {1, 4, 10, 13}, {8, 10, 11, 13}})
    EXPECT_FALSE(game24_solvable(n, 24));
}

}  // namespace
}  // namespace ponder::tasks
