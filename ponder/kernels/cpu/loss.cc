// Log-probabilities, sampling and the router's scores.
#include "ponder/kernels/cpu/kernels.h"
#include "ponder/kernels/cpu/targets.h"
#include "ponder/kernels/sample_cut.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ponder/kernels/cpu/loss.cc"
#include "hwy/foreach_target.h"
#include "ponder/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace {

struct Softmax {
  float max, total, log_sum, entropy;
};

Softmax softmax(const float* x, int64_t n, float scale, bool want_entropy) {
  F16 lane_max = set(-constants::kInf);
  for_lanes(n, [&](int64_t i, auto k) PONDER_LAMBDA {
    F16 z = load_n(x + i, k) * set(scale);
    if constexpr (!std::is_same_v<decltype(k), Index<kLanes>>) z = select(first_n(k), z, set(-constants::kInf));
    lane_max = max_of(z, lane_max);
  });
  const float max = fold_max(lane_max) + 0.f;
  F16 sum = set(0.f), weighted = set(0.f);
  for_lanes(n, [&](int64_t i, auto k) PONDER_LAMBDA {
    const F16 d = load_n(x + i, k) * set(scale) - set(max), e = exp_bounded(d);
    sum = add_n(sum, e, k);
    if (want_entropy) weighted = fma_n(e, select(e == set(0.f), set(0.f), d), weighted, k);
  });
  const float total = fold_sum(sum), log_sum = kernels::log(total);
  return {max, total, log_sum, want_entropy ? log_sum - fold_sum(weighted) / total : 0.f};
}

void log_prob(const LogProb& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = a.logits + r * a.ldl;
    const Softmax s = softmax(x, a.vocab, a.inv_temperature, a.entropy != nullptr);
    a.logp[r] = (x[a.targets[r]] * a.inv_temperature - s.max) - s.log_sum;
    a.max[r] = s.max;
    a.log_sum[r] = s.log_sum;
    if (a.entropy) a.entropy[r] = s.entropy;
  }
}

HWY_INLINE I16 iota() {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::Iota(Di(), i * kWidth); });
}

void log_prob_grad(const LogProbGrad& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = a.logits + r * a.ldl;
    float* dx = a.dlogits + r * a.lddl;
    const F16 scale = set(a.inv_temperature), max = set(a.max[r]), log_sum = set(a.log_sum[r]), dlogp = set(a.dlogp[r]);
    const float target = x[a.targets[r]];  // dx may be x
    const auto gradient = [&](const F16& logits, const F16& onehot) PONDER_LAMBDA {
      const F16 logp = (logits * scale - max) - log_sum, p = exp(logp);
      F16 d = dlogp * (onehot - p);
      if (a.dentropy) d = select(p == set(0.f), d, d - set(a.dentropy[r]) * p * (logp + set(a.entropy[r])));
      return scale * d;
    };
    for_lanes(a.vocab,
              [&](int64_t i, auto n) PONDER_LAMBDA { store_n(gradient(load_n(x + i, n), set(0.f)), dx + i, n); });
    store_n(gradient(set(target), set(1.f)), dx + a.targets[r], 1);
  }
}

// ---- sampling -------------------------------------------------------------------------------------------------------
constexpr int kPhiloxWords = 4 * kLanes;  // sixteen blocks at once

HWY_INLINE U16 operator^(const U16& a, const U16& b) {
  return parts<U16>([&](auto i) PONDER_LAMBDA { return hn::Xor(a.part[i], b.part[i]); });
}
HWY_INLINE U16 set_uint(uint32_t x) {
  return parts<U16>([&](auto) PONDER_LAMBDA { return hn::Set(Du(), x); });
}
struct Product {
  U16 hi, lo;
};
HWY_INLINE Product multiply(const U16& a, uint32_t b) {
  constexpr hn::Repartition<uint64_t, Du> d64;
  const auto m = hn::Set(Du(), b);
  return {parts<U16>([&](auto i) PONDER_LAMBDA {
            const auto even = hn::MulEven(a.part[i], m);
            const auto odd = hn::MulEven(hn::BitCast(Du(), hn::ShiftRight<32>(hn::BitCast(d64, a.part[i]))), m);
            return hn::OddEven(hn::BitCast(Du(), odd), hn::BitCast(Du(), hn::ShiftRight<32>(even)));
          }),
          parts<U16>([&](auto i) PONDER_LAMBDA { return hn::Mul(a.part[i], m); })};
}
// base/rng.h: the blocks (key, position, first) .. (key, position, first + 15), their words in order.
void philox16(uint64_t key, uint64_t position, uint64_t first, uint32_t* words) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  // ids are int32, so that the upper word of the counter is 0.
  U16 c0 = parts<U16>([&](auto i) PONDER_LAMBDA { return hn::Iota(Du(), static_cast<uint32_t>(first) + i * kWidth); });
  U16 c1 = set_uint(0), c2 = set_uint(static_cast<uint32_t>(position)),
      c3 = set_uint(static_cast<uint32_t>(position >> 32));
  for (int round = 0; round < 10; ++round) {
    const Product p0 = multiply(c0, 0xD2511F53u), p1 = multiply(c2, 0xCD9E8D57u);
    c0 = p1.hi ^ c1 ^ set_uint(k0);
    c1 = p1.lo;
    c2 = p0.hi ^ c3 ^ set_uint(k1);
    c3 = p0.lo;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  unroll<kParts>([&](auto i) PONDER_LAMBDA {
    hn::StoreInterleaved4(c0.part[i], c1.part[i], c2.part[i], c3.part[i], Du(), words + i * 4 * kWidth);
  });
}
HWY_INLINE F16 gumbel(const uint32_t* words) {
  const F16 w = parts<F16>([&](auto i) PONDER_LAMBDA {
    const auto u = hn::ShiftRight<9>(hn::LoadU(Du(), words + i * kWidth));
    return hn::ConvertTo(Df(), hn::BitCast(Di(), u));
  });
  return -log(-log(fma(w, set(0x1p-23f), set(0x1p-24f))));
}

// The arg-max of what was offered, the lowest id among equals: each lane sees ids in ascending order and keeps its
// first.
struct ArgMax {
  F16 best, id;

  HWY_INLINE void offer(const M16& allowed, const F16& score, int64_t first) {
    const F16 masked = select(allowed, score, set(-constants::kInf));
    const M16 better = masked > best;
    best = select(better, masked, best);
    id = select(better, as_float(iota() + set_int(static_cast<int32_t>(first))), id);
  }
  int32_t get() const {
    float score[kLanes];
    int32_t ids[kLanes];
    store(best, score);
    unroll<kParts>([&](auto i) PONDER_LAMBDA { hn::StoreU(as_int(id).part[i], Di(), ids + i * kWidth); });
    int b = 0;
    for (int i = 1; i < kLanes; ++i)
      if (score[i] > score[b] || (score[i] == score[b] && ids[i] < ids[b])) b = i;
    return ids[b];
  }
};

void sample(const Sample& a, int64_t begin, int64_t end, float* scratch) {
  for (int64_t r = begin; r < end; ++r) {
    const SampleRow& params = a.params[r];
    const float* x = a.logits + r * a.ldl;
    const bool greedy = params.temperature == 0.f;
    const float scale = greedy ? 1.f : 1.f / params.temperature;
    const Softmax s = softmax(x, a.vocab, scale, a.entropy != nullptr);
    float threshold = -constants::kInf;
    if (!greedy && cuts(params)) {
      for_lanes(a.vocab,
                [&](int64_t i, auto n) PONDER_LAMBDA { store_n(load_n(x + i, n) * set(scale), scratch + i, n); });
      threshold = cut_threshold({.z = scratch, .n = a.vocab, .max = s.max, .total = s.total, .heap = scratch + a.vocab},
                                params);
    }
    ArgMax arg_max{set(-constants::kInf), as_float(set_int(0))};
    uint32_t words[kPhiloxWords];
    for_lanes(a.vocab, [&](int64_t i, auto n) PONDER_LAMBDA {
      if (!greedy && i % kPhiloxWords == 0)
        philox16(params.seed, static_cast<uint64_t>(params.position), static_cast<uint64_t>(i / 4), words);
      F16 z = load_n(x + i, n) * set(scale);
      if constexpr (!std::is_same_v<decltype(n), Index<kLanes>>) z = select(first_n(n), z, set(constants::kNan));
      const F16 score = greedy ? z : z + gumbel(words + i % kPhiloxWords);
      arg_max.offer(z >= set(threshold), score, i);
    });
    const int32_t token = arg_max.get();
    a.tokens[r] = token;
    a.logp[r] = (x[token] * scale - s.max) - s.log_sum;
    if (a.entropy) a.entropy[r] = s.entropy;
  }
}

// ---- router ---------------------------------------------------------------------------------------------------------
void scores(const Route& a, int64_t begin, int64_t end) {
  if (a.scoring == Scoring::sigmoid) {
    const int64_t first = begin * a.experts;
    for_lanes((end - begin) * a.experts, [&](int64_t i, auto n) PONDER_LAMBDA {
      store_n(sigmoid(load_n(a.logits + first + i, n)), a.scores + first + i, n);
    });
    return;
  }
  for (int64_t r = begin; r < end; ++r) {
    const float* x = a.logits + r * a.experts;
    float* s = a.scores + r * a.experts;
    F16 lane_max = set(-constants::kInf), sum = set(0.f);
    for_lanes(a.experts, [&](int64_t i, auto n) PONDER_LAMBDA {
      lane_max = max_of(select(first_n(n), load_n(x + i, n), set(-constants::kInf)), lane_max);
    });
    const F16 max = set(fold_max(lane_max));
    for_lanes(a.experts, [&](int64_t i, auto n) PONDER_LAMBDA {
      const F16 e = exp_bounded(load_n(x + i, n) - max);
      sum = add_n(sum, e, n);
      store_n(e, s + i, n);
    });
    const F16 total = set(fold_sum(sum));
    for_lanes(a.experts, [&](int64_t i, auto n) PONDER_LAMBDA { store_n(load_n(s + i, n) / total, s + i, n); });
  }
}

}  // namespace

extern const LossKernels kLoss;
const LossKernels kLoss = {log_prob, log_prob_grad, sample, scores};

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ponder::kernels::cpu {
const LossKernels& loss_kernels(Isa isa) { return PONDER_FOR_ISA(isa, kLoss); }
}  // namespace ponder::kernels::cpu
#endif
