// The feed-forward half of a block: a SwiGLU MLP, or DeepSeekMoE with routed and shared experts.
#pragma once

#include <memory>
#include <string>

#include "ponder/model/config.h"
#include "ponder/model/params.h"
#include "ponder/ops/ops.h"

namespace ponder::model {

struct Observed;

class Mlp {
 public:
  // `fan_in` of the down projection counts what is added up with it (in a MoE layer the experts that a token visits).
  Mlp(Params& params, const ModelConfig& config, const std::string& prefix, int64_t width, int64_t down_fan_in);
  Tensor forward(ops::Ctx& ctx, const Tensor& x_TD) const;

 private:
  ops::Param *gate_up_, *down_;
};

// y = shared(x) + sum_j g_j expert_j(x)                                      DeepSeek-V3 report, equations 12 to 16
class Moe {
 public:
  Moe(Params& params, const ModelConfig& config, const std::string& prefix, int index);
  Tensor forward(ops::Ctx& ctx, const Tensor& x_TD, std::span<const kernels::Span> spans, Observed* observed) const;
  int index() const { return index_; }  // among the layers with experts
  ops::Param* bias() const { return bias_; }

 private:
  ops::RouterConfig config_;
  int index_;
  ops::Param *router_, *bias_ = nullptr, *gate_up_, *down_;
  std::unique_ptr<Mlp> shared_;
};

}  // namespace ponder::model
