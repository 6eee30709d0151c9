// How packed weights lie in memory, the same for all instruction sets.
//
// A packed matrix is a row of panels of kPanel = 32 outputs, so that SIMD lanes run over outputs. A panel of
//  - BF16: is [ceil(k / 2)][32] pairs of neighbours along k; the half beyond an odd k is zero.
//  - F32, F16, FP8: is [k][32] numbers; FP8 is followed by f32 scales [ceil(k / 128)][32], times 2^8 (kernels
//    read codes as 2^-8 of what they are), which is exact for scales below 2^120; the
//    scale of numbers with a NaN among them is NaN, and so is any sum with one of them.
//  - quantised blocks: is the blocks along k, each with what 32 rows have at that place:
//      scales [32] (f16; E8M0 for MXFP4), minima [32] (f16) where there are minima;
//      sub-scales [sub-blocks][32], sub-minima [sub-blocks][32] (one byte each) where a block has sub-blocks;
//      units of 32 numbers along k: bits [high_bits][32 lanes][4 bytes], then codes [4 or 8][32 lanes][4 bytes].
//    In a unit, four neighbours along k lie in the four bytes of a lane (what a 4 x 8-bit dot product wants): group g,
//    0 to 7, is 4 g .. 4 g + 3. Codes are unsigned: number + offset, or the index into a table. Row r of 4-bit codes
//    holds group r in the low nibbles and group r + 4 in the high ones. Bits above the nibble: with one, bit g of a byte
//    belongs to group g; with two, bits 2 j and 2 j + 1 of row r belong to group 4 r + j.
// 4-bit codes stay 4 bits, so a packed matrix is at most 3 % larger than the file's: decoding is as fast as memory.
#pragma once

#include <array>
#include <cstdint>

#include "ponder/kernels/cpu/gemm_micro.h"
#include "ponder/kernels/ref/blocks.h"
#include "ponder/tensor/quantized.h"

namespace ponder::kernels::cpu {

enum class Table : uint8_t { none, non_linear, fp4 };
constexpr const std::array<int8_t, 16>& table_values(Table t) {
  return t == Table::fp4 ? blocks::kFp4Values : blocks::kIq4Values;
}

struct Format {
  int block = 0, sub = 0;  // numbers in a block and in a sub-block
  int bits = 0;            // of a code: 4, 5, 6 or 8
  int offset = 0;          // 0 or a power of two: stored codes (table entries) are that much too high
  Table table = Table::none;
  int scale_at = 0;     // where the file's block has its scale
  int minimum_at = -1;  // and its minimum; -1: none
  bool e8m0 = false;
  bool minimum_negated = false;  // the file has m of w = s * c + m; z = -m

  constexpr bool minimum() const { return minimum_at >= 0; }
  constexpr bool sub_scales() const { return sub < block; }
  constexpr int subs() const { return block / sub; }
  constexpr int high_bits() const { return bits == 8 ? 0 : bits - 4; }
  constexpr int code_rows() const { return bits == 8 ? 8 : 4; }

  // Bytes in a panel: from the start of a block, and within a unit of 32 numbers.
  constexpr int scale_bytes() const { return e8m0 ? 1 : 2; }
  constexpr int minima() const { return kPanel * scale_bytes(); }
  constexpr int sub_scales_begin() const { return minima() + (minimum() ? kPanel * 2 : 0); }
  constexpr int sub_minima() const { return sub_scales_begin() + (sub_scales() ? kPanel * subs() : 0); }
  constexpr int header() const { return sub_minima() + (sub_scales() && minimum() ? kPanel * subs() : 0); }
  constexpr int codes() const { return high_bits() * kPanel * 4; }
  constexpr int unit() const { return codes() + code_rows() * kPanel * 4; }
  constexpr int panel_block() const { return header() + block / 32 * unit(); }
};

constexpr Format kQ4_0{.block = 32, .sub = 32, .bits = 4, .offset = 8};
constexpr Format kQ4_1{.block = 32, .sub = 32, .bits = 4, .minimum_at = 2, .minimum_negated = true};
constexpr Format kQ5_0{.block = 32, .sub = 32, .bits = 5, .offset = 16};
constexpr Format kQ5_1{.block = 32, .sub = 32, .bits = 5, .minimum_at = 2, .minimum_negated = true};
constexpr Format kQ8_0{.block = 32, .sub = 32, .bits = 8, .offset = 128};
constexpr Format kQ4_K{.block = 256, .sub = 32, .bits = 4, .minimum_at = 2};
constexpr Format kQ5_K{.block = 256, .sub = 32, .bits = 5, .minimum_at = 2};
constexpr Format kQ6_K{.block = 256, .sub = 16, .bits = 6, .offset = 32, .scale_at = 208};
constexpr Format kIq4Nl{.block = 32, .sub = 32, .bits = 4, .offset = 128, .table = Table::non_linear};
constexpr Format kIq4Xs{.block = 256, .sub = 32, .bits = 4, .offset = 128, .table = Table::non_linear};
constexpr Format kMxfp4{.block = 32, .sub = 32, .bits = 4, .offset = 16, .table = Table::fp4, .e8m0 = true};

// f(Format as an integral_constant-like tag) for the block type; returns false for types without integer products.
template <Format f>
struct FormatTag {
  static constexpr Format value = f;
};
template <class F>
bool with_format(BlockType type, F&& f) {
  switch (type) {
    case BlockType::q4_0: f(FormatTag<kQ4_0>()); return true;
    case BlockType::q4_1: f(FormatTag<kQ4_1>()); return true;
    case BlockType::q5_0: f(FormatTag<kQ5_0>()); return true;
    case BlockType::q5_1: f(FormatTag<kQ5_1>()); return true;
    case BlockType::q8_0: f(FormatTag<kQ8_0>()); return true;
    case BlockType::q4_k: f(FormatTag<kQ4_K>()); return true;
    case BlockType::q5_k: f(FormatTag<kQ5_K>()); return true;
    case BlockType::q6_k: f(FormatTag<kQ6_K>()); return true;
    case BlockType::iq4_nl: f(FormatTag<kIq4Nl>()); return true;
    case BlockType::iq4_xs: f(FormatTag<kIq4Xs>()); return true;
    case BlockType::mxfp4: f(FormatTag<kMxfp4>()); return true;
    default: return false;
  }
}

}  // namespace ponder::kernels::cpu
