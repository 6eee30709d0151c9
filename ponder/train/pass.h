// One micro-batch through the model with a tape: log-probs of the predicted tokens out, their gradients in.
//
// Pre-training, SFT, GRPO, the reference model and the evaluation of a loss are all this pass; they differ in what they
// put in as gradient. The rows are whole sequences laid one below the other (no padding), each attends to itself only,
// and goes through the same kernels and pages as in the engine, so a log-prob is the same float there and here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ponder/model/model.h"

namespace ponder::train {

// The predictions of ids[loss_from ..] count; loss_from is at least 1.
struct Example {
  std::span<const int32_t> ids;
  int32_t loss_from = 1;
  int64_t predictions() const { return static_cast<int64_t>(ids.size()) - loss_from; }
};

struct PassOptions {
  float temperature = 1.f;
  bool entropy = false;   // also the entropy of each prediction
  bool mtp = false;       // also the MTP modules' predictions
  bool gradients = true;  // false: no tape
  // The last token predicts nothing. True: it goes through the layers (and is counted by the router) all the same, as
  // in other frameworks; false saves its work.
  bool last_token = false;
  float balance_weight = 0;  // of the sequence-wise balance loss, per sequence
};

class Pass {
 public:
  Pass(model::Model& model, const kernels::Backend& backend);

  struct Result {
    std::span<const float> logp;      // one per prediction, in the order of examples and positions
    std::span<const float> entropy;   // likewise, or empty
    std::span<const float> mtp_logp;  // per module and prediction of ids[loss_from + k + 1 ..], module after module
    double balance = 0;               // balance loss summed over sequences and layers
    double flops = 0;                 // of the forward pass
  };
  // Valid until the next `forward`. The examples' ids must stay where they are until `backward` has run.
  Result forward(std::span<const Example> examples, const PassOptions& options);
  // Adds d loss / d parameter to the parameters' gradients, given d loss / d logp and, if asked for, d loss / d entropy
  // and d loss / d mtp_logp (empty: none).
  void backward(std::span<const float> dlogp, std::span<const float> dentropy = {},
                std::span<const float> dmtp_logp = {});

  // Tokens that each expert of each MoE layer saw since the last reset.
  std::span<const int64_t> expert_counts() const { return observed_.expert_counts; }
  void reset_expert_counts();
  size_t arena_bytes() const {
    return arena_.reserved() + (pages_ ? pages_->bytes() : 0) + (mtp_pages_ ? mtp_pages_->bytes() : 0);
  }
  size_t peak_bytes() const { return arena_.peak(); }

 private:
  model::Model& model_;
  Arena arena_;
  ops::Tape tape_;
  ops::Ctx ctx_;
  model::Observed observed_;
  model::SequenceBatch rows_;
  std::vector<model::SequenceBatch> mtp_rows_;
  std::unique_ptr<model::KvPool> pages_, mtp_pages_;
  std::vector<int32_t> logit_rows_, targets_;
  struct MtpScratch {
    std::vector<int32_t> gather, logit_rows, targets;
  };
  std::vector<MtpScratch> mtp_scratch_;
  ops::TokenLogProb out_;
  Tensor mtp_out_[8];
  std::vector<float> mtp_logp_;
};

// Cuts a list of examples into runs of consecutive ones whose tokens add up to at most `tokens` each (a longer example
// stands alone). The cut fixes the order of gradient sums, so it is part of the recipe.
std::vector<std::span<const Example>> micro_batches(std::span<const Example> examples, int64_t tokens);
// The first of them.
std::span<const Example> next_micro_batch(std::span<const Example> examples, int64_t tokens);

}  // namespace ponder::train
