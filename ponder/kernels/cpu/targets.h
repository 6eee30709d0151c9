// Included before anything of Highway: the targets that the kernels are compiled for. Only those with fused
// multiply-add, because fma is part of the definition of every sum. Declaring AVX2 the baseline leaves out SSE; nothing
// of it runs before supported_isas() has asked the CPU.
#pragma once

#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_AVX2
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
// The object `name` of the namespace compiled for `isa`.
#define PONDER_FOR_ISA(isa, name) ((isa) == Isa::avx512 ? N_AVX3::name : N_AVX2::name)
#elif defined(__aarch64__)
#define HWY_DISABLED_TARGETS (~HWY_NEON)
#define PONDER_FOR_ISA(isa, name) (N_NEON::name)
#endif
