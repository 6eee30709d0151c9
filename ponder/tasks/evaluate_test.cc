#include "ponder/tasks/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace ponder::tasks {
namespace {

std::map<std::string, double> as_map(const Metrics& metrics) { return {metrics.begin(), metrics.end()}; }

// pass@k is the share of the k-subsets of n answers that hold a right one.
TEST(PassAtK, EqualsCountingSubsets) {
  for (int n = 1; n <= 8; ++n) {
    for (int c = 0; c <= n; ++c) {
      for (int k = 1; k <= n; ++k) {
        int subsets = 0, with_right = 0;
        for (unsigned s = 0; s < 1u << n; ++s) {
          if (__builtin_popcount(s) != k) continue;
          ++subsets;
          with_right += (s & ((1u << c) - 1)) != 0;
        }
        EXPECT_NEAR(pass_at_k(n, c, k), static_cast<double>(with_right) / subsets, 1e-12) << n << " " << c << " " << k;
      }
    }
  }
}

Sample vote(const char* answer, bool right) {
  Sample s;
  s.grade.answer = answer;
  s.grade.verdict = right ? Grade::Verdict::right : Grade::Verdict::wrong;
  return s;
}

TEST(Majority, LargestGroupThenFirstSeen) {
  EXPECT_TRUE(majority_right(std::vector{vote("13", true), vote("12", false), vote("13", true)}));
  EXPECT_FALSE(majority_right(std::vector{vote("12", false), vote("13", true)}));
  EXPECT_TRUE(majority_right(std::vector{vote("13", true), vote("12", false)}));
  EXPECT_TRUE(majority_right(std::vector{vote("", false), vote("", false), vote("13", true)}));
  EXPECT_FALSE(majority_right(std::vector{vote("", false)}));
  EXPECT_FALSE(majority_right({}));
}

TEST(Evaluate, CountsWhatTheModelSaid) {
  const auto task = make_task({});
  std::vector<Problem> problems;
  for (const char* line : {"9 7 6 -> 51", "12 10 4 -> 13", "4 3 1 -> 12"})
    problems.push_back(*task->parse_line(line).problem);
  // Problem 0: both right, problem 1: one of two, problem 2: none.
  const std::vector<std::string> said = {"( 7 * 6 ) + 9 <end>",
                                         "9 + ( 7 * 6 ) <end>",
                                         "<think> 12 / 4 = 3 10 + 3 = 13 yes </think> 10 + ( 12 / 4 ) <end>",
                                         "<think> 12 + 4 = 16 16 + 10 = 26 high stop </think> ( 12 + 4 ) + 10 <end>",
                                         "( 4 * 3 ) + 1 <end>",
                                         "4 4"};
  for (const size_t batch : {0, 1, 4}) {
    size_t calls = 0;
    const Generate generate = [&](std::span<const Prompt> prompts) {
      ++calls;
      std::vector<std::vector<int32_t>> out;
      for (const Prompt& p : prompts) {
        EXPECT_EQ(p.ids, task->prompt(problems[p.index / 2]));
        out.push_back(task->tokenizer().encode(said[p.index]));
      }
      return out;
    };
    const EvalResult result = evaluate(*task, problems, 2, generate, batch);
    EXPECT_EQ(calls, batch == 0 ? 1u : (6 + batch - 1) / batch);
    EXPECT_NEAR(result.accuracy, 0.5, 1e-12);
    EXPECT_NEAR(result.standard_error, std::sqrt((0.25 + 0 + 0.25) / 2 / 3), 1e-12);
    auto m = as_map(result.metrics());
    EXPECT_NEAR(m["pass@1"], 0.5, 1e-12);
    EXPECT_NEAR(m["pass@2"], 2.0 / 3, 1e-12);
    EXPECT_NEAR(m["cons@2"], 2.0 / 3, 1e-12);  // problem 1: a tie, and the right answer was first
    EXPECT_NEAR(m["mode/search/share"], 1.0 / 3, 1e-12);
    EXPECT_NEAR(m["mode/search/success"], 0.5, 1e-12);
    EXPECT_NEAR(m["mode/guess/success"], 0.5, 1e-12);
    EXPECT_NEAR(m["completions/clipped_ratio"], 1.0 / 6, 1e-12);
    EXPECT_NEAR(m["search/gives_up"], 1.0 / 6, 1e-12);
    EXPECT_NEAR(m["search/rejected_leaves"], 1.0 / 6, 1e-12);
    EXPECT_NEAR(m["completions/mean_length"], (8 + 8 + 21 + 22 + 8 + 2) / 6.0, 1e-12);
    EXPECT_EQ(m["errors/arithmetic"], 0);
    EXPECT_EQ(result.items[1].samples[1].grade.reason, "makes 26, not 13");
  }
}

TEST(Evaluate, NothingIsNotANumberlessMess) {
  const auto task = make_task({});
  const EvalResult result =
      evaluate(*task, {}, 1, [](std::span<const Prompt>) { return std::vector<std::vector<int32_t>>(); });
  for (const auto& [name, value] : result.metrics()) EXPECT_EQ(value, 0) << name;
}

}  // namespace
}  // namespace ponder::tasks
