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
