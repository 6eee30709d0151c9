// Rules R1 and R2 of backend.h, as code.
#pragma once

#include <cmath>
#include <cstdint>

#include "ponder/kernels/backend.h"

namespace ponder::kernels {

// R1: start + sum_k a(k) * b(k) in blocks of kDotBlock.
template <class A, class B>
float dot(int64_t k, float start, A&& a, B&& b) {
  for (int64_t k0 = 0; k0 < k; k0 += kDotBlock) {
    const int64_t k1 = k0 + kDotBlock < k ? k0 + kDotBlock : k;
    float s = 0.f;
    for (int64_t i = k0; i < k1; ++i) s = std::fma(a(i), b(i), s);
    start += s;
  }
  return start;
}

// Additions and fma where subnormals count as zero, as inputs and as results. A result is subnormal if it still is when
// rounded to 24 bits; that of an addition is exact there.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; }
inline float flushed_add(float a, float b) { return flushed(flushed(a) + flushed(b)); }
inline float flushed_fma(float a, float b, float c) {
  a = flushed(a);
  b = flushed(b);
  c = flushed(c);
  const float y = std::fma(a, b, c);
  if (std::fabs(y) > 0x1p-126f) return y;
  const bool first = std::fabs(a) < std::fabs(b);  // the smaller factor can be scaled
  const float scaled = std::fma(first ? a * 0x1p90f : a, first ? b : b * 0x1p90f, c * 0x1p90f);
  return std::fabs(scaled) < 0x1p-36f ? std::copysign(0.f, scaled) : y;
}

// The dot of pairs of bf16 numbers: R1, the odd number of a pair first, subnormals zero.
template <class A, class B>
float pair_dot(int64_t k, A&& a, B&& b) {
  float y = 0.f;
  for (int64_t k0 = 0; k0 < k; k0 += kPairBlock) {
    const int64_t k1 = k0 + kPairBlock < k ? k0 + kPairBlock : k;
    float s = 0.f;
    for (int64_t i = k0; i < k1; i += 2) {
      if (i + 1 < k1) s = flushed_fma(a(i + 1), b(i + 1), s);
      s = flushed_fma(a(i), b(i), s);
    }
    y = flushed_add(y, s);
  }
  return y;
}

// R2: kLanes interleaved sums, folded in halves.
template <class T>
struct LaneSums {
  T lane[kLanes] = {};

  void add(int64_t i, T x) { lane[i % kLanes] += x; }
  void add_product(int64_t i, T a, T b) { lane[i % kLanes] = std::fma(a, b, lane[i % kLanes]); }
  T fold() const {
    T x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = lane[i];
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) x[i] += x[i + half];
    return x[0];
  }
};

}  // namespace ponder::kernels
