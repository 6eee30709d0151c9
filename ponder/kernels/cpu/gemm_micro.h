// The inner part of gemm, compiled once per instruction set (gemm_micro.cc): a strip of C, a few rows high, is computed
// tile by tile in registers, and on the way what comes next of A and B is copied to where it can be read fast.
#pragma once

#include <cstdint>

#include "ponder/kernels/cpu/isa.h"

namespace ponder::kernels::cpu {

constexpr int kPanel = 32;       // columns of a packed panel of B
constexpr int64_t kDepth = 256;  // longest k of a strip: a multiple of kDotBlock, so that chunks end where blocks end

// Lines of A or B, whose values lie together, to be copied in units of `width` values: unit (i, j) is
// from[i * from_line + j * width ...] and goes to to[i * to_line + j * to_unit ...], rounded up to whole vectors with
// zeros.
struct Copy {
  const float* from;
  int64_t from_line, size;  // size: values in a line, all of which are copied
  float* to = nullptr;      // 64-byte aligned, as to_line and to_unit keep it; null: only fetch
  int64_t to_line, to_unit, width;
  int64_t begin = 0, end = 0;  // the units wanted, counted line by line
};

// C[i, j] = start + sum_k A[i, k] B[k, j] (+ bias[j]) for rows i < rows and columns j < n, by rule R1.
struct Strip {
  const float* a;  // A[i, k] at a + i * a_row + k * a_k; one of the two is 1
  int64_t a_row, a_k;
  int rows;        // <= micro_kernels(isa).rows
  const float* b;  // B[k, j] at b + (j / kPanel) * b_panel + k * b_k + j % kPanel; what lies beside column n is read up
                   // to a multiple of 16
  int64_t b_k, b_panel;
  int64_t n, k;  // k <= kDepth
  float* c;
  int64_t ldc;
  bool add;           // start = C instead of +0
  const float* bias;  // may be null
  Copy copies[2];     // done on the way, one after the other, hidden behind the arithmetic
};

struct MicroKernels {
  int rows;   // the height of a full tile
  int width;  // of a vector, in floats
  void (*strip)(const Strip&);
  void (*copy)(const Copy&);
  // packed[p][kk][j] = b[(32 p + j) * ldb + kk], zero for columns >= n; panels `panel_stride` apart.
  void (*pack_columns)(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed, int64_t panel_stride);
  // packed[p][kk][j] = b[kk * ldb + 32 p + j], likewise.
  void (*pack_rows)(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed, int64_t panel_stride);
};

const MicroKernels& micro_kernels(Isa isa);

}  // namespace ponder::kernels::cpu
