#include "ponder/rl/reward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "tests/shared.h"

namespace ponder::rl {
namespace {

using nlohmann::json;
using Verdict = tasks::Grade::Verdict;

// Configures the way a recipe does.
RewardConfig config_of(std::initializer_list<std::string> assignments) {
  Recipe recipe;
  for (const std::string& a : assignments) recipe.set(a);
  RewardConfig config;
  recipe.bind(config);
  return config;
}

double one(const RewardConfig& config, const RewardInput& answer) {
  return reward_values(config, std::span(&answer, 1), {})[0];
}

void check_format(const json& line) {
  const std::string text = line["completion"];
  EXPECT_EQ(one(config_of({"name=format"}), {.text = text}), line["format"].get<double>());
  EXPECT_EQ(one(config_of({"name=format", "frame=r1_zero"}), {.text = text}), line["format_r1_zero"].get<double>());
  EXPECT_EQ(one(config_of({"name=tag_count"}), {.text = text}), line["tag_count"].get<double>());
}

void check_soft_overlong(const json& line) {
  const auto config =
      config_of({"name=soft_overlong", fmt::format("max_completion_len={}", line["max_completion_len"].dump()),
                 fmt::format("soft_punish_cache={}", line["soft_punish_cache"].dump())});
  for (size_t i = 0; i < line["lengths"].size(); ++i) {
    const std::vector<int32_t> tokens(line["lengths"][i].get<size_t>());
    EXPECT_NEAR(one(config, {.text = {}, .tokens = tokens}), line["values"][i].get<double>(), 1e-14);
  }
}

void check_cosine(const json& line) {
  auto config = config_of({"name=cosine"});
  const json& p = line["params"];
  config.min_value_wrong = p["min_value_wrong"];
  config.max_value_wrong = p["max_value_wrong"];
  config.min_value_correct = p["min_value_correct"];
  config.max_value_correct = p["max_value_correct"];
  config.max_length = p["max_len"];
  for (size_t i = 0; i < line["lengths"].size(); ++i) {
    const std::vector<int32_t> tokens(line["lengths"][i].get<size_t>());
    EXPECT_NEAR(one(config, {.verdict = Verdict::right, .text = {}, .tokens = tokens}), line["right"][i].get<double>(),
                1e-13);
    EXPECT_NEAR(one(config, {.verdict = Verdict::wrong, .text = {}, .tokens = tokens}), line["wrong"][i].get<double>(),
                1e-13);
  }
}

void check_repetition(const json& line) {
  const auto config = config_of({"name=repetition_penalty", fmt::format("repetition_n_grams={}", line["n"].dump()),
                                 fmt::format("repetition_max_penalty={}", line["max_penalty"].dump())});
  for (size_t i = 0; i < line["values"].size(); ++i) {
    const std::vector<int32_t> tokens = line["completion_ids"][i];
    EXPECT_NEAR(one(config, {.text = {}, .tokens = tokens}), line["values"][i].get<double>(), 1e-14);
  }
}

void check_length(const json& line) {
  const size_t n = line["lengths"].size();
  std::vector<std::vector<int32_t>> tokens;
  std::vector<RewardInput> group;
  for (size_t i = 0; i < n; ++i) tokens.emplace_back(line["lengths"][i].get<size_t>());
  for (size_t i = 0; i < n; ++i)
    group.push_back(
        {.verdict = line["right"][i] == 1 ? Verdict::right : Verdict::wrong, .text = {}, .tokens = tokens[i]});
  const auto values = reward_values(config_of({"name=length"}), group, {});
  for (size_t i = 0; i < n; ++i) EXPECT_NEAR(values[i], line["values"][i].get<double>(), 1e-14);
}

// The verifier's verdict is given here; what cosine makes of it is checked.
void check_cosine_of_verdict(const json& line) {
  const std::vector<int32_t> tokens(line["length"].get<size_t>());
  const Verdict verdict = line["accuracy"].is_null() ? Verdict::unknown
                          : line["accuracy"] == 1.0  ? Verdict::right
                                                     : Verdict::wrong;
  const RewardInput answer = {.verdict = verdict, .text = {}, .tokens = tokens};
  const double value =
      one(config_of({"name=cosine", fmt::format("cosine_max_len={}", line["cosine_max_len"].dump())}), answer);
  const double accuracy = one(config_of({"name=accuracy"}), answer);
  EXPECT_EQ(std::isnan(accuracy), line["accuracy"].is_null());
  if (line["cosine"].is_null()) {
    EXPECT_TRUE(std::isnan(value));
  } else {
    EXPECT_NEAR(value, line["cosine"].get<double>(), 1e-13);
  }
}

TEST(Reward, Golden) {
  const std::string path = test::shared_folder() / "golden/rl/rewards.jsonl";
  PONDER_NEED_SHARED(path);
  const std::map<std::string, void (*)(const json&)> checks = {
      {"format", check_format}, {"soft_overlong", check_soft_overlong},
      {"cosine", check_cosine}, {"repetition_penalty", check_repetition},
      {"length", check_length}, {"accuracy", check_cosine_of_verdict}};
  std::map<std::string, int> passed;
  std::string unknown;
  std::istringstream in(read_file(path));
  for (std::string text; std::getline(in, text);) {
    const json line = json::parse(text);
    SCOPED_TRACE(line["name"].get<std::string>());
    const std::string kind = line["kind"];
    if (!checks.count(kind)) {
      unknown += line["name"].get<std::string>() + " ";
      continue;
    }
    checks.at(kind)(line);
    ++passed[kind];
  }
  for (const auto& [kind, n] : passed)
    fmt::print("{} golden {} rewards{}\n", n, kind,
               kind == "accuracy"
                   ? ": cosine from the given verdict; the verdict itself needs the maths verifier, not covered"
                   : "");
  EXPECT_EQ(unknown, "") << "kinds without a check";
}

TEST(Reward, Countdown) {
  tasks::Problem problem;
  problem.numbers = {12, 10, 4};
  problem.target = 13;
  const auto value = [&](std::string_view text, double well_formed = 0) {
    return countdown_reward(text, problem, well_formed);
  };
  EXPECT_EQ(value("10 + ( 12 / 4 )"), 1);
  EXPECT_EQ(value("<think>12 - 4 = 8, no</think>\n<answer> (12 / 4) + 10 </answer>"), 1);
  EXPECT_EQ(value("<think>\n10 + 12/4"), 0) << "thinking that never ends states nothing";
  EXPECT_EQ(value("<think>10 + 12/4</think>"), 0);
  EXPECT_EQ(value("<answer>10 + 12/4</answer><answer>10 + 4</answer>"), 0) << "the last one counts";
  EXPECT_EQ(value("12 + 10 - 4"), 0);
  EXPECT_EQ(value("12 + 10 - 4", 0.1), 0.1);
  EXPECT_EQ(value("twelve", 0.1), 0);
  EXPECT_EQ(value("", 0.1), 0);
  EXPECT_TRUE(std::isnan(one(config_of({"name=countdown"}), {.text = "1"}))) << "no numbers: does not apply";
  EXPECT_EQ(one(config_of({"name=countdown"}), {.problem = &problem, .text = "10+12/4"}), 1);
  EXPECT_EQ(one(config_of({"name=countdown"}), {.problem = &problem, .text = "10+12/4", .truncated = true}), 0);
}

TEST(Reward, RandomIsAFairCoinOfTheIndex) {
  int heads = 0;
  for (uint64_t i = 0; i < 10000; ++i) heads += random_reward(42, i) == 1;
  EXPECT_NEAR(heads, 5000, 250);
  EXPECT_EQ(random_reward(42, 7), random_reward(42, 7));
  int equal = 0;
  for (uint64_t i = 0; i < 1000; ++i) equal += random_reward(42, i) == random_reward(43, i);
  EXPECT_NEAR(equal, 500, 80);
}

TEST(Reward, UnknownVerdictsAreNull) {
  const RewardInput answer = {.verdict = Verdict::unknown, .text = {}};
  EXPECT_TRUE(std::isnan(one(config_of({"name=accuracy"}), answer)));
  EXPECT_TRUE(std::isnan(one(config_of({"name=cosine"}), answer)));
}

}  // namespace
}  // namespace ponder::rl
