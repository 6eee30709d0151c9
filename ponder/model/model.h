// The architecture, once: DeepSeek-V3 and V2 (MLA, DeepSeekMoE, MTP) and the dense Llama and Qwen families.
//
// Training is this forward with a tape, generation is this forward without one. Weights are constant during a forward;
// what belongs to a sequence lives in its pages.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ponder/model/attention.h"
#include "ponder/model/config.h"
#include "ponder/model/ffn.h"
#include "ponder/model/kv.h"
#include "ponder/model/params.h"
#include "ponder/model/rope.h"
#include "ponder/ops/ops.h"

namespace ponder::model {

struct ModelOptions {
  bool gradients = false;
  bool stored = false;        // weights stay in the type of their file (inference only): see load_stored in weights.h
  bool declare_only = false;  // no memory: only the list of parameters, for conversion
  bool mtp = true;            // false: multi-token prediction modules are left out even if the config has some
  MlaForm mla_form = MlaForm::absorbed;
};

// What a forward pass found out on its way, for whoever asks.
struct Observed {
  std::vector<int64_t> expert_counts;        // [moe_layers, experts], added to
  std::vector<Tensor>* residuals = nullptr;  // the residual stream after every layer
  float balance_weight = 0;                  // alpha of the balance loss, per sequence; 0: off
  double balance = 0;                        // sum of the balance loss over sequences and layers, added to
};

// Pre-norm transformer block: h = x + attn(norm(x)); h + ffn(norm(h)).
class Block {
 public:
  Block(Params& params, const ModelConfig& config, int layer, MlaForm form);
  // `into`: where the result is wanted; empty: anywhere.
  Tensor forward(ops::Ctx& ctx, const Tensor& x_TD, const Batch& batch, const ops::RopeTable& rope, Observed* observed,
                 Tensor into_TD = {}) const;
  const Moe* moe() const { return moe_.get(); }

 private:
  float eps_;
  ops::Param *attn_norm_, *ffn_norm_;
  std::unique_ptr<Attention> attention_;
  std::unique_ptr<Mlp> mlp_;
  std::unique_ptr<Moe> moe_;
};

class Model {
 public:
  Model(ModelConfig config, const ModelOptions& options);

  // Embedding and all layers: the residual stream, [T, D].
  Tensor body(ops::Ctx& ctx, const Batch& batch, Observed* observed = nullptr) const;
  // The norm before the head, over any rows of `body`; and logits [R, V] of normed rows.
  Tensor final_norm(ops::Ctx& ctx, const Tensor& x_RD) const;
  Tensor head(ops::Ctx& ctx, const Tensor& h_RD) const;

  // Multi-token prediction module k (0-based; DeepSeek-V3 report, equations 21 to 23): row i combines the final-normed
  // hidden state of token i (k = 0; module k - 1's output otherwise) with the embedding of token i + k + 1, which is
  // `batch.tokens[i]`. Returns its normed output: `head` of it predicts token i + k + 2.
  Tensor mtp(ops::Ctx& ctx, int k, const Tensor& h_RD, const Batch& batch, Observed* observed = nullptr) const;

  const ModelConfig& config() const { return config_; }
  MlaForm mla_form() const { return form_; }
  int mtp_modules() const { return static_cast<int>(mtp_.size()); }
  kernels::PageLayout page_layout() const { return model::page_layout(config_, form_); }
  Params& params() { return params_; }
  const Params& params() const { return params_; }
  Observed observe() const;  // with counters of the right size
  int kv_layers() const { return config_.num_hidden_layers + mtp_modules(); }

  // Auxiliary-loss-free balancing (Wang et al. 2024; DeepSeek-V3 report, section 2.1.2): b += speed * sign(mean - count).
  void update_router_bias(std::span<const int64_t> expert_counts, float speed);

  // Weights that a token passes through (look-ups not counted, head counted).
  int64_t active_params() const;

 private:
  struct Mtp {
    ops::Param *enorm, *hnorm, *eh_proj, *head_norm;
    std::unique_ptr<Block> block;
  };

  ModelConfig config_;
  MlaForm form_;
  Params params_;
  mutable RopeCache rope_;
  ops::Param* embedding_;
  ops::Param* head_;
  ops::Param* final_norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Mtp> mtp_;
};

}  // namespace ponder::model
