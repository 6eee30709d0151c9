#include "ponder/kernels/sample_cut.h"

#include <algorithm>
#include <functional>

#include "ponder/kernels/math.h"

namespace ponder::kernels {

float cut_threshold(const float* z, int64_t n, const SampleRow& params, float* sorted) {
  // A NaN would break the order of std::sort, and is never drawn.
  for (int64_t i = 0; i < n; ++i) sorted[i] = z[i] == z[i] ? z[i] : -constants::kInf;
  std::sort(sorted, sorted + n, std::greater<>());
  int64_t kept = n;
  if (params.top_k > 0 && params.top_k < n) {
    kept = params.top_k;
    while (kept < n && sorted[kept] == sorted[kept - 1]) ++kept;
  }
  if (params.top_p < 1.f) {
    double total = 0;
    for (int64_t i = 0; i < kept; ++i) total += exp(sorted[i] - sorted[0]);
    double mass = 0;
    int64_t i = 0;
    do mass += exp(sorted[i] - sorted[0]);
    while (++i < kept && mass < params.top_p * total);
    kept = i;
  }
  if (params.min_p > 0.f)
    while (kept > 1 && exp(sorted[kept - 1] - sorted[0]) < params.min_p) --kept;
  return sorted[kept - 1];
}

}  // namespace ponder::kernels
