#include "ponder/model/ffn.h"

#include "ponder/model/model.h"

namespace ponder::model {

using ops::Slice;

Mlp::Mlp(Params& params, const ModelConfig& c, const std::string& prefix, int64_t width, int64_t down_fan_in) {
  const int64_t d = c.hidden_size;
  gate_up_ =
      &params.matrix(prefix + "gate_up",
                     {{prefix + "gate_proj.weight", 0, {width, d}}, {prefix + "up_proj.weight", width * d, {width, d}}},
                     2 * width, d, fan_in_std(d));
  down_ = &params.matrix(prefix + "down", {{prefix + "down_proj.weight", 0, {d, width}}}, d, width,
                         output_std(c, down_fan_in));
}

Tensor Mlp::forward(ops::Ctx& ctx, const Tensor& x) const {
  return ops::linear(ctx, ops::swiglu(ctx, ops::linear(ctx, x, *gate_up_)), *down_);
}

Moe::Moe(Params& params, const ModelConfig& c, const std::string& prefix, int index) : index_(index) {
  const int64_t d = c.hidden_size, f = c.moe_intermediate_size, e = c.n_routed_experts;
  const bool v3 = c.topk_method == "noaux_tc";
  config_ = {.experts = c.n_routed_experts,
             .top_k = c.num_experts_per_tok,
             .n_group = c.topk_method == "greedy" ? 1 : c.n_group,
             .topk_group = c.topk_method == "greedy" ? 1 : c.topk_group,
             .scoring = c.scoring_func == "softmax" ? kernels::Scoring::softmax : kernels::Scoring::sigmoid,
             .group_score = v3 ? kernels::GroupScore::top2_sum : kernels::GroupScore::max,
             .normalize = c.norm_topk_prob,
             .scaling = static_cast<float>(c.routed_scaling_factor)};
  router_ = &params.matrix(prefix + "gate", {{prefix + "gate.weight", 0, {e, d}}}, e, d, fan_in_std(d));
  if (v3)
    bias_ =
        &params.vector(prefix + "bias", {{prefix + "gate.e_score_correction_bias", 0, {e}}}, e, 0, /*trainable=*/false);
  std::vector<Slice> gate_up, down;
  for (int64_t i = 0; i < e; ++i) {
    const std::string expert = prefix + "experts." + std::to_string(i) + ".";
    gate_up.push_back({expert + "gate_proj.weight", i * 2 * f * d, {f, d}});
    gate_up.push_back({expert + "up_proj.weight", (i * 2 + 1) * f * d, {f, d}});
    down.push_back({expert + "down_proj.weight", i * d * f, {d, f}});
  }
  const int64_t visited = f * (c.num_experts_per_tok + c.n_shared_experts);
  gate_up_ = &params.matrix(prefix + "experts.gate_up", std::move(gate_up), e * 2 * f, d, fan_in_std(d));
  gate_up_->matrices = {.batch = e, .n = 2 * f, .k = d, .offset = 0, .stride = 2 * f * d};
  down_ = &params.matrix(prefix + "experts.down", std::move(down), e * d, f, output_std(c, visited));
  down_->matrices = {.batch = e, .n = d, .k = f, .offset = 0, .stride = d * f};
  gate_up_->routed = down_->routed = true;
  gate_up_->visited = down_->visited = double(c.num_experts_per_tok) / double(c.n_routed_experts);
  if (c.n_shared_experts)
    shared_ = std::make_unique<Mlp>(params, c, prefix + "shared_experts.", f * c.n_shared_experts, visited);
}

Tensor Moe::forward(ops::Ctx& ctx, const Tensor& x, std::span<const kernels::Span> spans, Observed* observed) const {
  const ops::Routing r = ops::route(ctx, x, *router_, bias_ ? bias_->value.f32() : nullptr, config_);
  if (observed) {
    const int32_t* offsets = r.offsets.i32();
    for (int e = 0; e < config_.experts; ++e)
      observed->expert_counts[static_cast<size_t>(index_ * config_.experts + e)] += offsets[e + 1] - offsets[e];
    if (observed->balance_weight != 0)
      observed->balance += ops::balance_loss(ctx, r, spans, config_, observed->balance_weight);
  }
  ops::read_ahead(*gate_up_, r);  // while the shared expert computes
  ops::read_ahead(*down_, r);
  const Tensor base = shared_ ? shared_->forward(ctx, x) : Tensor{};
  const Tensor sorted = ops::dispatch(ctx, x, r);
  const Tensor h = ops::swiglu(ctx, ops::grouped_linear(ctx, sorted, *gate_up_, r));
  return ops::combine(ctx, ops::grouped_linear(ctx, h, *down_, r), r, base);
}

}  // namespace ponder::model
