// What cpu_backend.cc (threads, rows, tasks) asks of the files compiled per instruction set (SIMD). Each function works
// on a part of the outputs on the calling thread: rows [begin, end) unless it says otherwise.
#pragma once

#include <cstdint>

#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/isa.h"

namespace ponder::kernels::cpu {

struct PointwiseKernels {
  void (*rms_norm)(const RmsNorm&, int64_t begin, int64_t end);
  // begin is a multiple of kDotBlock. Where dw is wanted, block b leaves its sums in row b of scratch.
  void (*rms_norm_grad)(const RmsNormGrad&, int64_t begin, int64_t end);
  void (*swiglu)(const SwiGlu&, int64_t begin, int64_t end);
  void (*swiglu_grad)(const SwiGluGrad&, int64_t begin, int64_t end);
  void (*rope)(const Rope&, int64_t begin, int64_t end);
  void (*add)(const Add&, int64_t begin, int64_t end);
  void (*scatter_rows)(const ScatterRows&, int64_t begin, int64_t end);
  void (*embed_grad)(const EmbedGrad&, int64_t begin, int64_t end);  // columns
  void (*column_sum)(const ColumnSum&, int64_t begin, int64_t end);  // as rms_norm_grad: leaves block sums in scratch
  // y[i] += scratch[0][i] + ..., block after block.
  void (*add_blocks)(const float* scratch, int64_t blocks, int64_t d, float* y);
  void (*adamw)(const AdamW&, int64_t begin, int64_t end);                // elements
  void (*sum_squares)(const SumSquares&, int64_t chunk, int64_t chunks);  // [chunk, chunks), into scratch
  void (*combine)(const Combine&, int64_t begin, int64_t end);
  void (*combine_grad)(const CombineGrad&, int64_t begin, int64_t end);
};
const PointwiseKernels& pointwise_kernels(Isa isa);

struct LossKernels {
  void (*log_prob)(const LogProb&, int64_t begin, int64_t end);
  void (*log_prob_grad)(const LogProbGrad&, int64_t begin, int64_t end);
  void (*sample)(const Sample&, int64_t begin, int64_t end, float* scratch);  // scratch [2, vocab] of this thread
  void (*scores)(const Route&, int64_t begin, int64_t end);                   // fills scores
};
const LossKernels& loss_kernels(Isa isa);

// A row of attention is a (query, head) pair: row r of a span and kv head is query r / group and the head
// kv_head * group + r % group, group = heads / kv_heads. A task is so many rows.
constexpr int kAttentionRows = 64;

// A task that several threads share, in three steps.
struct SplitBlock {
  const Attention* attention;
  const Span* span;
  int64_t kv_head, begin, end;
  float* memory;  // split_floats()
};

struct AttentionKernels {
  void (*store_kv)(const StoreKv&, int64_t begin, int64_t end);  // spans of one page each
  void (*attention)(const Attention&, const Span&, int64_t kv_head, int64_t begin, int64_t end);  // <= kAttentionRows
  int64_t (*split_floats)(int64_t rows, int64_t pages);
  void (*split_scores)(const SplitBlock&, int64_t begin, int64_t end);  // pages
  void (*split_exps)(const SplitBlock&, int64_t begin, int64_t end);    // pages, all scores are there
  void (*split_values)(const SplitBlock&, int64_t begin, int64_t end);  // columns of the output, multiples of 16 apart
  int64_t (*grad_scratch)(const AttentionGrad&, int64_t count);         // floats needed for a span of so many rows
  void (*attention_grad)(const AttentionGrad&, const Span&, int64_t kv_head, float* scratch);
};
const AttentionKernels& attention_kernels(Isa isa);

}  // namespace ponder::kernels::cpu
