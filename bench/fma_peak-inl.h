// A loop of nothing but fused multiply-adds, the limit of every product. Compiled once per target; which registers it
// uses is all that differs.
#if defined(PONDER_BENCH_FMA_PEAK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PONDER_BENCH_FMA_PEAK_INL_H_
#undef PONDER_BENCH_FMA_PEAK_INL_H_
#else
#define PONDER_BENCH_FMA_PEAK_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Does steps * kFmaChains vector operations; returns their number of floating-point operations.
inline double fma_peak(int64_t steps) {
  constexpr int kFmaChains = 12;  // more than latency (4) x pipes (2), fewer than registers (16)
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kFmaChains];
  for (auto& s : sum) s = hn::Set(d, 1.f);
  const auto a = hn::Set(d, 0.999f), b = hn::Set(d, 1e-3f);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = hn::MulAdd(s, a, b);
  }
  volatile float sink;
  for (auto& s : sum) sink = hn::GetLane(s);
  static_cast<void>(sink);
  return 2.0 * kFmaChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(steps);
}

}  // namespace ponder::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // PONDER_BENCH_FMA_PEAK_INL_H_
