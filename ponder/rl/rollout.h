// Problems out, graded answers in: what a GRPO step learns from and what an evaluation counts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "ponder/engine/generate.h"
#include "ponder/rl/config.h"
#include "ponder/tasks/evaluate.h"
#include "ponder/tasks/task.h"

namespace ponder::rl {

// One answer with everything the trainer needs; its text is never tokenized again.
struct RolloutAnswer {
  std::vector<int32_t> ids;  // prompt and completion
  int32_t prompt_length = 0;
  std::vector<float> logp, entropy;  // of the completion's tokens, under softmax(logits / T)
  bool truncated = false;
  tasks::Grade grade;
  std::span<const int32_t> completion() const { return std::span(ids).subspan(static_cast<size_t>(prompt_length)); }
};

struct Group {
  tasks::Problem problem;
  std::vector<RolloutAnswer> answers;  // num_generations of them
};

struct Rollout {
  std::vector<Group> groups;
  uint64_t version = 0;  // of the weights that sampled it
  int64_t tokens = 0;    // sampled
  double flops = 0;
};

struct SampleSettings {
  int num_generations = 8;
  int max_completion_length = 512;
  engine::Sampling sampling;
};

// G graded answers to each problem. The seed of answer j to problem i is f(key, first_index + i, j).
Rollout sample_rollout(engine::Engine& engine, const tasks::Task& task, std::span<const tasks::Problem> problems,
                       const SampleSettings& settings, uint64_t key, uint64_t first_index);

// `samples` answers to each of `problems`, seeds a function of (seed, index): the same for every checkpoint of a run.
// `progress`: engine::generate's; what is cut short by it means nothing.
tasks::EvalResult evaluate(engine::Engine& engine, const tasks::Task& task, std::span<const tasks::Problem> problems,
                           int samples, const engine::Sampling& sampling, int max_new_tokens, uint64_t seed,
                           const std::function<bool(int64_t)>& progress = {});

}  // namespace ponder::rl
