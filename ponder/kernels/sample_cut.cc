#include "ponder/kernels/sample_cut.h"

#include <algorithm>

#include "ponder/kernels/math.h"

namespace ponder::kernels {

float cut_threshold(const Cut& c, const SampleRow& params) {
  // A heap, not a sort: mostly a few tokens hold all that is wanted. A NaN would break the order, and is never drawn.
  for (int64_t i = 0; i < c.n; ++i) c.heap[i] = c.z[i] == c.z[i] ? c.z[i] : -constants::kInf;
  std::make_heap(c.heap, c.heap + c.n);
  int64_t popped = 0;
  // The i-th largest; what was popped stands at the end of the heap.
  const auto largest = [&](int64_t i) {
    for (; popped <= i; ++popped) std::pop_heap(c.heap, c.heap + c.n - popped);
    return c.heap[c.n - 1 - i];
  };
  int64_t candidates = c.n;
  double total = c.total;
  if (params.top_k > 0 && params.top_k < c.n) {
    candidates = params.top_k;
    while (candidates < c.n && largest(candidates) == largest(candidates - 1)) ++candidates;
    total = 0;
    for (int64_t i = 0; i < candidates; ++i) total += exp(largest(i) - c.max);
  }
  float threshold = largest(0);
  double mass = 0;
  for (int64_t i = 0; i < candidates; ++i) {
    const float p = exp(largest(i) - c.max);
    if (i > 0 && p < params.min_p) break;
    threshold = largest(i);
    mass += p;
    if (mass >= params.top_p * total && params.top_p < 1.f) break;
  }
  return threshold;
}

}  // namespace ponder::kernels
