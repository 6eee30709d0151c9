// exp, log and sigmoid in float, ours: the same operations in the same order here and in SIMD (cpu/vec-inl.h), so that
// a number does not depend on the C library, the compiler or the vector width. exp and log err by less than 1 ulp,
// sigmoid by less than 2.5 (math_test.cc). The polynomials are minimax fits made for this file; only fma, multiply, add
// and bit operations are used, and nothing here is a table.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ponder::kernels {

namespace constants {
// Adding 1.5 * 2^23 rounds to an integer (to nearest, ties to even), which then stands in the low bits.
constexpr float kRound = 0x1.8p23f;
constexpr float kLog2E = 0x1.715476p0f;
constexpr float kLn2Hi = 0x1.62e43p-1f, kLn2Lo = -0x1.05c61p-29f;  // hi + lo = ln 2
// exp(x) is 0 below and inf above these, and the scale below stays in range between them.
constexpr float kExpMin = -104.f, kExpMax = 89.f;
// exp(r) = 1 + r + r^2 E(r) for |r| <= ln(2) / 2
constexpr float kExp[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.123a2p-7f, 0x1.6a23ep-10f};
// log(1 + f) = f - f^2 / 2 + f^3 L(f) for 1 + f in [sqrt(1/2), sqrt(2))
constexpr float kLog[] = {0x1.555554p-2f, -0x1.000226p-2f, 0x1.99a008p-3f, -0x1.547246p-3f,
                          0x1.22da18p-3f, -0x1.0d8534p-3f, 0x1.055b8ap-3f, -0x1.38b618p-4f};
constexpr int32_t kSqrtHalfBits = 0x3f3504f3;  // sqrt(1/2)
constexpr float kSubnormal = 0x1p-126f;        // smallest normal number
constexpr float kInf = __builtin_inff();
constexpr float kNan = __builtin_nanf("");
}  // namespace constants

// x = n ln 2 + r, exp(x) = 2^n exp(r). -inf gives 0, too large inf, NaN NaN; results below 2^-126 are subnormal.
inline float exp(float x) {
  using namespace constants;
  x = x < kExpMin ? kExpMin : x;
  x = x > kExpMax ? kExpMax : x;
  const float t = std::fma(x, kLog2E, kRound);
  const float n = t - kRound;
  const float r = std::fma(n, -kLn2Lo, std::fma(n, -kLn2Hi, x));
  float e = kExp[4];
  e = std::fma(e, r, kExp[3]);
  e = std::fma(e, r, kExp[2]);
  e = std::fma(e, r, kExp[1]);
  e = std::fma(e, r, kExp[0]);
  const float y = std::fma(r * r, e, r) + 1.f;
  // 2^n in two factors, because n may be -150 or 128: only the second product rounds.
  const int32_t i = std::bit_cast<int32_t>(t) - std::bit_cast<int32_t>(kRound);
  const int32_t half = i >> 1;
  const float s1 = std::bit_cast<float>((half + 127) << 23), s2 = std::bit_cast<float>((i - half + 127) << 23);
  return y * s1 * s2;
}

// x = 2^e (1 + f). log(0) = -inf, log(inf) = inf, NaN for x < 0 and NaN.
inline float log(float x) {
  using namespace constants;
  const bool subnormal = x < kSubnormal;
  const float scaled = subnormal ? x * 0x1p24f : x;
  // Unsigned, because nobody cares what comes of a negative x, but signed overflow would be undefined.
  const int32_t i = static_cast<int32_t>(std::bit_cast<uint32_t>(scaled) - uint32_t{kSqrtHalfBits});
  const float e = static_cast<float>(i >> 23) - (subnormal ? 24.f : 0.f);
  const float f = std::bit_cast<float>((i & 0x7fffff) + kSqrtHalfBits) - 1.f;
  float p = kLog[7];
  p = std::fma(p, f, kLog[6]);
  p = std::fma(p, f, kLog[5]);
  p = std::fma(p, f, kLog[4]);
  p = std::fma(p, f, kLog[3]);
  p = std::fma(p, f, kLog[2]);
  p = std::fma(p, f, kLog[1]);
  p = std::fma(p, f, kLog[0]);
  p = std::fma(p, f, -0.5f);
  const float y = std::fma(e, kLn2Hi, f + std::fma(f * f, p, e * kLn2Lo));
  if (x > 0.f) return x == kInf ? kInf : y;
  return x == 0.f ? -kInf : kNan;
}

inline float sigmoid(float x) { return 1.f / (1.f + exp(-x)); }

}  // namespace ponder::kernels
