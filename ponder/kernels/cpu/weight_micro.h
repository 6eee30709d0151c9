// The inner parts of products with stored weights, compiled once per instruction set (weight_micro.cc). Each works on
// one panel of packed weights (weight_format.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "ponder/kernels/cpu/isa.h"
#include "ponder/tensor/quantized.h"

namespace ponder::kernels::cpu {

// A row of activations in whole numbers: codes, a scale for every block of `width`, and what products with an offset or
// a minimum need: the negated sums of codes over 32 and (wide blocks) over 16 numbers.
struct QuantizedRow {
  int64_t k;
  int width;  // 32 or 256

  int64_t scales() const { return (k + 3) / 4 * 4; }                // f32 [k / width], bytes from the start
  int64_t sums() const { return scales() + k / width * 4; }         // int32 [k / 32]
  int64_t float_sums() const { return sums() + k / 32 * 4; }        // the same as f32
  int64_t short_sums() const { return float_sums() + k / 32 * 4; }  // int32 [k / 16]
  int64_t bytes() const {                                           // a multiple of a cache line
    return (short_sums() + (width == 256 ? k / 16 * 4 : 0) + 63) / 64 * 64;
  }
};

// C[i, j] = start + sum_k A[i, k] W[j, k] (+ bias[j]) over a part of k, for the n <= 32 columns of a panel.
struct PanelStrip {
  int rows;
  const std::byte* w;  // the panel, where that part begins
  float* c;
  int64_t ldc, n;
  bool add;                // start = C instead of +0
  const float* bias;       // may be null
  const std::byte* ahead;  // what will be read next, fetched into the cache meanwhile:
  int64_t ahead_step;      // so many bytes for every `kAheadNumbers` along k
};
struct IntegerStrip : PanelStrip {  // at most integer_rows
  static constexpr int64_t kAheadNumbers = 32;
  const std::byte* a;  // the first row, layout.bytes() before the next one
  QuantizedRow layout;
  int64_t begin, end;  // blocks of the weights' type, which are the rows' too
};
struct PlainStrip : PanelStrip {  // at most plain_rows; numbers as they are
  static constexpr int64_t kAheadNumbers = 1;
  const void* a;  // f32 numbers, or pairs of bf16 along k
  int64_t lda;    // in words of 4 bytes
  int64_t k;
  const float* scales;  // FP8: [ceil(k / 128)][32]
};

struct WeightKernels {
  int integer_rows, plain_rows;  // the heights of full tiles
  void (*integer_strip)(BlockType, const IntegerStrip&);
  void (*plain_strip)(BlockType, const PlainStrip&);
  void (*pair_strip)(const PlainStrip&);  // BF16 with pairs; subnormals have to be flushed (FlushSubnormals)
  // Numbers begin .. end - 1 along k of a panel, exactly, as [end - begin][32]; both are multiples of 32, or end is k.
  void (*expand)(BlockType, const std::byte* panel, int64_t k, int64_t begin, int64_t end, float* out);
  void (*quantize)(const float* x, const QuantizedRow&, std::byte* row);
  void (*round_bf16)(const float* x, int64_t k, float* y);
  void (*pair_bf16)(const float* x, int64_t k, uint16_t* y);  // y [k rounded up to an even number]
};
const WeightKernels& weight_kernels(Isa isa);

}  // namespace ponder::kernels::cpu
