#include <algorithm>
#include <cmath>

#include "ponder/kernels/math.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"

namespace ponder::kernels {

void RefBackend::rms_norm(const RmsNorm& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.ldx;
    float* y = a.y + r * a.ldy;
    LaneSums<float> sum;
    for (int64_t i = 0; i < a.d; ++i) sum.add_product(i, x[i], x[i]);
    const float inv = 1.f / std::sqrt(sum.fold() / static_cast<float>(a.d) + a.eps);
    for (int64_t i = 0; i < a.d; ++i) y[i] = x[i] * inv * a.w[i];
    if (a.inv) a.inv[r] = inv;
  }
}

void RefBackend::rms_norm_grad(const RmsNormGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.ldx;
    const float* dy = a.dy + r * a.lddy;
    float* dx = a.dx + r * a.lddx;
    const float inv = a.inv[r];
    LaneSums<float> sum;
    for (int64_t i = 0; i < a.d; ++i) sum.add_product(i, dy[i] * a.w[i], x[i] * inv);
    const float mean = sum.fold() / static_cast<float>(a.d);
    for (int64_t i = 0; i < a.d; ++i) {
      const float d = (dy[i] * a.w[i] - x[i] * inv * mean) * inv;
      dx[i] = a.accumulate_dx ? dx[i] + d : d;
    }
  }
  if (!a.dw) return;
  for (int64_t i = 0; i < a.d; ++i)
    a.dw[i] = dot(
        a.rows, a.dw[i], [&](int64_t r) { return a.dy[r * a.lddy + i]; },
        [&](int64_t r) { return a.x[r * a.ldx + i] * a.inv[r]; });
}

void RefBackend::rope(const Rope& a) const noexcept {
  const int64_t half = a.rotary / 2;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* cos = a.cos_sin + a.positions[r] * a.rotary;
    const float* sin = cos + half;
    for (int64_t h = 0; h < a.heads; ++h) {
      const float* x = a.x + r * a.ldx + h * a.head_stride;
      float* y = a.y + r * a.ldy + h * a.y_head_stride;
      for (int64_t i = 0; i < half; ++i) {
        const int64_t i0 = a.interleaved ? 2 * i : i, i1 = a.interleaved ? 2 * i + 1 : i + half;
        const float x0 = x[i0], x1 = x[i1], c = cos[i], s = a.inverse ? -sin[i] : sin[i];
        const float y0 = x0 * c - x1 * s, y1 = x1 * c + x0 * s;
        y[i0] = a.accumulate ? y[i0] + y0 : y0;
        y[i1] = a.accumulate ? y[i1] + y1 : y1;
      }
    }
  }
}

void RefBackend::swiglu(const SwiGlu& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* gate = a.gate_up + r * a.ldg;
    const float* up = gate + a.f;
    float* h = a.h + r * a.ldh;
    for (int64_t i = 0; i < a.f; ++i) h[i] = gate[i] * sigmoid(gate[i]) * up[i];
  }
}

void RefBackend::swiglu_grad(const SwiGluGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* gate = a.gate_up + r * a.ldg;
    const float* up = gate + a.f;
    const float* dh = a.dh + r * a.lddh;
    float* dgate = a.dgate_up + r * a.lddg;
    float* dup = dgate + a.f;
    for (int64_t i = 0; i < a.f; ++i) {
      const float g = gate[i], s = sigmoid(g), d = dh[i];
      dgate[i] = d * up[i] * s * (1.f + g * (1.f - s));
      dup[i] = d * (g * s);
    }
  }
}

void RefBackend::add(const Add& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.d; ++i) a.y[r * a.ldy + i] = a.a[r * a.lda + i] + a.b[r * a.ldb + i];
}

void RefBackend::embed(const Embed& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) std::copy_n(a.table + a.ids[r] * a.d, a.d, a.y + r * a.ldy);
}

void RefBackend::embed_grad(const EmbedGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.d; ++i) a.dtable[a.ids[r] * a.d + i] += a.dy[r * a.lddy + i];
}

void RefBackend::gather_rows(const GatherRows& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) std::copy_n(a.x + a.index[r] * a.ldx, a.d, a.y + r * a.ldy);
}

void RefBackend::scatter_rows(const ScatterRows& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.d; ++i) a.y[a.index[r] * a.ldy + i] += a.x[r * a.ldx + i];
}

void RefBackend::column_sum(const ColumnSum& a) const noexcept {
  for (int64_t i = 0; i < a.d; ++i)
    for (int64_t r0 = 0; r0 < a.rows; r0 += kDotBlock) {
      float s = 0.f;
      for (int64_t r = r0; r < std::min(r0 + kDotBlock, a.rows); ++r) s += a.x[r * a.ldx + i];
      a.y[i] += s;
    }
}

}  // namespace ponder::kernels
