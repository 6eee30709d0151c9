// Which instruction sets the fast kernels were built for and this CPU runs.
#pragma once

#include <vector>

namespace ponder::kernels::cpu {

enum class Isa { avx2, avx512, neon };

std::vector<Isa> supported_isas();  // best first; empty where the CPU has no fused multiply-add
const char* isa_name(Isa isa);      // "avx2", "avx512", "neon"

}  // namespace ponder::kernels::cpu
