// Optimizer steps: gradients from passes, clipping, AdamW, router biases, a new version of the weights.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ponder/train/optimizer.h"
#include "ponder/train/pass.h"
#include "ponder/train/schedule.h"

namespace ponder::train {

// What every kind of training has ([optim] of a recipe; names of Hugging Face).
struct TrainConfig {
  AdamWConfig adamw;
  ScheduleConfig schedule;
  int64_t micro_batch_tokens = 8192;    // fixes the order of gradient sums
  double router_bias_update_speed = 0;  // of auxiliary-loss-free balancing, per step (V3: 0.001)
  double router_aux_loss_coef = 0;      // alpha of the sequence-wise balance loss (V3: 1e-4)
  // lambda; the mean over modules is added to the loss. 0, which it must be in RL: MTP modules stay as they are
  double mtp_loss_weight = 0.3;

  template <class V>
  void fields(V& v) {
    adamw.fields(v);
    schedule.fields(v);
    v.field(
        "micro_batch_tokens", micro_batch_tokens,
        {.help =
             "tokens of one forward and backward pass; part of the recipe, since it fixes the order of gradient sums",
         .synonyms = {"ppo_max_token_len_per_gpu"},
         .min = 1});
    v.field("router_bias_update_speed", router_bias_update_speed,
            {.help = "gamma of auxiliary-loss-free balancing", .min = 0});
    v.field("router_aux_loss_coef", router_aux_loss_coef,
            {.help = "alpha of the sequence-wise balance loss", .min = 0});
    v.field("mtp_loss_weight", mtp_loss_weight,
            {.help = "lambda of the multi-token prediction loss; pre-training only", .min = 0});
  }
};

struct UpdateReport {
  double learning_rate = 0;
  double grad_norm = 0;  // before clipping
  bool skipped = false;  // something was not finite: weights, moments and biases are as before
  std::string offender;  // what was not: the loss, or the gradient of the first such parameter
};

struct StepReport : UpdateReport {
  double loss = 0;      // mean cross-entropy of the predictions
  double mtp_loss = 0;  // mean over modules and their predictions
  double balance = 0;   // mean balance loss per sequence, without alpha
  int64_t predictions = 0, tokens = 0;
  double flops = 0;  // forward and backward
  double max_violation = 0,
         dead_experts = 0;  // expert load: max over experts of load / mean - 1, worst layer; experts without a token
};

class Trainer {
 public:
  // `total_steps`: what the schedule ends at.
  Trainer(model::Model& model, const kernels::Backend& backend, const TrainConfig& config, int64_t total_steps);

  // One step of pre-training or SFT on these examples: forward, backward, update.
  StepReport step(std::span<const Example> examples, int64_t step, bool last_token = false);

  // The pieces, for losses of another kind (rl/step.h): begin, any number of passes, update (skipped if the loss or a
  // gradient is not finite).
  void begin();
  Pass& pass() { return pass_; }
  UpdateReport update(int64_t step, double loss);

  model::Model& model() { return model_; }
  AdamW& optimizer() { return optimizer_; }
  const TrainConfig& config() const { return config_; }
  // Load of the experts in this step so far (moe/max_violation, moe/dead_experts).
  void expert_load(double* max_violation, double* dead_experts) const;
  // Mean cross-entropy of examples without learning from them.
  double evaluate(std::span<const Example> examples, int64_t* predictions = nullptr);

 private:
  model::Model& model_;
  TrainConfig config_;
  Schedule schedule_;
  Pass pass_;
  AdamW optimizer_;
  std::vector<float> dlogp_, dmtp_;
};

}  // namespace ponder::train
