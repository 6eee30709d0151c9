// Products with stored weights. The packed form is the blocks as the file has them (FP8: rows of codes, each followed by
// its scales).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ponder/kernels/ref/blocks.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"

namespace ponder::kernels {
namespace {

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

int64_t code_bytes(BlockType type, int64_t k) { return round_up(block_row_bytes(type, k), 4); }
int64_t packed_row_bytes(BlockType type, int64_t k) {
  return code_bytes(type, k) + (type == BlockType::fp8 ? (k + kScaleBlock - 1) / kScaleBlock * 4 : 0);
}

// Of the largest packed row among parts that are mapped; 0: none is.
int64_t mapped_row_bytes(const WeightGemm& g) {
  int64_t bytes = 0;
  for (const WeightPart& part : g.parts)
    if (part.mapped) bytes = std::max(bytes, packed_row_bytes(part.type, g.k));
  return bytes;
}

// A row of a packed matrix as f32.
void expand_row(BlockType type, const std::byte* packed, int64_t k, float* out) {
  dequantize(type, packed, k, out);
  if (type != BlockType::fp8) return;
  const std::byte* scales = packed + code_bytes(type, k);
  for (int64_t i = 0; i < k; ++i) {
    float scale;
    std::memcpy(&scale, scales + i / kScaleBlock * 4, 4);
    out[i] = out[i] * scale;
  }
}

float integer_dot(BlockType type, const std::byte* packed, int64_t k, const int8_t* codes, const float* scales) {
  const SubBlocks sub = sub_blocks(type);
  float y = 0.f;
  BlockParts w;
  for (int64_t b = 0; b < k; b += sub.elements, packed += block_spec(type).bytes) {
    split_block(type, packed, w);
    float t = 0.f;
    for (int s = 0; s < sub.elements / sub.width; ++s) {
      int32_t products = 0, sum = 0;
      for (int i = s * sub.width; i < (s + 1) * sub.width; ++i) {
        products += w.code[i] * codes[b + i];
        sum += codes[b + i];
      }
      t = std::fma(w.scale * static_cast<float>(w.sub_scale[s]), static_cast<float>(products), t);
      if (sub.minimum) t = std::fma(-(w.minimum * static_cast<float>(w.sub_minimum[s])), static_cast<float>(sum), t);
    }
    y = std::fma(scales[b / sub.elements], t, y);
  }
  return y;
}

// Row `r` of W in its packed form.
void pack_row(const Quantized& w, int64_t r, std::byte* packed) {
  std::memcpy(packed, w.row(r), static_cast<size_t>(block_row_bytes(w.type, w.cols)));
  if (w.type == BlockType::fp8)
    std::memcpy(packed + code_bytes(w.type, w.cols), w.scales + (w.first_row + r) / kScaleBlock * w.scales_ld,
                static_cast<size_t>((w.cols + kScaleBlock - 1) / kScaleBlock) * sizeof(float));
}

// One product with matrix `index` of one part: C[m, n] at c.
void product(const WeightGemm& g, const WeightPart& part, int64_t index, int64_t m, const float* a, float* c,
             const float* bias) {
  const bool integers = g.activations == Activations::q8 && !is_plain(part.type);
  float* row = reinterpret_cast<float*>(g.scratch);
  std::byte* const fresh = reinterpret_cast<std::byte*>(row + g.k);  // a mapped row, packed
  int8_t* codes = reinterpret_cast<int8_t*>(fresh + mapped_row_bytes(g));
  for (int64_t i = 0; i < m; ++i) {
    const float* x = a + i * g.lda;
    if (integers) quantize_row(x, g.k, sub_blocks(part.type).elements, codes, row);
    for (int64_t j = 0; j < part.n; ++j) {
      const std::byte* w = part.packed + index * part.stride + j * packed_row_bytes(part.type, g.k);
      if (part.mapped) pack_row(part.mapped[index], j, fresh), w = fresh;
      float y;
      if (integers) {
        y = integer_dot(part.type, w, g.k, codes, row);
      } else {
        expand_row(part.type, w, g.k, row);
        const bool round = g.activations == Activations::bf16;
        const auto from_a = [&](int64_t p) { return round ? bf16_to_f32(f32_to_bf16(x[p])) : x[p]; };
        const auto from_w = [&](int64_t p) { return row[p]; };
        if (is_pair_product(part.type, g.activations)) {
          y = pair_dot(g.k, from_a, from_w);
          c[i * g.ldc + j] = bias ? flushed_add(y, bias[j]) : y;
          continue;
        }
        y = dot(g.k, 0.f, from_a, from_w);
      }
      c[i * g.ldc + j] = bias ? y + bias[j] : y;
    }
  }
}

}  // namespace

const char* activations_name(Activations a) {
  switch (a) {
    case Activations::bf16: return "bf16";
    case Activations::q8: return "q8";
    default: return "f32";
  }
}

bool RefBackend::multiplies(BlockType type) const { return is_plain(type) || sub_blocks(type).elements > 0; }

size_t RefBackend::packed_weight_bytes(BlockType type, int64_t n, int64_t k) const {
  return static_cast<size_t>(round_up(n * packed_row_bytes(type, k), 64));
}

void RefBackend::pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) const noexcept {
  for (int64_t i = 0; i < w.rows; ++i, packed += packed_row_bytes(w.type, w.cols))
    pack_row(w, order ? order[i] : i, packed);
}

// A row of weights, or the scales and codes of a row of activations; and a packed row.
size_t RefBackend::weight_gemm_scratch(const WeightGemm& g) const {
  return static_cast<size_t>(g.k) * (sizeof(float) + 1) + static_cast<size_t>(mapped_row_bytes(g));
}

void RefBackend::weight_gemm(const WeightGemm& g) const noexcept {
  for (int64_t i = 0; i < g.batch; ++i) {
    const int64_t row = g.offsets ? g.offsets[i] : 0;
    const float* a = g.a + (g.offsets ? row * g.lda : i * g.a_stride);
    float* c = g.c + (g.offsets ? row * g.ldc : i * g.c_stride);
    const float* bias = g.bias;
    for (const WeightPart& part : g.parts) {
      product(g, part, i, g.offsets ? g.offsets[i + 1] - row : g.m, a, c, bias);
      c += part.n;
      if (bias) bias += part.n;
    }
  }
}

void RefBackend::embed_stored(const EmbedStored& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) dequantize_row(a.table, a.ids[r], a.y + r * a.ldy);
}

}  // namespace ponder::kernels
