#include "ponder/train/data.h"

#include <algorithm>
#include <numeric>

#include "ponder/base/rng.h"

namespace ponder::train {

BatchPlan plan_batches(const TextSet& texts, int64_t batch_tokens, bool group_by_length, uint64_t seed,
                       uint64_t epoch) {
  const int64_t n = texts.size();
  CounterRng rng(seed, Stream::batches, epoch);
  BatchPlan plan;
  plan.order.resize(static_cast<size_t>(n));
  plan.offsets = {0};
  std::iota(plan.order.begin(), plan.order.end(), 0);
  rng.shuffle(plan.order);
  const auto length = [&](int32_t i) { return static_cast<int64_t>(texts.text(i).size()); };
  if (!group_by_length) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t l = length(plan.order[static_cast<size_t>(i)]);
      if (sum > 0 && sum + l > batch_tokens) {
        plan.offsets.push_back(i);
        sum = 0;
      }
      sum += l;
    }
    if (n > 0) plan.offsets.push_back(n);
    return plan;
  }
  const int64_t window =
      std::max<int64_t>(1, 64 * batch_tokens * n / std::max<int64_t>(1, static_cast<int64_t>(texts.ids.size())));
  std::vector<std::vector<int32_t>> batches;
  std::vector<int32_t> out;
  for (int64_t begin = 0; begin < n; begin += window) {
    const int64_t end = std::min(n, begin + window);
    std::stable_sort(plan.order.begin() + begin, plan.order.begin() + end,
                     [&](int32_t a, int32_t b) { return length(a) < length(b); });
    batches.clear();
    for (int64_t i = begin; i < end; ++i) {
      const int32_t text = plan.order[static_cast<size_t>(i)];
      if (batches.empty() || static_cast<double>(static_cast<int64_t>(batches.back().size() + 1) * length(text)) >
                                 1.1 * static_cast<double>(batch_tokens))
        batches.emplace_back();
      batches.back().push_back(text);
    }
    rng.shuffle(batches);
    for (const auto& b : batches) {
      out.insert(out.end(), b.begin(), b.end());
      plan.offsets.push_back(static_cast<int64_t>(out.size()));
    }
  }
  plan.order = std::move(out);
  return plan;
}

PackedTexts pack_wrapped(const TextSet& texts, int64_t length, int32_t separator) {
  PackedTexts p;
  for (int64_t i = 0; i < texts.size(); ++i) {
    const auto t = texts.text(i);
    p.ids.insert(p.ids.end(), t.begin(), t.end());
    p.ids.push_back(separator);
  }
  const int64_t n = static_cast<int64_t>(p.ids.size());
  p.offsets.push_back(0);
  for (int64_t end = std::min(length, n); p.offsets.back() < n; end = std::min(end + length, n)) {
    if (end - p.offsets.back() < 2) {
      p.ids.resize(static_cast<size_t>(p.offsets.back()));
      break;
    }
    p.offsets.push_back(end);
  }
  return p;
}

}  // namespace ponder::train
