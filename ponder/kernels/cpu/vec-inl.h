// Sixteen lanes, whatever the vector: rule R2 of backend.h and the functions of math.h, in SIMD. Compiled once per
// target; include it after hwy/foreach_target.h.
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

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3
#define PONDER_PARTS(x) \
  { {x(0)} }
constexpr int kParts = 1;
#elif HWY_TARGET == HWY_AVX2
#define PONDER_PARTS(x) \
  { {x(0), x(1)} }
constexpr int kParts = 2;
#else
#define PONDER_PARTS(x) \
  { {x(0), x(1), x(2), x(3)} }
constexpr int kParts = 4;
#endif

using Df = hn::FixedTag<float, kLanes / kParts>;
using Di = hn::FixedTag<int32_t, kLanes / kParts>;
using Du = hn::FixedTag<uint32_t, kLanes / kParts>;
constexpr int kWidth = kLanes / kParts;

// The parts are always named by constants (no loop over them), or GCC keeps them in memory.
template <class Part>
struct Lanes16 {
  Part part[kParts];
};
using F16 = Lanes16<hn::Vec<Df>>;
using I16 = Lanes16<hn::Vec<Di>>;
using U16 = Lanes16<hn::Vec<Du>>;
using M16 = Lanes16<hn::Mask<Df>>;

#define PONDER_OP1(R, name, A, expr)                       \
  HWY_INLINE R name(const A& a) {                          \
    return PONDER_PARTS([&](int i) HWY_ATTR { expr }); \
  }
#undef PONDER_OP1

// f(integral_constant 0) .. f(integral_constant n - 1), unrolled from the start so that arrays indexed by them become
// registers.
template <int n, class F>
HWY_INLINE void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) HWY_ATTR {
    (f(std::integral_constant<int, i>()), ...);
  }(std::make_integer_sequence<int, n>());
}
