// The attention half of a block: grouped-query attention, or multi-head latent attention.
#pragma once

#include <memory>
#include <string>

#include "ponder/model/config.h"
#include "ponder/model/kv.h"
#include "ponder/model/params.h"
#include "ponder/ops/ops.h"

namespace ponder::model {

class Attention {
 public:
  virtual ~Attention() = default;
  // x is normed; the result goes to the residual stream.
  virtual Tensor forward(ops::Ctx& ctx, const Tensor& x_TD, const Batch& batch, const ops::RopeTable& rope) const = 0;
};

// Halves of kv_b_proj.weight, under names of their own behind the prefix of a layer's attention: [H * v, lora],
// [H * nope, lora], and that transposed per head, [H * lora, nope]. Stored models read them (model/source.h).
inline constexpr const char* kVb = "v_b_proj.weight";
inline constexpr const char* kKb = "k_b_proj.weight";
inline constexpr const char* kKbTransposed = "k_b_proj.transposed";

// `prefix` is "model.layers.N.self_attn."; `layer` picks the pages.
std::unique_ptr<Attention> make_attention(Params& params, const ModelConfig& config, const std::string& prefix,
                                          int layer, MlaForm form);

}  // namespace ponder::model
