// Loads and stores of the first floats of one vector, for the ends of rows. Highway's masked ones read and write back the
// other lanes' memory, too, where the CPU has no masks (NEON): beyond the end of a page, or where another thread writes.
// Compiled once per target: include it after hwy/foreach_target.h.
#if defined(PONDER_KERNELS_CPU_ENDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PONDER_KERNELS_CPU_ENDS_INL_H_
#undef PONDER_KERNELS_CPU_ENDS_INL_H_
#else
#define PONDER_KERNELS_CPU_ENDS_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {

// n may be beyond both ends of the vector; lanes from n on are 0.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_first(D d, const float* p, int64_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_ARCH_X86
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n < 0 ? 0 : n)), d, p);
#else
  if (n >= static_cast<int64_t>(hn::MaxLanes(d))) return hn::LoadU(d, p);
  float buffer[hn::MaxLanes(d)] = {};
  if (n > 0) std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
  return hn::LoadU(d, buffer);
#endif
}
template <class D>
HWY_INLINE void store_first(hwy::HWY_NAMESPACE::Vec<D> x, D d, float* p, int64_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_ARCH_X86
  hn::BlendedStore(x, hn::FirstN(d, static_cast<size_t>(n < 0 ? 0 : n)), d, p);
#else
  if (n >= static_cast<int64_t>(hn::MaxLanes(d))) return hn::StoreU(x, d, p);
  float buffer[hn::MaxLanes(d)];
  hn::StoreU(x, d, buffer);
  if (n > 0) std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
#endif
}

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // PONDER_KERNELS_CPU_ENDS_INL_H_
