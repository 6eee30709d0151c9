// Norms, pointwise kernels, sums over rows, the optimizer.
#include <cmath>
#include <cstring>

#include "ponder/kernels/cpu/kernels.h"
#include "ponder/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ponder/kernels/cpu/pointwise.cc"
#include "hwy/foreach_target.h"
#include "ponder/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace {

void rms_norm(const RmsNorm& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = a.x + r * a.ldx;
    float* y = a.y + r * a.ldy;
    F16 sum = set(0.f);
    for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 v = load_n(x + i, n);
      sum = fma_n(v, v, sum, n);
    });
    const float inv = 1.f / std::sqrt(fold_sum(sum) / static_cast<float>(a.d) + a.eps);
    for_lanes(a.d, [&](int64_t i, auto n)
                       PONDER_LAMBDA { store_n(load_n(x + i, n) * set(inv) * load_n(a.w + i, n), y + i, n); });
    if (a.inv) a.inv[r] = inv;
  }
}

void rms_norm_grad(const RmsNormGrad& a, int64_t begin, int64_t end) {
  float* dw = nullptr;
  for (int64_t r = begin; r < end; ++r) {
    if (a.dw && r % kDotBlock == 0) {
      dw = a.scratch + r / kDotBlock * a.d;
      std::memset(dw, 0, static_cast<size_t>(a.d) * sizeof(float));
    }
    const float* x = a.x + r * a.ldx;
    const float* dy = a.dy + r * a.lddy;
    float* dx = a.dx + r * a.lddx;
    const F16 inv = set(a.inv[r]);
    F16 sum = set(0.f);
    for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 g = load_n(dy + i, n), xn = load_n(x + i, n) * inv;
      sum = fma_n(g * load_n(a.w + i, n), xn, sum, n);
      if (dw) store_n(fma(g, xn, load_n(dw + i, n)), dw + i, n);
    });
    const F16 mean = set(fold_sum(sum) / static_cast<float>(a.d));
    for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
      F16 d = (load_n(dy + i, n) * load_n(a.w + i, n) - load_n(x + i, n) * inv * mean) * inv;
      if (a.accumulate_dx) d = load_n(dx + i, n) + d;
      store_n(d, dx + i, n);
    });
  }
}

void swiglu(const SwiGlu& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = a.gate_up + r * a.ldg;
    for_lanes(a.f, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 g = load_n(gate + i, n);
      store_n(g * sigmoid(g) * load_n(gate + a.f + i, n), a.h + r * a.ldh + i, n);
    });
  }
}

void swiglu_grad(const SwiGluGrad& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = a.gate_up + r * a.ldg;
    const float* dh = a.dh + r * a.lddh;
    float* dgate = a.dgate_up + r * a.lddg;
    for_lanes(a.f, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 g = load_n(gate + i, n), s = sigmoid(g), d = load_n(dh + i, n), one = set(1.f);
      store_n(d * load_n(gate + a.f + i, n) * s * (one + g * (one - s)), dgate + i, n);
      store_n(d * (g * s), dgate + a.f + i, n);
    });
  }
}

// Pairs (i, i + rotary / 2).
void rope_halves(const Rope& a, int64_t r) {
  const int64_t half = a.rotary / 2;
  const float* cos = a.cos_sin + a.positions[r] * a.rotary;
  for (int64_t h = 0; h < a.heads; ++h) {
    const float* x = a.x + r * a.ldx + h * a.head_stride;
    float* y = a.y + r * a.ldy + h * a.y_head_stride;
    for_lanes(half, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 x0 = load_n(x + i, n), x1 = load_n(x + half + i, n), c = load_n(cos + i, n);
      const F16 s = a.inverse ? -load_n(cos + half + i, n) : load_n(cos + half + i, n);
      F16 y0 = x0 * c - x1 * s, y1 = x1 * c + x0 * s;
      if (a.accumulate) {
        y0 = load_n(y + i, n) + y0;
        y1 = load_n(y + half + i, n) + y1;
      }
      store_n(y0, y + i, n);
      store_n(y1, y + half + i, n);
    });
  }
}

// Pairs (2i, 2i + 1), eight at a time.
void rope_pairs(const Rope& a, int64_t r) {
  const int64_t half = a.rotary / 2;
  const float* cos = a.cos_sin + a.positions[r] * a.rotary;
  for_lanes(a.rotary, [&](int64_t i, auto n) PONDER_LAMBDA {
    float twice_cos[kLanes] = {}, twice_sin[kLanes] = {};
    for (int64_t j = 0; j < n; j += 2) {
      twice_cos[j] = twice_cos[j + 1] = cos[(i + j) / 2];
      twice_sin[j] = twice_sin[j + 1] = cos[half + (i + j) / 2];
    }
    const F16 c = load(twice_cos), s = a.inverse ? -load(twice_sin) : load(twice_sin);
    for (int64_t h = 0; h < a.heads; ++h) {
      const F16 x = load_n(a.x + r * a.ldx + h * a.head_stride + i, n);
      float* y = a.y + r * a.ldy + h * a.y_head_stride + i;
      F16 rotated = parts<F16>([&](auto k) PONDER_LAMBDA {
        const auto along = hn::Mul(x.part[k], c.part[k]), across = hn::Mul(hn::Shuffle2301(x.part[k]), s.part[k]);
        return hn::OddEven(hn::Add(along, across), hn::Sub(along, across));
      });
      if (a.accumulate) rotated = load_n(y, n) + rotated;
      store_n(rotated, y, n);
    }
  });
}

void rope(const Rope& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) (a.interleaved ? rope_pairs : rope_halves)(a, r);
}

void add(const Add& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
      store_n(load_n(a.a + r * a.lda + i, n) + load_n(a.b + r * a.ldb + i, n), a.y + r * a.ldy + i, n);
    });
}

void scatter_rows(const ScatterRows& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    float* y = a.y + a.index[r] * a.ldy;
    for_lanes(a.d, [&](int64_t i, auto n)
                       PONDER_LAMBDA { store_n(load_n(y + i, n) + load_n(a.x + r * a.ldx + i, n), y + i, n); });
  }
}

void embed_grad(const EmbedGrad& a, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < a.rows; ++r) {
    float* y = a.dtable + a.ids[r] * a.d + begin;
    const float* x = a.dy + r * a.lddy + begin;
    for_lanes(end - begin,
              [&](int64_t i, auto n) PONDER_LAMBDA { store_n(load_n(y + i, n) + load_n(x + i, n), y + i, n); });
  }
}

void column_sum(const ColumnSum& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    float* y = a.scratch + r / kDotBlock * a.d;
    if (r % kDotBlock == 0) std::memset(y, 0, static_cast<size_t>(a.d) * sizeof(float));
    for_lanes(a.d, [&](int64_t i, auto n)
                       PONDER_LAMBDA { store_n(load_n(y + i, n) + load_n(a.x + r * a.ldx + i, n), y + i, n); });
  }
}

void add_blocks(const float* scratch, int64_t blocks, int64_t d, float* y) {
  for_lanes(d, [&](int64_t i, auto n) PONDER_LAMBDA {
    F16 sum = load_n(y + i, n);
    for (int64_t b = 0; b < blocks; ++b) sum = sum + load_n(scratch + b * d + i, n);
    store_n(sum, y + i, n);
  });
}

void adamw(const AdamW& a, int64_t begin, int64_t end) {
  const F16 decay = set(static_cast<float>(1.0 - double{a.lr} * a.weight_decay));
  const F16 minus_step = set(-static_cast<float>(a.lr / a.correction1));
  const F16 root2 = set(static_cast<float>(std::sqrt(a.correction2))), eps = set(a.eps);
  const F16 beta1 = set(a.beta1), beta2 = set(a.beta2), rest1 = set(1.f - a.beta1), rest2 = set(1.f - a.beta2);
  for_lanes(end - begin, [&](int64_t offset, auto n) PONDER_LAMBDA {
    const int64_t i = begin + offset;
    const F16 g = load_n(a.g + i, n) * set(a.grad_scale);
    const F16 m = fma(beta1, load_n(a.m + i, n), rest1 * g);
    const F16 v = fma(beta2, load_n(a.v + i, n), rest2 * g * g);
    store_n(m, a.m + i, n);
    store_n(v, a.v + i, n);
    store_n(fma(minus_step, m / (sqrt(v) / root2 + eps), load_n(a.p + i, n) * decay), a.p + i, n);
  });
}

void sum_squares(const SumSquares& a, int64_t chunk, int64_t chunks) {
  constexpr int64_t kChunk = 4096;
  constexpr int kVectors = 2 * kParts, kDoubles = kLanes / kVectors;
  constexpr hn::FixedTag<double, kDoubles> dd;
  constexpr hn::FixedTag<float, kDoubles> df;
  for (; chunk < chunks; ++chunk) {
    const float* x = a.x + chunk * kChunk;
    const int64_t size = a.n - chunk * kChunk < kChunk ? a.n - chunk * kChunk : kChunk;
    hn::Vec<decltype(dd)> sum[kVectors];
    unroll<kVectors>([&](auto v) PONDER_LAMBDA { sum[v] = hn::Zero(dd); });
    const auto add_group = [&](const float* p) PONDER_LAMBDA {
      unroll<kVectors>([&](auto v) PONDER_LAMBDA {
        const auto d = hn::PromoteTo(dd, hn::LoadU(df, p + v * kDoubles));
        sum[v] = hn::MulAdd(d, d, sum[v]);
      });
    };
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) add_group(x + i);
    if (i < size) {
      float end[kLanes];  // squares are never -0, so that adding 0 is adding nothing
      store(load_n(x + i, size - i), end);
      add_group(end);
    }
    double lane[kLanes];
    unroll<kVectors>([&](auto v) PONDER_LAMBDA { hn::StoreU(sum[v], dd, lane + v * kDoubles); });
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
    a.scratch[chunk] = lane[0];
  }
}

void combine(const Combine& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
      F16 y = a.base ? load_n(a.base + r * a.ldb + i, n) : set(0.f);
      for (int64_t j = r * a.top_k; j < (r + 1) * a.top_k; ++j)
        y = fma(set(a.gates[j]), load_n(a.x + a.place_of[j] * a.d + i, n), y);
      store_n(y, a.y + r * a.ldy + i, n);
    });
  }
}

void combine_grad(const CombineGrad& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* dy = a.dy + r * a.lddy;
    for (int64_t j = r * a.top_k; j < (r + 1) * a.top_k; ++j) {
      const float* x = a.x + a.place_of[j] * a.d;
      float* dx = a.dx + a.place_of[j] * a.d;
      const F16 gate = set(a.gates[j]);
      F16 sum = set(0.f);
      for_lanes(a.d, [&](int64_t i, auto n) PONDER_LAMBDA {
        const F16 d = load_n(dy + i, n);
        sum = fma_n(d, load_n(x + i, n), sum, n);
        store_n(gate * d, dx + i, n);
      });
      a.dgates[j] = fold_sum(sum);
    }
  }
}

}  // namespace

extern const PointwiseKernels kPointwise;
const PointwiseKernels kPointwise = {rms_norm, rms_norm_grad, swiglu,     swiglu_grad, rope,
                                     add,      scatter_rows,  embed_grad, column_sum,  add_blocks,
                                     adamw,    sum_squares,   combine,    combine_grad};

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ponder::kernels::cpu {
const PointwiseKernels& pointwise_kernels(Isa isa) { return PONDER_FOR_ISA(isa, kPointwise); }
}  // namespace ponder::kernels::cpu
#endif
