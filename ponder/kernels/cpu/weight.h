// Products with stored weights (backend.h), fast: activations are prepared once (whole numbers, or rounded to bf16),
// then tasks of columns and rows run over packed panels, in one of two ways:
//   whole numbers   q8 with block types: tiles straight from the packed codes, for any number of rows
//   floats          F32, F16, BF16 and FP8 are widened in registers; blocks (and FP8 for many rows) are expanded to f32
//                   in the L1 cache, a part of a panel at a time
// Weights that stay in their file are packed by the thread that needs them, panel by panel.
#pragma once

#include <cstddef>

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/isa.h"

namespace ponder::kernels::cpu {

size_t weight_gemm_scratch(const WeightGemm& g, const ThreadPool& pool);
void weight_gemm(const WeightGemm& g, ThreadPool& pool, Isa isa) noexcept;

}  // namespace ponder::kernels::cpu
