// How weights are stored: plain numbers, blocks of quantised numbers with shared scales, FP8 with a scale for every
// 128 x 128 numbers. A block type is not a DType: activations, gradients and pages never have one. Only what reads
// weights (model loading, the products of kernels, conversion) knows it.
//
// The names and the meaning of blocks are those of GGUF (ggml's block types); each has exactly one meaning, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "ponder/tensor/float16.h"
#include "ponder/tensor/tensor.h"

namespace ponder {

enum class BlockType : uint8_t {
  f32,
  f16,
  bf16,
  fp8,  // F8_E4M3 (OCP, no infinities), with scales of its own: Quantized::scales
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4
};
constexpr int kBlockTypes = static_cast<int>(BlockType::nvfp4) + 1;

struct BlockSpec {
  const char* name;  // as GGUF writes it: F32, Q4_K, ...; FP8
  int ggml_type;     // its number in GGUF; -1: GGUF has none (FP8)
  int elements;      // numbers in a block
  int bytes;         // and its size
};
const BlockSpec& block_spec(BlockType type);
std::optional<BlockType> block_type_of_ggml(uint32_t ggml_type);
std::optional<BlockType> find_block_type(std::string_view name);  // any case

// A matrix of stored weights, as a view of memory that somebody else owns (a mapped file).
struct Quantized {
  BlockType type = BlockType::f32;
  int64_t rows = 0, cols = 0;  // cols is a multiple of the block's elements
  const std::byte* data = nullptr;
  int64_t row_bytes = 0;  // between rows

  // FP8 (DeepSeek-V3 report, section 3.3): w[i, j] = value * scales[i / 128 * scales_ld + j / 128], as
  // weight_scale_inv of a checkpoint holds them. A view of some rows keeps count of its first row in the whole matrix.
  const float* scales = nullptr;
  int64_t scales_ld = 0, first_row = 0;

  const std::byte* row(int64_t r) const { return data + r * row_bytes; }
  Quantized row_range(int64_t begin, int64_t n) const;
};
constexpr int kScaleBlock = 128;

int64_t block_row_bytes(BlockType type, int64_t cols);  // cols must be whole blocks

// The definition of every type: what `n` numbers in blocks mean (n a multiple of the block's elements; FP8 without its
// scale). Exact: products of scales and codes are rounded once, as ggml does; see docs/numerics.md.
void dequantize(BlockType type, const std::byte* blocks, int64_t n, float* out);
// Row `r` of a matrix, scales of FP8 applied.
void dequantize_row(const Quantized& w, int64_t r, float* out);

// To blocks. f32 to f16, bf16 and fp8 round to nearest even (fp8 saturates at 448); the block types give the bytes of
// ggml's reference quantisation without importance weights.
bool can_quantize(BlockType type);
void quantize(BlockType type, const float* in, int64_t n, std::byte* out);
// FP8 with scales = largest magnitude / 448 of every 128 x 128 (smaller at the edges); scales: [ceil(rows / 128),
// ceil(cols / 128)], codes: [rows, cols].
void quantize_fp8(const float* in, int64_t rows, int64_t cols, std::byte* codes, float* scales);

}  // namespace ponder
