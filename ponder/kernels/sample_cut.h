// top-k, top-p and min-p as one number: the smallest scaled logit that may still be drawn.
#pragma once

#include <cstdint>

#include "ponder/kernels/backend.h"

namespace ponder::kernels {

inline bool cuts(const SampleRow& p) { return p.top_k > 0 || p.top_p < 1.f || p.min_p > 0.f; }

// z[0, n): the scaled logits of one row, `max` their maximum, `total` the sum of exp(z - max); `heap` [n] is scratch.
// In this order: the top_k largest; of those the fewest, largest first, that hold top_p of their probability; of those
// the ones with at least min_p of the largest one's. Whatever equals the smallest that is kept is kept too.
struct Cut {
  const float* z;
  int64_t n;
  float max, total;
  float* heap;
};
float cut_threshold(const Cut& c, const SampleRow& params);

}  // namespace ponder::kernels
