// Any bytes as metrics.jsonl: never an exception, steps in order and each once, and what was read survives being
// written.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ponder/base/run_dir.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ponder::MetricsLog log = ponder::parse_metrics({reinterpret_cast<const char*>(data), size});
  std::string again;
  for (size_t i = 0; i < log.rows.size(); ++i) {
    if (i > 0 && log.rows[i - 1].step >= log.rows[i].step) std::abort();
    again += ponder::metrics_line(log.rows[i]) + "\n";
  }
  const ponder::MetricsLog second = ponder::parse_metrics(again);
  if (second.skipped != 0 || second.rows.size() != log.rows.size()) std::abort();
  for (size_t i = 0; i < log.rows.size(); ++i) {
    const auto &a = log.rows[i].values, &b = second.rows[i].values;
    if (log.rows[i].step != second.rows[i].step || a.size() != b.size()) std::abort();
    for (size_t k = 0; k < a.size(); ++k)
      if (a[k].first != b[k].first || (a[k].second != b[k].second && !std::isnan(a[k].second))) std::abort();
  }
  return 0;
}
