// Products with stored weights: the inference half of linear, grouped_linear and the products of MLA.
#pragma once

#include "ponder/ops/ops.h"

namespace ponder::ops {

// Fills in parts, batch, activations and scratch of `g` and computes it. There is no backward: a tape is our mistake.
void multiply_stored(Ctx& ctx, const Param& w, kernels::WeightGemm g);

}  // namespace ponder::ops
