// Sixteen lanes, whatever the vector: rule R2 of backend.h and the functions of math.h in SIMD. Compiled once per
// target: include it after hwy/foreach_target.h.
#if defined(PONDER_KERNELS_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PONDER_KERNELS_CPU_VEC_INL_H_
#undef PONDER_KERNELS_CPU_VEC_INL_H_
#else
#define PONDER_KERNELS_CPU_VEC_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <utility>

#include "hwy/highway.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/math.h"

// Behind the parameters of a lambda: part of the function around it, whatever its size. A lambda that stays a function
// of its own forces what it captured into memory.
#undef PONDER_LAMBDA
#define PONDER_LAMBDA HWY_ATTR __attribute__((always_inline))

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3
constexpr int kParts = 1;
#elif HWY_TARGET == HWY_AVX2
constexpr int kParts = 2;
#else
constexpr int kParts = 4;
#endif
constexpr int kWidth = kLanes / kParts;
using Df = hn::FixedTag<float, kWidth>;
using Di = hn::FixedTag<int32_t, kWidth>;
using Du = hn::FixedTag<uint32_t, kWidth>;

template <class Part>
struct Lanes16 {
  Part part[kParts];
#if HWY_ARCH_ARM
  // NEON's vectors have constructors. One that the compiler made for this struct would call them, but be compiled at the
  // end of the file, without the target's attributes.
  HWY_INLINE Lanes16() {}
  HWY_INLINE Lanes16(Part a, Part b, Part c, Part d) : part{a, b, c, d} {}
#endif
};
using F16 = Lanes16<hn::Vec<Df>>;
using I16 = Lanes16<hn::Vec<Di>>;
using U16 = Lanes16<hn::Vec<Du>>;
using M16 = Lanes16<hn::Mask<Df>>;

template <int i>
using Index = std::integral_constant<int, i>;

// f(Index<0>()) .. f(Index<n - 1>()), unrolled before the optimizer looks: arrays indexed by it become registers, those
// indexed in a loop stay in memory (GCC 12).
template <int n, class F>
HWY_INLINE void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) PONDER_LAMBDA { (f(Index<i>()), ...); }
  (std::make_integer_sequence<int, n>());
}
// The same, for the parts of one R.
template <class R, class F>
HWY_INLINE R parts(F&& f) {
  return [&]<int... i>(std::integer_sequence<int, i...>) PONDER_LAMBDA { return R{f(Index<i>())...}; }
  (std::make_integer_sequence<int, kParts>());
}

// ---- one operation on sixteen lanes ---------------------------------------------------------------------------------
HWY_INLINE F16 set(float x) {
  return parts<F16>([&](auto) PONDER_LAMBDA { return hn::Set(Df(), x); });
}
HWY_INLINE F16 load(const float* p) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::LoadU(Df(), p + i * kWidth); });
}
HWY_INLINE void store(const F16& a, float* p) {
  unroll<kParts>([&](auto i) PONDER_LAMBDA { hn::StoreU(a.part[i], Df(), p + i * kWidth); });
}
HWY_INLINE F16 operator+(const F16& a, const F16& b) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Add(a.part[i], b.part[i]); });
}
HWY_INLINE F16 operator-(const F16& a, const F16& b) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Sub(a.part[i], b.part[i]); });
}
HWY_INLINE F16 operator*(const F16& a, const F16& b) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Mul(a.part[i], b.part[i]); });
}
HWY_INLINE F16 operator/(const F16& a, const F16& b) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Div(a.part[i], b.part[i]); });
}
HWY_INLINE F16 operator-(const F16& a) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Neg(a.part[i]); });
}
HWY_INLINE F16 fma(const F16& a, const F16& b, const F16& c) {  // a * b + c
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::MulAdd(a.part[i], b.part[i], c.part[i]); });
}
HWY_INLINE F16 sqrt(const F16& a) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Sqrt(a.part[i]); });
}
HWY_INLINE M16 operator<(const F16& a, const F16& b) {
  return parts<M16>([&](auto i) PONDER_LAMBDA { return hn::Lt(a.part[i], b.part[i]); });
}
HWY_INLINE M16 operator>(const F16& a, const F16& b) { return b < a; }
HWY_INLINE M16 operator>=(const F16& a, const F16& b) {
  return parts<M16>([&](auto i) PONDER_LAMBDA { return hn::Ge(a.part[i], b.part[i]); });
}
HWY_INLINE M16 operator==(const F16& a, const F16& b) {
  return parts<M16>([&](auto i) PONDER_LAMBDA { return hn::Eq(a.part[i], b.part[i]); });
}
HWY_INLINE F16 select(const M16& m, const F16& yes, const F16& no) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::IfThenElse(m.part[i], yes.part[i], no.part[i]); });
}
HWY_INLINE F16 zero_unless(const M16& m, const F16& yes) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::IfThenElseZero(m.part[i], yes.part[i]); });
}
// a > b ? a : b and a < b ? a : b: b where one is NaN, which is what max_ps and min_ps of x86 say, but not all others.
HWY_INLINE F16 max_of(const F16& a, const F16& b) {
#if HWY_ARCH_X86
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Max(a.part[i], b.part[i]); });
#else
  return select(a > b, a, b);
#endif
}
HWY_INLINE F16 min_of(const F16& a, const F16& b) {
#if HWY_ARCH_X86
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::Min(a.part[i], b.part[i]); });
#else
  return select(a < b, a, b);
#endif
}

HWY_INLINE I16 as_int(const F16& a) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::BitCast(Di(), a.part[i]); });
}
HWY_INLINE F16 as_float(const I16& a) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::BitCast(Df(), a.part[i]); });
}
HWY_INLINE F16 to_float(const I16& a) {
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::ConvertTo(Df(), a.part[i]); });
}
HWY_INLINE I16 set_int(int32_t x) {
  return parts<I16>([&](auto) PONDER_LAMBDA { return hn::Set(Di(), x); });
}
HWY_INLINE I16 operator+(const I16& a, const I16& b) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::Add(a.part[i], b.part[i]); });
}
HWY_INLINE I16 operator-(const I16& a, const I16& b) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::Sub(a.part[i], b.part[i]); });
}
HWY_INLINE I16 operator&(const I16& a, const I16& b) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::And(a.part[i], b.part[i]); });
}
template <int n>
HWY_INLINE I16 shift_left(const I16& a) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::ShiftLeft<n>(a.part[i]); });
}
template <int n>
HWY_INLINE I16 shift_right(const I16& a) {
  return parts<I16>([&](auto i) PONDER_LAMBDA { return hn::ShiftRight<n>(a.part[i]); });
}

// ---- the ends of rows -----------------------------------------------------------------------------------------------
// Lanes 0 .. n - 1 (any n; all from 16 on).
HWY_INLINE M16 first_n(int64_t n) {
  return parts<M16>([&](auto i) PONDER_LAMBDA {
    const int64_t left = n - i * kWidth;
    return hn::FirstN(Df(), static_cast<size_t>(left < 0 ? 0 : left));
  });
}
// Never touches memory beyond the n floats; the other lanes are 0.
HWY_INLINE F16 load_n(const float* p, int64_t n) {
  if (n >= kLanes) return load(p);
#if HWY_ARCH_X86
  const M16 m = first_n(n);
  return parts<F16>([&](auto i) PONDER_LAMBDA { return hn::MaskedLoad(m.part[i], Df(), p + i * kWidth); });
#else
  float buffer[kLanes] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
  return load(buffer);
#endif
}
HWY_INLINE void store_n(const F16& a, float* p, int64_t n) {
  if (n >= kLanes) return store(a, p);
#if HWY_ARCH_X86
  const M16 m = first_n(n);
  unroll<kParts>([&](auto i) PONDER_LAMBDA { hn::BlendedStore(a.part[i], m.part[i], Df(), p + i * kWidth); });
#else
  float buffer[kLanes];
  store(a, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
#endif
}
// f(i, n) for the groups of sixteen in [0, size): n = kLanes for all but the last.
template <class F>
HWY_INLINE void for_lanes(int64_t size, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) f(i, Index<kLanes>());
  if (i < size) f(i, static_cast<int>(size - i));
}

// out[c][r] = x[r][c] for r < rows, c < columns.
HWY_INLINE void transpose(const float* x, int64_t ldx, int64_t rows, int64_t columns, float* out, int64_t ldo) {
  constexpr hn::FixedTag<float, 4> d4;
  constexpr hn::FixedTag<double, 2> d2;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    int64_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      const float* p = x + r * ldx + c;
      const auto x0 = hn::LoadU(d4, p), x1 = hn::LoadU(d4, p + ldx), x2 = hn::LoadU(d4, p + 2 * ldx),
                 x3 = hn::LoadU(d4, p + 3 * ldx);
      // Pairs (row 0, row 1) and (row 2, row 3) of columns 0 1 | 2 3, then both pairs of each column.
      const auto a = hn::BitCast(d2, hn::InterleaveLower(d4, x0, x1)),
                 b = hn::BitCast(d2, hn::InterleaveUpper(d4, x0, x1)),
                 e = hn::BitCast(d2, hn::InterleaveLower(d4, x2, x3)),
                 f = hn::BitCast(d2, hn::InterleaveUpper(d4, x2, x3));
      float* o = out + c * ldo + r;
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, a, e)), d4, o);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, a, e)), d4, o + ldo);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, b, f)), d4, o + 2 * ldo);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, b, f)), d4, o + 3 * ldo);
    }
    for (; c < columns; ++c)
      for (int64_t i = r; i < r + 4; ++i) out[c * ldo + i] = x[i * ldx + c];
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[c * ldo + r] = x[r * ldx + c];
}

// ---- R2 -------------------------------------------------------------------------------------------------------------
template <class Op>
HWY_INLINE float fold(const F16& a, Op&& op) {
#if HWY_TARGET == HWY_AVX3
  constexpr hn::FixedTag<float, 8> d8;
  constexpr hn::FixedTag<float, 4> d4;
  const auto eight = op(hn::LowerHalf(d8, a.part[0]), hn::UpperHalf(d8, a.part[0]));
  const auto four = op(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
#elif HWY_TARGET == HWY_AVX2
  constexpr hn::FixedTag<float, 4> d4;
  const auto eight = op(a.part[0], a.part[1]);
  const auto four = op(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
#else
  const auto four = op(op(a.part[0], a.part[2]), op(a.part[1], a.part[3]));
#endif
  const auto two = op(four, hn::Shuffle1032(four));
  return hn::GetLane(op(two, hn::Shuffle2301(two)));
}
HWY_INLINE float fold_sum(const F16& a) {
  return fold(a, [](auto x, auto y) PONDER_LAMBDA { return hn::Add(x, y); });
}
// No NaN among the lanes.
HWY_INLINE float fold_max(const F16& a) {
  return fold(a, [](auto x, auto y) PONDER_LAMBDA { return hn::Max(x, y); });
}
// sum + a and sum + a * b in the first n lanes. Adding a zero would do but for a sum of -0.
template <class N>
HWY_INLINE F16 add_n(const F16& sum, const F16& a, N n) {
  if constexpr (std::is_same_v<N, Index<kLanes>>)
    return sum + a;
  else
    return select(first_n(n), sum + a, sum);
}
template <class N>
HWY_INLINE F16 fma_n(const F16& a, const F16& b, const F16& sum, N n) {
  if constexpr (std::is_same_v<N, Index<kLanes>>)
    return fma(a, b, sum);
  else
    return select(first_n(n), fma(a, b, sum), sum);
}

// ---- math.h ---------------------------------------------------------------------------------------------------------
// exp for x <= kExpMax (or NaN).
HWY_INLINE F16 exp_bounded(F16 x) {
  using namespace constants;
  x = max_of(set(kExpMin), x);
  const F16 t = fma(x, set(kLog2E), set(kRound));
  const F16 n = t - set(kRound);
  const F16 r = fma(n, set(-kLn2Lo), fma(n, set(-kLn2Hi), x));
  F16 e = set(kExp[4]);
  e = fma(e, r, set(kExp[3]));
  e = fma(e, r, set(kExp[2]));
  e = fma(e, r, set(kExp[1]));
  e = fma(e, r, set(kExp[0]));
  const F16 y = fma(r * r, e, r) + set(1.f);
#if HWY_TARGET == HWY_AVX3
  // y * 2^n with one rounding: what the two products do, of which the first is exact.
  return {{hn::Vec<Df>{_mm512_scalef_ps(y.part[0].raw, n.part[0].raw)}}};
#else
  const I16 i = as_int(t) - as_int(set(kRound)), half = shift_right<1>(i);
  const F16 s1 = as_float(shift_left<23>(half + set_int(127)));
  const F16 s2 = as_float(shift_left<23>(i - half + set_int(127)));
  return y * s1 * s2;
#endif
}
HWY_INLINE F16 exp(const F16& x) { return exp_bounded(min_of(set(constants::kExpMax), x)); }

HWY_INLINE F16 log(const F16& x) {
  using namespace constants;
  const M16 subnormal = x < set(kSubnormal);
  const F16 scaled = select(subnormal, x * set(0x1p24f), x);
  const I16 i = as_int(scaled) - set_int(kSqrtHalfBits);
  const F16 e = to_float(shift_right<23>(i)) - zero_unless(subnormal, set(24.f));
  const F16 f = as_float((i & set_int(0x7fffff)) + set_int(kSqrtHalfBits)) - set(1.f);
  F16 p = set(kLog[7]);
  p = fma(p, f, set(kLog[6]));
  p = fma(p, f, set(kLog[5]));
  p = fma(p, f, set(kLog[4]));
  p = fma(p, f, set(kLog[3]));
  p = fma(p, f, set(kLog[2]));
  p = fma(p, f, set(kLog[1]));
  p = fma(p, f, set(kLog[0]));
  p = fma(p, f, set(-0.5f));
  F16 y = fma(e, set(kLn2Hi), f + fma(f * f, p, e * set(kLn2Lo)));
  y = select(x == set(kInf), x, y);
  return select(x > set(0.f), y, select(x == set(0.f), set(-kInf), set(kNan)));
}

HWY_INLINE F16 sigmoid(const F16& x) { return set(1.f) / (set(1.f) + exp(-x)); }

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // PONDER_KERNELS_CPU_VEC_INL_H_
