#include <cmath>

#include "ponder/base/rng.h"
#include "ponder/kernels/math.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"
#include "ponder/kernels/sample_cut.h"

namespace ponder::kernels {
namespace {

struct Softmax {
  float max, total, log_sum, entropy;
};

Softmax softmax(const float* x, int64_t n, float scale) {
  float max = -constants::kInf;
  for (int64_t i = 0; i < n; ++i) {
    const float z = x[i] * scale;
    max = z > max ? z : max;
  }
  max += 0.f;  // no -0: which of two zeros came first must not show
  LaneSums<float> sum, weighted;
  for (int64_t i = 0; i < n; ++i) {
    const float d = x[i] * scale - max, e = exp(d);
    sum.add(i, e);
    weighted.add_product(i, e, e == 0.f ? 0.f : d);  // 0 * -inf = 0 here
  }
  const float total = sum.fold(), log_sum = log(total);
  return {max, total, log_sum, log_sum - weighted.fold() / total};
}

float gumbel(uint64_t seed, int64_t position, int64_t id) {
  const uint32_t w = philox(seed, static_cast<uint64_t>(position), static_cast<uint64_t>(id / 4))[id % 4];
  return -log(-log(std::fma(static_cast<float>(w >> 9), 0x1p-23f, 0x1p-24f)));
}

}  // namespace

void RefBackend::log_prob(const LogProb& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.logits + r * a.ldl;
    const Softmax s = softmax(x, a.vocab, a.inv_temperature);
    a.logp[r] = (x[a.targets[r]] * a.inv_temperature - s.max) - s.log_sum;
    a.max[r] = s.max;
    a.log_sum[r] = s.log_sum;
    if (a.entropy) a.entropy[r] = s.entropy;
  }
}

void RefBackend::log_prob_grad(const LogProbGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.logits + r * a.ldl;
    float* dx = a.dlogits + r * a.lddl;
    for (int64_t i = 0; i < a.vocab; ++i) {
      const float logp = (x[i] * a.inv_temperature - a.max[r]) - a.log_sum[r], p = exp(logp);
      float d = a.dlogp[r] * ((i == a.targets[r] ? 1.f : 0.f) - p);
      if (a.dentropy && p != 0.f) d -= a.dentropy[r] * p * (logp + a.entropy[r]);
      dx[i] = a.inv_temperature * d;
    }
  }
}

void RefBackend::sample(const Sample& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const SampleRow& params = a.params[r];
    const float* x = a.logits + r * a.ldl;
    const bool greedy = params.temperature == 0.f;
    const float scale = greedy ? 1.f : 1.f / params.temperature;
    const Softmax s = softmax(x, a.vocab, scale);
    float threshold = -constants::kInf;
    if (!greedy && cuts(params)) {
      for (int64_t i = 0; i < a.vocab; ++i) a.scratch[i] = x[i] * scale;
      threshold = cut_threshold(
          {.z = a.scratch, .n = a.vocab, .max = s.max, .total = s.total, .heap = a.scratch + a.vocab}, params);
    }
    int32_t best = 0;
    float best_score = -constants::kInf;
    for (int64_t i = 0; i < a.vocab; ++i) {
      const float z = x[i] * scale, score = greedy ? z : z + gumbel(params.seed, params.position, i);
      if (z >= threshold && score > best_score) {
        best = static_cast<int32_t>(i);
        best_score = score;
      }
    }
    a.tokens[r] = best;
    a.logp[r] = (x[best] * scale - s.max) - s.log_sum;
    if (a.entropy) a.entropy[r] = s.entropy;
  }
}

void RefBackend::adamw(const AdamW& a) const noexcept {
  const float decay = static_cast<float>(1.0 - double{a.lr} * a.weight_decay);
  const float step = static_cast<float>(a.lr / a.correction1), root2 = static_cast<float>(std::sqrt(a.correction2));
  for (int64_t i = 0; i < a.n; ++i) {
    const float g = a.g[i] * a.grad_scale;
    const float m = std::fma(a.beta1, a.m[i], (1.f - a.beta1) * g);
    const float v = std::fma(a.beta2, a.v[i], (1.f - a.beta2) * g * g);
    a.m[i] = m;
    a.v[i] = v;
    a.p[i] = std::fma(-step, m / (std::sqrt(v) / root2 + a.eps), a.p[i] * decay);
  }
}

void RefBackend::sum_squares(const SumSquares& a) const noexcept {
  double total = 0;
  for (int64_t begin = 0; begin < a.n; begin += 4096) {
    LaneSums<double> sum;
    for (int64_t i = begin; i < a.n && i < begin + 4096; ++i) sum.add_product(i, double{a.x[i]}, double{a.x[i]});
    total += sum.fold();
  }
  *a.out = total;
}

}  // namespace ponder::kernels
