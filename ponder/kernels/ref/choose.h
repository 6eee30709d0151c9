// The router's choice, shared by ref/ and cpu/: a handful of comparisons per row, nothing to vectorise.
#pragma once

#include <cstdint>

#include "ponder/kernels/backend.h"

namespace ponder::kernels {

// Fills index and gates of rows [begin, end) from their scores.
void choose_experts(const Route& a, int64_t begin, int64_t end);

}  // namespace ponder::kernels
