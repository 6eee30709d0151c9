// One GRPO step: draw problems, sample a group of answers to each, grade, advantages, loss, update.
//
// The step knows no algorithm (algorithm.h has the equations) and no task. Sampler and trainer are the same forward, so
// until the first update after a rollout the recomputed log-probs must equal the recorded ones in every bit; the step
// checks that, and throws with both written out if it ever fails.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ponder/base/rng.h"
#include "ponder/engine/engine.h"
#include "ponder/rl/algorithm.h"
#include "ponder/rl/config.h"
#include "ponder/rl/reward.h"
#include "ponder/rl/rollout.h"
#include "ponder/train/trainer.h"

namespace ponder::rl {

using Metrics = std::vector<std::pair<std::string, double>>;

struct GrpoReport {
  Metrics metrics;  // names of docs/formats.md
  const Rollout* rollout =
      nullptr;  // what was sampled (with dynamic sampling, the groups that teach); valid until the next step
  std::vector<double> reward;     // [answers of the rollout x rewards]
  std::vector<double> advantage;  // per answer, or per token
  bool skipped = false;
  std::string offender;
  double flops = 0;
  double rollout_s = 0, reward_s = 0, reference_s = 0, train_s = 0;
};

struct GrpoSetup {
  GrpoConfig grpo;
  train::TrainConfig train;
  std::vector<RewardConfig> rewards;  // empty: accuracy alone
  int64_t fixed_problems = 0;         // > 0: learn from the first so many training problems only (the loop test)
  uint64_t seed = 42;
  std::string mismatch_path;  // where both log-probs go if rollout and trainer ever disagree
};

class Grpo {
 public:
  // `engine` samples with the trainer's own weights. `total_steps` optimizer steps.
  Grpo(train::Trainer& trainer, engine::Engine& engine, const tasks::Task& task, const GrpoSetup& setup,
       const kernels::Backend& backend);
  ~Grpo();

  // Optimizer step `step`, counted from 0. A rollout is sampled when the one before is used up.
  GrpoReport step(int64_t step);

  // The reference model, if beta or reference refresh ask for one: part of a checkpoint.
  model::Model* reference() { return reference_.get(); }
  // With steps_per_generation or num_iterations > 1 a checkpoint may fall between the steps of a rollout. The rollout is
  // then sampled again from the weights it came from: safe points are steps at which a new rollout begins.
  bool rollout_boundary(int64_t step) const;

 private:
  struct Sampled;
  std::vector<tasks::Problem> draw_problems(CounterRng& rng, size_t wanted, int64_t& dropped) const;
  void sample(int64_t step, GrpoReport& report);
  Metrics metrics_of(const Sampled& all) const;
  void weigh(GrpoReport& report);
  void learn(int64_t step, std::span<const int32_t> chosen, GrpoReport& report);
  std::vector<int32_t> minibatch(int64_t step) const;
  void check_equal(const RolloutAnswer& answer, std::span<const float> recomputed) const;
  int64_t steps_per_rollout() const;
  std::vector<double> grade(const Group& group, uint64_t first_index) const;

  train::Trainer& trainer_;
  engine::Engine& engine_;
  const tasks::Task& task_;
  GrpoSetup setup_;
  std::unique_ptr<model::Model> reference_;
  std::unique_ptr<train::Pass> reference_pass_;
  std::vector<tasks::Problem> fixed_;
  std::vector<std::string> reward_tags_;  // their names, numbered where one occurs again

  // The rollout in use: its answers one after the other, with rewards [answers x functions], advantages and log-probs.
  Rollout rollout_;
  std::vector<const RolloutAnswer*> answers_;
  std::vector<double> rewards_, advantages_;
  Metrics rollout_metrics_;
  bool said_short_ = false;
  std::vector<float> old_logp_, ref_logp_;
  std::vector<int64_t> offsets_;
};

}  // namespace ponder::rl
