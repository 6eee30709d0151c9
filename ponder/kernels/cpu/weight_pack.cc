#include "ponder/kernels/cpu/weight_pack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "ponder/base/error.h"
#include "ponder/kernels/cpu/weight_format.h"
#include "ponder/kernels/ref/blocks.h"

namespace ponder::kernels::cpu {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The rows of W that a panel holds; null beyond the last.
using Rows = std::array<const std::byte*, kPanel>;

template <class T>
void pack_numbers(const Rows& rows, int64_t k, std::byte* out) {
  constexpr int64_t kStep = 64;  // a cache line or more of every row at a time
  T* to = reinterpret_cast<T*>(out);
  for (int64_t begin = 0; begin < k; begin += kStep)
    for (int j = 0; j < kPanel; ++j) {
      const std::byte* from = rows[static_cast<size_t>(j)];
      for (int64_t i = begin; i < std::min(k, begin + kStep); ++i) {
        T x{};  // copied as bytes: a file aligns nothing
        if (from) std::memcpy(&x, from + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
        to[i * kPanel + j] = x;
      }
    }
}

void pack_pairs(const Rows& rows, int64_t k, std::byte* out) {
  constexpr int64_t kStep = 32;
  for (int64_t begin = 0; begin < k; begin += kStep)
    for (int j = 0; j < kPanel; ++j) {
      const std::byte* from = rows[static_cast<size_t>(j)];
      for (int64_t i = begin; i < std::min(k, begin + kStep); i += 2) {
        uint32_t pair = 0;
        if (from) std::memcpy(&pair, from + i * 2, i + 1 < k ? 4 : 2);
        std::memcpy(out + (i / 2 * kPanel + j) * 4, &pair, 4);
      }
    }
}

// What is stored for a code: itself plus the offset, or its place in the table.
template <Format f>
constexpr std::array<uint8_t, 256> places() {
  std::array<uint8_t, 256> place{};
  for (size_t i = 16; i-- > 0;) place[static_cast<uint8_t>(table_values(f.table)[i])] = static_cast<uint8_t>(i);
  return place;
}
template <Format f>
void store_codes(const int8_t* code, uint8_t* stored) {
  static constexpr std::array<uint8_t, 256> kPlaces = places<f>();
  for (int i = 0; i < f.block; ++i) {
    if constexpr (f.table == Table::none)
      stored[i] = static_cast<uint8_t>(code[i] + f.offset);
    else
      stored[i] = kPlaces[static_cast<uint8_t>(code[i])];
  }
}

// One lane of a unit of 32 numbers.
template <Format f>
void pack_unit(const uint8_t* code, std::byte* lane) {
  uint32_t g[8], bits[2] = {};  // groups of four; the bits above nibbles
  std::memcpy(g, code, 32);
  const auto put = [&](int row, uint32_t word) { std::memcpy(lane + row * kPanel * 4, &word, 4); };
  if constexpr (f.bits == 8) {
    for (int i = 0; i < 8; ++i) put(i, g[i]);
    return;
  }
  constexpr uint32_t kNibbles = 0x0F0F0F0Fu;
  for (int i = 0; i < 4; ++i) put(f.high_bits() + i, (g[i] & kNibbles) | (g[i + 4] & kNibbles) << 4);
  for (int i = 0; i < 8; ++i) {
    if constexpr (f.bits == 5) bits[0] |= (g[i] >> 4 & 0x01010101u) << i;
    if constexpr (f.bits == 6) bits[i / 4] |= (g[i] >> 4 & 0x03030303u) << i % 4 * 2;
  }
  for (int i = 0; i < f.high_bits(); ++i) put(i, bits[i]);
}

template <Format f>
void pack_blocks(BlockType type, const Rows& rows, int64_t k, std::byte* out) {
  const int64_t bytes = block_spec(type).bytes;
  for (int64_t b = 0; b < k / f.block; ++b, out += f.panel_block()) {
    if (!rows.back()) std::memset(out, 0, f.panel_block());
    for (int j = 0; j < kPanel; ++j) {
      if (!rows[static_cast<size_t>(j)]) break;
      const std::byte* block = rows[static_cast<size_t>(j)] + b * bytes;
      std::memcpy(out + j * f.scale_bytes(), block + f.scale_at, f.scale_bytes());
      if constexpr (f.minimum()) {
        std::byte* to = out + f.minima() + j * 2;
        std::memcpy(to, block + f.minimum_at, 2);
        if (f.minimum_negated) to[1] ^= std::byte{0x80};
      }
      BlockParts parts;
      split_block(type, block, parts);
      if constexpr (f.sub_scales()) {
        for (int s = 0; s < f.subs(); ++s) {
          out[f.sub_scales_begin() + s * kPanel + j] = static_cast<std::byte>(parts.sub_scale[s]);
          if (f.minimum()) out[f.sub_minima() + s * kPanel + j] = static_cast<std::byte>(parts.sub_minimum[s]);
        }
      }
      uint8_t stored[f.block];
      store_codes<f>(parts.code, stored);
      for (int u = 0; u < f.block / 32; ++u) pack_unit<f>(stored + 32 * u, out + f.header() + u * f.unit() + j * 4);
    }
  }
}

}  // namespace

int64_t depth_bytes(BlockType type, int64_t k) {
  int64_t bytes = (type == BlockType::bf16 ? (k + 1) / 2 * 2 : k) * block_spec(type).bytes * kPanel;
  with_format(type, [&](auto f) { bytes = k / f.value.block * f.value.panel_block(); });
  return bytes;
}

int64_t panel_bytes(BlockType type, int64_t k) {
  const int64_t scales = type == BlockType::fp8 ? ceil_div(k, kScaleBlock) * kPanel : 0;
  return depth_bytes(type, k) + scales * static_cast<int64_t>(sizeof(float));
}

size_t packed_weight_bytes(BlockType type, int64_t n, int64_t k) {
  return static_cast<size_t>(ceil_div(ceil_div(n, kPanel) * panel_bytes(type, k), 64) * 64);
}

void pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) noexcept {
  const int64_t k = w.cols;
  for (int64_t p = 0; p < w.rows; p += kPanel, packed += panel_bytes(w.type, k)) {
    Rows rows{};
    float* scales = w.type == BlockType::fp8 ? reinterpret_cast<float*>(packed + k * kPanel) : nullptr;
    for (int j = 0; j < kPanel; ++j) {
      const bool inside = p + j < w.rows;
      const int64_t r = inside && order ? order[p + j] : p + j;
      if (inside) rows[static_cast<size_t>(j)] = w.row(r);
      if (!scales) continue;
      for (int64_t b = 0; b < ceil_div(k, kScaleBlock); ++b) {
        float& scale = scales[b * kPanel + j];
        scale = inside ? w.scales[(w.first_row + r) / kScaleBlock * w.scales_ld + b] * 256.f : 0.f;
        const auto nan = [](std::byte code) { return (code & std::byte{0x7F}) == std::byte{0x7F}; };
        if (inside && std::any_of(w.row(r) + b * kScaleBlock, w.row(r) + std::min(k, (b + 1) * kScaleBlock), nan))
          scale = std::numeric_limits<float>::quiet_NaN();
      }
    }
    switch (w.type) {
      case BlockType::f32: pack_numbers<uint32_t>(rows, k, packed); break;
      case BlockType::f16: pack_numbers<uint16_t>(rows, k, packed); break;
      case BlockType::bf16: pack_pairs(rows, k, packed); break;
      case BlockType::fp8: pack_numbers<uint8_t>(rows, k, packed); break;
      default: with_format(w.type, [&](auto f) { pack_blocks<f.value>(w.type, rows, k, packed); });
    }
  }
}

}  // namespace ponder::kernels::cpu
