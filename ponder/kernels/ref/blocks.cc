#include "ponder/kernels/ref/blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "ponder/base/error.h"

namespace ponder::kernels {
namespace {

uint8_t byte(const std::byte* p) { return std::to_integer<uint8_t>(*p); }
uint32_t word(const std::byte* p, size_t bytes) {
  uint32_t w = 0;
  std::memcpy(&w, p, bytes);
  return w;
}
float half(const std::byte* p) { return f16_to_f32(static_cast<uint16_t>(word(p, 2))); }

// 32 nibbles: the low ones of 16 bytes, then the high ones.
void nibbles(const std::byte* p, int8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = static_cast<int8_t>(byte(p + i) & 15);
    code[i + 16] = static_cast<int8_t>(byte(p + i) >> 4);
  }
}

void fifth_bits(uint32_t bits, int8_t* code) {
  for (int i = 0; i < 32; ++i) code[i] = static_cast<int8_t>(code[i] | (bits >> i & 1) << 4);
}

void add(int x, int8_t* code, int n) {
  for (int i = 0; i < n; ++i) code[i] = static_cast<int8_t>(code[i] + x);
}

void look_up(const std::array<int8_t, 16>& table, int8_t* code, int n) {
  for (int i = 0; i < n; ++i) code[i] = table[static_cast<size_t>(code[i])];
}

// 2^(e - 128): half of what E8M0 says, since kFp4Values holds doubled values.
float half_power(uint8_t e) {
  return e < 2 ? std::bit_cast<float>(uint32_t{0x200000} << e) : std::bit_cast<float>((uint32_t{e} - 1) << 23);
}

// Q4_K, Q5_K: eight 6-bit scales and minima in 12 bytes.
void k_scales(const std::byte* block, BlockParts& parts) {
  parts.scale = half(block);
  parts.minimum = half(block + 2);
  const std::byte* p = block + 4;
  for (int i = 0; i < 8; ++i) {
    const uint8_t a = byte(p + i % 4), b = byte(p + 4 + i % 4), c = byte(p + 8 + i % 4);
    parts.sub_scale[i] = static_cast<int8_t>(i < 4 ? a & 63 : (c & 15) | a >> 6 << 4);
    parts.sub_minimum[i] = static_cast<int8_t>(i < 4 ? b & 63 : c >> 4 | b >> 6 << 4);
  }
}

// Q4_K, Q5_K: 32 bytes hold two sub-blocks, low nibbles and high nibbles.
void k_nibbles(const std::byte* p, int8_t* code) {
  for (int pair = 0; pair < 4; ++pair, p += 32, code += 64)
    for (int i = 0; i < 32; ++i) {
      code[i] = static_cast<int8_t>(byte(p + i) & 15);
      code[i + 32] = static_cast<int8_t>(byte(p + i) >> 4);
    }
}

// Q6_K: halves of 128 in four runs of 32: two share bytes of nibbles, all four share bytes of bits 4 and 5.
void six_bits(const std::byte* low, const std::byte* high, int8_t* code) {
  for (int half = 0; half < 2; ++half, low += 64, high += 32, code += 128)
    for (int run = 0; run < 4; ++run)
      for (int i = 0; i < 32; ++i) {
        const int nibble = byte(low + run % 2 * 32 + i) >> run / 2 * 4 & 15;
        code[32 * run + i] = static_cast<int8_t>((nibble | (byte(high + i) >> 2 * run & 3) << 4) - 32);
      }
}

}  // namespace

SubBlocks sub_blocks(BlockType type) {
  switch (type) {
    case BlockType::q4_0:
    case BlockType::q5_0:
    case BlockType::q8_0:
    case BlockType::iq4_nl:
    case BlockType::mxfp4: return {32, 32, false};
    case BlockType::q4_1:
    case BlockType::q5_1: return {32, 32, true};
    case BlockType::q4_k:
    case BlockType::q5_k: return {256, 32, true};
    case BlockType::q6_k: return {256, 16, false};
    case BlockType::iq4_xs: return {256, 32, false};
    default: return {};
  }
}

bool is_plain(BlockType type) {
  return type == BlockType::f32 || type == BlockType::f16 || type == BlockType::bf16 || type == BlockType::fp8;
}

void split_block(BlockType type, const std::byte* block, BlockParts& parts) {
  int8_t* code = parts.code;
  parts.sub_scale[0] = parts.sub_minimum[0] = 1;
  switch (type) {
    case BlockType::q4_0:
      parts.scale = half(block);
      nibbles(block + 2, code);
      add(-8, code, 32);
      break;
    case BlockType::q4_1:
      parts.scale = half(block);
      parts.minimum = -half(block + 2);
      nibbles(block + 4, code);
      break;
    case BlockType::q5_0:
      parts.scale = half(block);
      nibbles(block + 6, code);
      fifth_bits(word(block + 2, 4), code);
      add(-16, code, 32);
      break;
    case BlockType::q5_1:
      parts.scale = half(block);
      parts.minimum = -half(block + 2);
      nibbles(block + 8, code);
      fifth_bits(word(block + 4, 4), code);
      break;
    case BlockType::q8_0:
      parts.scale = half(block);
      std::memcpy(code, block + 2, 32);
      break;
    case BlockType::iq4_nl:
      parts.scale = half(block);
      nibbles(block + 2, code);
      look_up(blocks::kIq4Values, code, 32);
      break;
    case BlockType::mxfp4:
      parts.scale = half_power(byte(block));
      nibbles(block + 1, code);
      look_up(blocks::kFp4Values, code, 32);
      break;
    case BlockType::q4_k:
      k_scales(block, parts);
      k_nibbles(block + 16, code);
      break;
    case BlockType::q5_k:
      k_scales(block, parts);
      k_nibbles(block + 48, code);
      for (int j = 0; j < 8; ++j)  // bit j of byte i is the fifth bit of number 32 j + i
        for (int i = 0; i < 32; ++i)
          code[32 * j + i] = static_cast<int8_t>(code[32 * j + i] | (byte(block + 16 + i) >> j & 1) << 4);
      break;
    case BlockType::q6_k:
      parts.scale = half(block + 208);
      std::memcpy(parts.sub_scale, block + 192, 16);
      six_bits(block, block + 128, code);
      break;
    case BlockType::iq4_xs:
      parts.scale = half(block);
      for (int i = 0; i < 8; ++i) {
        const int low = byte(block + 4 + i / 2) >> i % 2 * 4 & 15;
        const int high = static_cast<int>(word(block + 2, 2) >> 2 * i & 3);
        parts.sub_scale[i] = static_cast<int8_t>((low | high << 4) - 32);
        nibbles(block + 8 + 16 * i, code + 32 * i);
      }
      look_up(blocks::kIq4Values, code, 256);
      break;
    default: PONDER_CHECK(false, "{} has no integer products", block_spec(type).name);
  }
}

void quantize_row(const float* x, int64_t k, int width, int8_t* codes, float* scales) {
  for (int64_t b = 0; b < k; b += width, x += width, codes += width) {
    // As integers, the bits of magnitudes have the order of the magnitudes, infinity and NaN above all others.
    uint32_t largest = 0;
    for (int i = 0; i < width; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu);
    const float scale = std::bit_cast<float>(largest) / 127.f, inverse = 1.f / scale;
    const bool usable = inverse > 0.f && inverse <= 0x1.fffffep127f;
    for (int i = 0; i < width; ++i) codes[i] = usable ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : int8_t{0};
    *scales++ = scale;
  }
}

}  // namespace ponder::kernels
