// Reward functions: what one answer is worth. Pure functions of the graded answers of one group, in f64; a null (NaN)
// means that the function does not apply to that answer. Lengths are in tokens, never in characters, and count the end
// token. Formulas: rl-practice.md section 7 and the papers named at each function.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/base/config.h"
#include "ponder/tasks/task.h"

namespace ponder::rl {

inline const std::initializer_list<std::string_view> kRewardNames = {"accuracy",           "countdown",     "format",
                                                                     "tag_count",          "length",        "cosine",
                                                                     "repetition_penalty", "soft_overlong", "random"};

// One [[reward]] of a recipe. A field means something to the functions named in its help, and nothing to others.
struct RewardConfig {
  std::string name = "accuracy";
  std::string frame = "think";
  double well_formed = 0;
  int64_t max_length = 0;
  double min_value_wrong = -1, max_value_wrong = -0.5, min_value_correct = 0.5, max_value_correct = 1;
  int64_t soft_punish_cache = 4096;
  double penalty_factor = 1;
  int64_t n_grams = 3;
  double max_penalty = -1;

  template <class V>
  void fields(V& v) {
    v.field("name", name, {.help = "which function", .choices = kRewardNames});
    v.field("frame", frame,
            {.help = "format: <think>..</think> and an answer, or R1-Zero's with <answer>..</answer>",
             .choices = {"think", "r1_zero"}});
    v.field("well_formed", well_formed, {.help = "countdown: for an expression that is readable but wrong"});
    v.field("max_length", max_length,
            {.help = "cosine, soft_overlong: longest answer; 0: max_completion_length",
             .synonyms = {"cosine_max_len", "max_completion_len"},
             .min = 0});
    v.field("min_value_wrong", min_value_wrong,
            {.help = "cosine: the shortest wrong answer", .synonyms = {"cosine_min_value_wrong"}});
    v.field("max_value_wrong", max_value_wrong,
            {.help = "cosine: the longest wrong answer", .synonyms = {"cosine_max_value_wrong"}});
    v.field("min_value_correct", min_value_correct,
            {.help = "cosine: the longest right answer", .synonyms = {"cosine_min_value_correct"}});
    v.field("max_value_correct", max_value_correct,
            {.help = "cosine: the shortest right answer", .synonyms = {"cosine_max_value_correct"}});
    v.field("soft_punish_cache", soft_punish_cache,
            {.help = "soft_overlong: tokens before the end over which it falls to -1",
             .synonyms = {"overlong_buffer.len"},
             .min = 0});
    v.field("penalty_factor", penalty_factor,
            {.help = "soft_overlong: times this", .synonyms = {"overlong_buffer.penalty_factor"}, .min = 0});
    v.field("n_grams", n_grams, {.help = "repetition_penalty: tokens", .synonyms = {"repetition_n_grams"}, .min = 1});
    v.field("max_penalty", max_penalty,
            {.help = "repetition_penalty: where everything repeats", .synonyms = {"repetition_max_penalty"}, .max = 0});
  }
};

// One answer as rewards see it. Views: they live as long as the rollout.
struct RewardInput {
  tasks::Grade::Verdict verdict = tasks::Grade::Verdict::wrong;  // the task's
  const tasks::Problem* problem = nullptr;                       // countdown: numbers and target
  std::string_view text;                                         // the completion, without its end token
  std::span<const int32_t> tokens = {};                          // the completion, with its end token
  bool truncated = false;                                        // it has none: cut by the length limit
  uint64_t index = 0;                                            // of the answer in the run: what `random` is keyed by
};

struct RewardLimits {
  int64_t max_completion_length = 512;
  uint64_t seed = 42;
};

// The value of every answer of one group (answers to one question), NaN = null.
std::vector<double> reward_values(const RewardConfig& config, std::span<const RewardInput> group,
                                  const RewardLimits& limits);

// --- the functions, for whoever has the numbers at hand --------------------------------------------------------------

double format_reward(std::string_view text);          // 1 or 0
double format_r1_zero_reward(std::string_view text);  // 1 or 0
double tag_count_reward(std::string_view text);       // 0, 0.25 .. 1
double soft_overlong_reward(int64_t length, int64_t max_length, int64_t cache);
double cosine_reward(bool right, int64_t length, const RewardConfig& config);  // config.max_length > 0
double repetition_reward(std::span<const int32_t> tokens, int64_t n, double max_penalty);
std::vector<double> length_rewards(std::span<const uint8_t> right, std::span<const int64_t> lengths);
double countdown_reward(std::string_view text, const tasks::Problem& problem, double well_formed);
double random_reward(uint64_t seed, uint64_t index);  // a fair coin per answer: the control run

}  // namespace ponder::rl
