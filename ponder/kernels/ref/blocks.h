// Blocks of quantised weights as integer products see them: whole numbers c, and for every sub-block a scale s and
// perhaps a minimum z, w = s * c - z. tensor/quantized.h says what a block means as numbers; this says it in parts, and
// the two agree in every bit. Shared by ref/ and by what packs weights in cpu/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ponder/tensor/blocks.h"
#include "ponder/tensor/quantized.h"

namespace ponder::kernels {

constexpr int kMaxBlock = 256;     // numbers in the longest block
constexpr int kMaxSubBlocks = 16;  // and sub-blocks

struct SubBlocks {
  int elements = 0;      // numbers in a block, which is also the width of a block of activations; 0: no such type
  int width = 0;         // numbers in a sub-block
  bool minimum = false;  // whether z is there
};
// Block types that have products of their own; elements is 0 for every other type.
SubBlocks sub_blocks(BlockType type);
// F32, F16, BF16, FP8: one number after the other, which products take as f32.
bool is_plain(BlockType type);

struct BlockParts {
  int8_t code[kMaxBlock];
  // s = scale * sub_scale, z = minimum * sub_minimum; where a block is one sub-block, the second factors are 1.
  float scale, minimum;
  int8_t sub_scale[kMaxSubBlocks], sub_minimum[kMaxSubBlocks];
};
void split_block(BlockType type, const std::byte* block, BlockParts& parts);

// A row of activations in blocks of `width` numbers: x is about scale * code. A scale that is not finite stands for
// numbers that are not; its codes are 0, and every product with it is NaN.
void quantize_row(const float* x, int64_t k, int width, int8_t* codes, float* scales);

}  // namespace ponder::kernels
