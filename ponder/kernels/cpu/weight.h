// Products with stored weights (backend.h), fast: activations are prepared once (whole numbers, or rounded to bf16),
// then tasks of columns and rows run over packed panels. Which kernel a part of the product takes:
//   q8, block types        integer tiles straight from the packed codes, for any number of rows
//   few rows, 16- and 8-bit numbers    tiles that widen them in registers
//   else                   panels are expanded chunk by chunk to f32 for the strips of gemm_micro.h
#pragma once

#include <cstddef>

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/isa.h"

namespace ponder::kernels::cpu {

size_t weight_gemm_scratch(const WeightGemm& g);
void weight_gemm(const WeightGemm& g, ThreadPool& pool, Isa isa) noexcept;

}  // namespace ponder::kernels::cpu
