#include "ponder/app/paging.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "ponder/app/machine.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"

namespace ponder::app {
namespace {

// As many at once as a layer would ask for, about: disks are faster then.
constexpr size_t kAtOnce = 16, kBytesAtOnce = size_t{32} << 20;
constexpr int kRounds = 16;
constexpr double kSeconds = 0.4;
constexpr int64_t kPanelRows = 32;  // what the kernels pack at a time

struct Bytes {
  const std::byte* begin;
  size_t count;
};
size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Those that would have to come from the disk.
size_t absent_bytes(const Bytes& b) {
  const size_t page = page_size(), lead = reinterpret_cast<uintptr_t>(b.begin) % page, bytes = b.count + lead;
  std::vector<unsigned char> present((bytes + page - 1) / page);
  if (mincore(const_cast<std::byte*>(b.begin - lead), bytes, present.data()) != 0) return 0;
  return page * static_cast<size_t>(std::count_if(present.begin(), present.end(), [](int x) { return !(x & 1); }));
}

void touch(const Bytes& b) {
  for (size_t i = 0; i < b.count; i += page_size())
    static_cast<void>(*static_cast<const volatile std::byte*>(b.begin + i));
}

struct Rates {
  double disk = 0, packing = 0;
};

Rates measure(const std::vector<const ops::Slice*>& experts, const model::WeightSource& source,
              const kernels::Backend& backend) {
  CounterRng random(static_cast<uint64_t>(seconds_now() * 1e3), 0);  // others than last time, which are in memory now
  ThreadPool& pool = backend.pool();
  double read = 0, read_seconds = 0, packing = 0;
  const double start = seconds_now();
  for (int round = 0; round < 2 || (round < kRounds && seconds_now() - start < kSeconds); ++round) {
    std::vector<Quantized> pieces, panels;
    size_t absent = 0, all = 0, panel_bytes = 0;
    while (pieces.empty() || (pieces.size() < kAtOnce && all < kBytesAtOnce)) {
      const Quantized w = source.find(experts[random.next_u32() % experts.size()]->name).matrix;
      pieces.push_back(w);
      const Bytes bytes{w.data, static_cast<size_t>(w.rows * w.row_bytes)};
      absent += absent_bytes(bytes);
      all += bytes.count;
      panel_bytes = std::max(panel_bytes, backend.packed_weight_bytes(w.type, kPanelRows, w.cols));
      for (int64_t r = 0; r < w.rows; r += kPanelRows)
        panels.push_back(w.row_range(r, std::min(kPanelRows, w.rows - r)));
    }
    const double before = seconds_now();
    for (const Quantized& w : pieces) want_pages(w.data, static_cast<size_t>(w.rows * w.row_bytes));
    for (const Quantized& w : pieces) touch({w.data, static_cast<size_t>(w.rows * w.row_bytes)});
    const double between = seconds_now();
    if (absent > all / 2) read += static_cast<double>(absent), read_seconds += between - before;
    const Buffer scratch(panel_bytes * static_cast<size_t>(pool.size()));
    pool.run(static_cast<int64_t>(panels.size()), [&](int64_t i, int thread) {
      backend.pack_weights(panels[static_cast<size_t>(i)], nullptr,
                           static_cast<std::byte*>(scratch.data()) + static_cast<size_t>(thread) * panel_bytes);
    });
    packing = std::max(packing, static_cast<double>(all) / (seconds_now() - between));
  }
  return {read_seconds > 0 ? read / read_seconds : 0, packing};
}

}  // namespace

PagedSpeed measure_paged_speed(const model::WeightSource& source, const kernels::Backend& backend, int64_t room) {
  const model::ModelOptions options{.stored = true, .declare_only = true, .mtp = false};
  const WeightNeeds needs = weight_needs(source, backend, options);
  const model::Model declared(source.config(), options);
  std::vector<const ops::Slice*> experts;
  for (const ops::Param& p : declared.params().list())
    if (p.routed)
      for (const ops::Slice& s : p.slices) experts.push_back(&s);
  const Rates rates = measure(experts, source, backend);
  PagedSpeed s;
  s.packed_share = std::min(1., static_cast<double>(room) / static_cast<double>(needs.routed_packed));
  s.token_bytes = (1 - s.packed_share) * (needs.read(1) - needs.dense);
  s.disk = rates.disk;
  s.packing = rates.packing;
  const double fast =
      (needs.read(1) - s.token_bytes) / measure_read_bandwidth(backend.pool()) + s.token_bytes / s.packing;
  s.fastest = 1 / fast;
  s.slowest = s.disk > 0 ? 1 / (fast + s.token_bytes / s.disk) : s.fastest;
  return s;
}

std::string paged_speed_text(const PagedSpeed& s) {
  const std::string bytes = format_bytes(static_cast<uint64_t>(s.token_bytes));
  const std::string memory =
      fmt::format("{:.0f} % of the experts in memory, the others in the file, of which a token needs {}",
                  100 * s.packed_share, bytes);
  if (s.disk == 0)
    return fmt::format(
        "{}: at best {:.2g} tokens/s (the disk's speed is unknown: what was tried was in memory already)", memory,
        s.fastest);
  return fmt::format("{}: {:.2g} tokens/s if all of that comes from the disk ({:.2f} GB/s), {:.2g} if none does",
                     memory, s.slowest, 1e-9 * s.disk, s.fastest);
}

}  // namespace ponder::app
