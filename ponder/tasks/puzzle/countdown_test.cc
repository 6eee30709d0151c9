#include "ponder/tasks/puzzle/countdown.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <set>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/tasks/evaluate.h"

namespace ponder::tasks {
namespace {

TaskConfig config(int numbers_to, double direct_share = 0.55) {
  TaskConfig c;
  c.numbers_to = numbers_to;
  c.direct_share = direct_share;
  return c;
}

const Countdown& twelve() {
  static const Countdown task(config(12));
  return task;
}

Problem problem(const Task& task, std::string_view line) {
  auto parsed = task.parse_line(line);
  EXPECT_EQ(parsed.error, "");
  return parsed.problem.value();
}

Grade grade(const Task& task, std::string_view line, std::string_view completion) {
  return task.grade(problem(task, line), task.tokenizer().encode(completion));
}

std::string trace_text(const Task& task, std::span<const int32_t> ids) { return task.tokenizer().decode(ids); }

TEST(Countdown, CountsOfTheRecipe) {
  const Countdown fifteen(config(15));
  EXPECT_EQ(twelve().tokenizer().vocab_size(), 150);
  EXPECT_EQ(fifteen.tokenizer().vocab_size(), 153);
  EXPECT_EQ(twelve().set_count(Split::train) + twelve().set_count(Split::held_out), 220);
  EXPECT_EQ(twelve().set_count(Split::held_out), 33);
  EXPECT_EQ(fifteen.set_count(Split::train) + fifteen.set_count(Split::held_out), 455);
  EXPECT_EQ(fifteen.set_count(Split::held_out), 68);
  EXPECT_EQ(twelve().problem_count(Split::train) + twelve().problem_count(Split::held_out), 2373 + 431);
  EXPECT_EQ(fifteen.problem_count(Split::train) + fifteen.problem_count(Split::held_out), 5037);
  EXPECT_EQ(twelve().tokenizer().decode(std::vector<int32_t>{0, 1, 2, 3, 17, 18, 77, 78, 137, 138, 149}),
            "<pad> <bos> <end> : stop 1 60 =1 =60 #1 #12");
}

TEST(Countdown, TreesOfTheRecipe) {
  double leaves = 0, on_target = 0, chance = 0;
  int64_t problems = 0;
  for (const Split split : {Split::train, Split::held_out}) {
    for (int64_t i = 0; i < twelve().problem_count(split); ++i, ++problems) {
      const Problem& p = twelve().problem(split, i);
      int all = 0, hits = 0;
      for (const auto& node : twelve().tree(p)) {
        for (const auto& leaf : node.leaves) {
          ++all;
          hits += leaf.value == p.target;
        }
      }
      ASSERT_GT(hits, 0) << p.text;
      leaves += all;
      on_target += hits;
      chance += static_cast<double>(hits) / all;
    }
  }
  const auto n = static_cast<double>(problems);
  EXPECT_NEAR(leaves / n, 25, 0.5);
  EXPECT_NEAR(on_target / n, 1.9, 0.05);
  EXPECT_NEAR(chance / n, 0.08, 0.005);
}

// Every text grades as it was made, and their mixture is the recipe's.
TEST(Countdown, CorpusOfTheRecipe) {
  const Countdown& task = twelve();
  const Corpus corpus = make_corpus(task, 1'500'000, 3);
  std::set<std::vector<int64_t>> held_out;
  for (int64_t i = 0; i < task.problem_count(Split::held_out); ++i)
    held_out.insert(task.problem(Split::held_out, i).numbers);
  Summary summary(task.modes());
  double search_tokens = 0, searches = 0, failed = 0, guess_tokens = 0, guesses = 0;
  for (int64_t i = 0; i < corpus.size(); ++i) {
    const auto ids = corpus.text(i);
    ASSERT_LE(ids.size(), 245u);
    Problem p;
    for (size_t j = 1; j < 4; ++j) p.numbers.push_back(std::stoi(task.tokenizer().token(ids[j]).substr(1)));
    p.target = std::stoi(task.tokenizer().token(ids[4]).substr(1));
    ASSERT_EQ(task.admit(p), "");
    ASSERT_FALSE(held_out.contains(p.numbers)) << p.text;
    const Grade g = task.grade(p, ids.subspan(5));
    const Diagnostics& d = g.diagnostics;
    ASSERT_EQ(g.right(), !d.gave_up) << trace_text(task, ids);
    ASSERT_FALSE(d.truncated || d.malformed) << trace_text(task, ids);
    ASSERT_EQ(d.wrong_arithmetic + d.copy_errors + d.wrong_checks + d.false_yes + d.missed_yes, 0)
        << trace_text(task, ids);
    ASSERT_EQ(d.leaves, d.checks);
    summary.add(g, static_cast<int64_t>(ids.size()) - 5);
    if (g.mode == "search") {
      ++searches;
      failed += d.gave_up;
      search_tokens += static_cast<double>(ids.size()) - 5;
    } else {
      ++guesses;
      ASSERT_TRUE(g.right());
      guess_tokens += static_cast<double>(ids.size()) - 5;
    }
  }
  EXPECT_NEAR(summary.mode_share("search"), 0.45, 0.01);
  EXPECT_NEAR(search_tokens / searches, 63, 1.5);
  EXPECT_EQ(guess_tokens / guesses, 8);
  EXPECT_NEAR(failed / searches, 0.37, 0.01);
  EXPECT_NEAR(static_cast<double>(corpus.size()), 80'200 / 2, 700);
  EXPECT_EQ(summary.wrong_arithmetic(), 0);
}

TEST(Countdown, CorpusIsAFunctionOfItsSeed) {
  const Corpus a = make_corpus(twelve(), 20'000, 1), longer = make_corpus(twelve(), 30'000, 1),
               other = make_corpus(twelve(), 20'000, 2);
  ASSERT_LT(a.size(), longer.size());
  EXPECT_TRUE(std::equal(a.ids.begin(), a.ids.end(), longer.ids.begin()));
  EXPECT_NE(a.ids, other.ids);
  const Countdown again(config(12));
  EXPECT_EQ(make_corpus(again, 20'000, 1).ids, a.ids);
}

TEST(Countdown, WithoutSearch) {
  const Countdown task(config(12, 1.0));
  const Corpus corpus = make_corpus(task, 50'000, 1);
  for (int64_t i = 0; i < corpus.size(); ++i) ASSERT_EQ(corpus.text(i).size(), 13u);
}

TEST(Countdown, FastEnoughForTraining) {
  const Countdown task(config(15));
  const auto seconds = [](auto&& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  Corpus corpus;
  const double make = seconds([&] { corpus = make_corpus(task, 800'000, 1); });
  int right = 0;
  Problem p = problem(task, "12 10 4 -> 13");
  const double grading = seconds([&] {
    for (int64_t i = 0; i < 384; ++i) right += task.grade(p, corpus.text(i).subspan(5)).right();
  });
  RecordProperty("corpus_ms_for_8M_tokens", static_cast<int>(make * 1e4));
  RecordProperty("grade_us_for_384", static_cast<int>(grading * 1e6));
  // Printed, and held only to a bound no loaded machine passes: the budget is 2 s for 8M tokens and 5 ms for 384
  // answers.
  EXPECT_LT(make, 10);
  EXPECT_LT(grading, 1);
}

TEST(Countdown, TracesLookLikeTheRecipe) {
  const Problem p = problem(twelve(), "4 10 12 -> 13");
  EXPECT_EQ(p.text, "12 10 4 -> 13");
  EXPECT_EQ(trace_text(twelve(), twelve().prompt(p)), "<bos> #12 #10 #4 =13");
  std::set<std::string> seen;
  for (uint64_t i = 0; i < 2000; ++i) {
    CounterRng rng(1, Stream::test, i);
    seen.insert(trace_text(twelve(), twelve().trace(p, rng)));
  }
  for (const char* text :
       {"<bos> #12 #10 #4 =13 10 + ( 12 / 4 ) <end>",
        "<bos> #12 #10 #4 =13 <think> 12 + 4 = 16 16 + 10 = 26 high 16 - 10 = 6 low back 12 - 4 = 8 10 + 8 = 18 high "
        "10 - 8 = 2 low back "
        "12 * 4 = 48 48 + 10 = 58 high 48 - 10 = 38 high back 12 / 4 = 3 10 + 3 = 13 yes </think> 10 + ( 12 / 4 ) "
        "<end>",
        "<bos> #12 #10 #4 =13 <think> 12 + 4 = 16 16 + 10 = 26 high stop </think> ( 12 + 4 ) + 10 <end>"}) {
    EXPECT_TRUE(seen.contains(text)) << text;
  }
}

TEST(Countdown, GradesAnswers) {
  struct Case {
    const char *line, *completion;
    bool right, malformed, truncated;
  };
  const Case cases[] = {
      {"9 7 6 -> 51", "( 7 * 6 ) + 9 <end>", true, false, false},
      {"9 7 6 -> 51", "9 + ( 6 * 7 ) <end>", true, false, false},
      {"9 7 6 -> 51", "( 7 * 6 ) + 9", false, false, true},
      {"9 7 6 -> 51", "", false, false, true},
      {"9 7 6 -> 51", "<end>", false, true, false},
      {"9 7 6 -> 51", "( 7 * 6 ) + 9 <end> <end>", true, false, false},
      {"9 7 6 -> 51", "( 7 * 6 ) + 9 + <end>", false, true, false},
      {"9 7 6 -> 51", "7 * 6 + 9 <end>", false, true, false},
      {"9 7 6 -> 51", "( 7 * 7 ) + 9 <end>", false, false, false},
      {"9 7 6 -> 51", "( #7 * #6 ) + #9 <end>", false, true, false},
      {"9 7 6 -> 51", "( 7 * 6 ) + =9 <end>", false, true, false},
      {"9 7 6 -> 51", "<think> </think> ( 7 * 6 ) + 9 <end>", true, false, false},
      {"9 7 6 -> 51", "<think> ( 7 * 6 ) + 9 <end>", false, true, false},
      {"9 7 6 -> 51", "<think> </think> 9 </think> ( 7 * 6 ) + 9 <end>", true, false, false},
      {"9 7 6 -> 51", "<think> </think> ( 7 * 6 ) + 9 </think> <end>", false, true, false},
      {"9 7 6 -> 51", "7 </think> ( 7 * 6 ) + 9 <end>", true, false, false},
      {"9 7 6 -> 51", "low high yes stop <end>", false, true, false},
      // Rational arithmetic without a bound on what is in between: 3 / (1 / 4) = 12, (60-free) 12 * 11 - 10 is 122.
      {"4 3 1 -> 12", "3 / ( 1 / 4 ) <end>", true, false, false},
      {"12 9 3 -> 4", "( 12 / 9 ) * 3 <end>", true, false, false},
      {"12 11 2 -> 60", "( 12 * 11 ) / 2 <end>", false, false, false},
      {"12 10 2 -> 60", "( 12 * 10 ) / 2 <end>", true, false, false},
      {"9 7 2 -> 4", "2 - ( 7 - 9 ) <end>", true, false, false},
      {"9 7 2 -> 4", "9 / ( 7 - 7 ) <end>", false, false, false},
  };
  for (const Case& c : cases) {
    const Grade g = grade(twelve(), c.line, c.completion);
    EXPECT_EQ(g.right(), c.right) << c.completion << ": " << g.reason;
    EXPECT_EQ(g.diagnostics.malformed, c.malformed) << c.completion;
    EXPECT_EQ(g.diagnostics.truncated, c.truncated) << c.completion;
    EXPECT_FALSE(g.reason.empty());
  }
}

TEST(Countdown, CountsErrorsApart) {
  const Grade g = grade(twelve(), "12 10 4 -> 13",
                        "<think> 12 + 4 = 16 16 + 10 = 27 high 16 - 9 = 7 low back 12 / 4 = 3 10 + 3 = 13 low 10 - 3 = "
                        "7 yes 10 * 3 = 30 low "
                        "stop </think> 10 + ( 12 / 4 ) <end>");
  const Diagnostics& d = g.diagnostics;
  EXPECT_EQ(g.mode, "search");
  EXPECT_TRUE(g.right());
  EXPECT_EQ(d.equations, 7);
  EXPECT_EQ(d.wrong_arithmetic, 1);  // 16 + 10 = 27
  EXPECT_EQ(d.leaves, 5);
  EXPECT_EQ(d.copy_errors, 1);   // 9 is not the number left
  EXPECT_EQ(d.wrong_checks, 3);  // 13 low, 7 yes, 30 low
  EXPECT_EQ(d.false_yes, 1);
  EXPECT_EQ(d.missed_yes, 1);
  EXPECT_EQ(d.rejected, 4);
  EXPECT_EQ(d.checks, 5);
  EXPECT_TRUE(d.claimed && d.gave_up);
  // A leaf before any node has no numbers at hand.
  EXPECT_EQ(grade(twelve(), "12 10 4 -> 13", "<think> 12 + 4 = 16 high").diagnostics.copy_errors, 1);
  // A guess has no diagnostics, whatever words it uses.
  EXPECT_EQ(grade(twelve(), "12 10 4 -> 13", "12 + 4 = 16 high <end>").diagnostics.checks, 0);
}

TEST(Countdown, NeverThrowsForAnyTokens) {
  const Problem p = problem(twelve(), "12 10 4 -> 13");
  for (uint64_t i = 0; i < 20'000; ++i) {
    CounterRng rng(2, Stream::test, i);
    std::vector<int32_t> ids(rng.below(14));
    for (auto& id : ids) id = rng.below(4) ? static_cast<int32_t>(rng.below(30)) : static_cast<int32_t>(rng.next_u32());
    const Grade g = twelve().grade(p, ids);
    EXPECT_FALSE(g.reason.empty());
  }
}

TEST(Countdown, SaysWhatIsAllowed) {
  const struct {
    const char *line, *expected;
  } cases[] = {
      {"", "empty"},
      {"3 7 12", "no ->"},
      {"3 7 12 ->", "no target"},
      {"3 7 12 -> 33 34", "more than one target"},
      {"3 7 -> 10", "2 numbers given"},
      {"3 7 12 1 -> 10", "4 numbers given"},
      {"3 7 13 -> 10", "13 is out of range"},
      {"0 7 12 -> 10", "0 is out of range"},
      {"3 7 12 -> 61", "target 61"},
      {"3 7 12 -> 0", "target 0"},
      {"3 3 12 -> 10", "3 occurs twice"},
      {"3 x 12 -> 10", "'x'"},
      {"-3 7 12 -> 10", "'-'"},
      {"3 7 \xC3\xA4 -> 10", "character"},
      {"3 7 99999999999999999999 -> 10", "too large"},
  };
  for (const auto& c : cases) {
    const ParsedLine parsed = twelve().parse_line(c.line);
    EXPECT_FALSE(parsed.problem) << c.line;
    EXPECT_NE(parsed.error.find(c.expected), std::string::npos) << c.line << ": " << parsed.error;
    EXPECT_NE(parsed.error.find("from 1 to 12"), std::string::npos) << parsed.error;
  }
  EXPECT_EQ(problem(twelve(), " 3,7, 12 = 33\r\n").text, "12 7 3 -> 33");
  EXPECT_EQ(twelve().parse_line("3 7 12 -> 33").note, "");
  EXPECT_NE(twelve().parse_line("1 2 3 -> 60").note, "");
}

TEST(Countdown, ImpossibleSettingsAreNamed) {
  EXPECT_THROW(Countdown(config(2)), Error);
  EXPECT_THROW(Countdown(config(61)), Error);
  EXPECT_THROW(Countdown(config(12, 1.5)), Error);
  TaskConfig none;
  none.name = "chess";
  EXPECT_THROW(make_task(none), Error);
}

TEST(Task, AFolderIsEnough) {
  const TempFolder folder;
  TaskConfig c = config(15, 0.4);
  c.split_seed = 11;
  const auto task = make_task(c);
  save_task(*task, folder.path());
  const auto back = load_task(folder.path());
  EXPECT_EQ(back->config().numbers_to, 15);
  EXPECT_EQ(back->config().direct_share, 0.4);
  EXPECT_EQ(make_corpus(*back, 10'000, 5).ids, make_corpus(*task, 10'000, 5).ids);
  EXPECT_EQ(back->problem(Split::held_out, 3).text, task->problem(Split::held_out, 3).text);
  // A tokenizer that belongs to another model is refused: ids would mean other words.
  twelve().tokenizer().save(folder.file("tokenizer.json"));
  EXPECT_THROW(load_task(folder.path()), Error);
}

TEST(Task, ChoosesProblemsWithoutRepetition) {
  const auto some = choose_problems(twelve(), Split::held_out, 300, 5);
  std::set<std::string> ids;
  for (const Problem& p : some) ids.insert(p.id);
  EXPECT_EQ(ids.size(), 300u);
  EXPECT_EQ(choose_problems(twelve(), Split::held_out, 300, 5)[17].id, some[17].id);
  EXPECT_EQ(choose_problems(twelve(), Split::held_out, 1000, 5).size(), 1000u);
}

}  // namespace
}  // namespace ponder::tasks
