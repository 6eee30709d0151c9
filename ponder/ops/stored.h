// Products with stored weights: the inference half of linear, grouped_linear and the products of MLA.
#pragma once

#include "ponder/ops/ops.h"

namespace ponder::ops {

// Fills in parts, batch, activations and scratch of `g` and computes it, with all matrices of `w` or with `count` of them
// from `first` on. There is no backward: a tape is our mistake.
void multiply_stored(Ctx& ctx, const Param& w, kernels::WeightGemm g);
void multiply_stored(Ctx& ctx, const Param& w, int64_t first, int64_t count, kernels::WeightGemm g);

}  // namespace ponder::ops
