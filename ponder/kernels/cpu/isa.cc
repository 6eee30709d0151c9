#include "ponder/kernels/cpu/isa.h"

#include "ponder/kernels/cpu/targets.h"
// After targets.h, which limits what Highway looks for.
#include "hwy/targets.h"

namespace ponder::kernels::cpu {

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
#if HWY_ARCH_X86_64
  const int64_t targets = hwy::SupportedTargets();
  if (targets & HWY_AVX3) isas.push_back(Isa::avx512);
  if (targets & HWY_AVX2) isas.push_back(Isa::avx2);
#elif HWY_ARCH_ARM_A64
  // Part of every 64-bit ARM, fused multiply-add included. Highway would ask for AES besides, which no kernel needs.
  isas.push_back(Isa::neon);
#endif
  return isas;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::neon: return "neon";
  }
  return "?";
}

}  // namespace ponder::kernels::cpu
