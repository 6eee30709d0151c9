#include "ponder/kernels/cpu/gemm.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "ponder/kernels/cpu/gemm_micro.h"

namespace ponder::kernels::cpu {
namespace {

// Columns of a task. Its chunk of B (kDepth x columns) stays in the L2 cache: a quarter of 1 MB, or half of it where A
// is copied and every column more saves copying (2048^3, nn: 92 % of peak instead of 88).
constexpr int64_t kTaskColumns = 256, kWideColumns = 512;
// What a copied A must be worth: rows and columns that share the copy. Rows whose distance is a multiple of the page
// meet in the same few cache sets, fourteen rows in twelve ways; there a copy pays early.
constexpr int64_t kCopyRows = 256, kCopyColumns = 256, kConflict = 1024, kCopyConflictRows = 64;
constexpr int64_t kGroupRows = 112;  // of a transposed A that are copied at once: seven cache lines
// Floats of an A that is likely in memory: where it is read in place, its next strip is fetched (65536x32x256: twice as
// fast). In a cache it is near enough, and the instructions cost more than they hide (2048x96x288: 5 %).
constexpr int64_t kFar = 1 << 20;
// A task of at most so many rows reads B where it is, if a vector is a whole cache line: packing waits for memory,
// while tiles hide that behind arithmetic.
constexpr int64_t kInPlaceRows = 256;
constexpr int64_t kSharing = 8;          // strips that share the packing of the next chunk of B
constexpr int64_t kTransposeRows = 128;  // with so few, transposing B is most of the work, and waits for nothing else
// Fused multiply-adds: a product below kInline is not worth waking anyone, a task below kSmallest not worth claiming.
constexpr int64_t kInline = 384 << 10, kSmallest = 128 << 10;
// Tasks for each thread: several, so that a slower one does not keep the others waiting; fewer where each task packs its
// part of B, and the product is too small to hide that (512x2048x512: 2 %, tn 512x128x8192: 10 %).
constexpr int64_t kTasks = 4, kPackingTasks = 2, kLarge = 1 << 30;
// Tasks so large are claimed one ahead of their work. Where they take as long as a thread takes to wake, that would keep
// others waiting (decoding: 2 to 5 %).
constexpr int64_t kClaimAhead = 32 << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of a thread for what it packs. In pages of 4 KiB, which the system scatters, a chunk that fills half of the L2
// cache would lack room in some of its sets; a huge page spreads evenly.
class Scratch {
 public:
  float* get(int64_t floats) {
    if (floats > size_) {
      const size_t align = floats * sizeof(float) < kHugePage / 4 ? 64 : kHugePage;
      const size_t bytes = (floats * sizeof(float) + align - 1) / align * align;
      memory_.reset(static_cast<float*>(std::aligned_alloc(align, bytes)));
      if (!memory_) throw std::bad_alloc();
      if (align == kHugePage) madvise(memory_.get(), bytes, MADV_HUGEPAGE);
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  static constexpr size_t kHugePage = 2 << 20;
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t size_ = 0;
};

int64_t wide_columns() {
  static const int64_t columns = sysconf(_SC_LEVEL2_CACHE_SIZE) >= 1 << 20 ? kWideColumns : kTaskColumns;
  return columns;
}

// One product of a batch or group.
struct Product {
  int64_t m, k;
  const float *a, *b, *packed_b;
  float* c;
};

Product product(const Gemm& g, int64_t i) {
  Product p{g.m, g.k, g.a, g.b, nullptr, g.c + i * g.c_stride};
  if (g.packed_b) p.packed_b = g.packed_b + i * packed_size(g.n, g.k);
  if (!g.offsets) {
    p.a += i * g.a_stride;
  } else if (g.layout == Layout::tn) {
    p.k = g.offsets[i + 1] - g.offsets[i];
    p.a += g.offsets[i] * g.lda;
    p.b += g.offsets[i] * g.ldb;
    return p;
  } else {
    p.m = g.offsets[i + 1] - g.offsets[i];
    p.a += g.offsets[i] * g.lda;
    p.c += g.offsets[i] * g.ldc;
  }
  if (p.b) p.b += i * g.b_stride;
  return p;
}

// A rectangle of one C.
struct Task {
  Product p;
  int64_t m0, m1, n0, n1;
};

// The part of a task that one chunk of B serves.
struct Chunk {
  const Task* task = nullptr;  // null: none
  int64_t k0 = 0, k = 0;
};

// What the i-th of n that share a copy does of it.
Copy share_of(Copy c, int64_t i, int64_t n) {
  const int64_t units = c.end;
  c.begin = units * i / n;
  c.end = units * (i + 1) / n;
  return c;
}

void no_products(const Gemm& g, const Task& t) {  // k == 0: C = start + bias
  for (int64_t i = t.m0; i < t.m1; ++i)
    for (int64_t j = t.n0; j < t.n1; ++j) {
      float& c = t.p.c[i * g.ldc + j];
      if (!g.accumulate) c = 0.f;
      if (g.bias) c = c + g.bias[j];
    }
}

// Whether tasks of such a product copy A. A tile of fourteen transposed rows uses most of each cache line it meets and
// is as fast without (90 % at 2048^3); one of six reads every line three times (62 % without, 91 % with a copy).
bool copies_a(const Gemm& g, int64_t rows, int64_t columns, const MicroKernels& kernels) {
  if (g.layout == Layout::tn && kernels.width == 16) return false;
  const bool conflict = g.lda % kConflict == 0;
  return rows >= (conflict ? kCopyConflictRows : kCopyRows) && columns >= (conflict ? kCopyColumns / 2 : kCopyColumns);
}

// How the strips of a task's rows find A: in place, or in copies made a group of strips ahead into one of two buffers.
// Groups are single strips where rows run along k, and as wide as whole cache lines where A is transposed.
class StripsOfA {
 public:
  StripsOfA(const Gemm& g, const Product& p, const Task& t, const MicroKernels& kernels)
      : tn_(g.layout == Layout::tn),
        lda_(g.lda),
        rows_(t.m1 - t.m0),
        strips_(ceil_div(rows_, kernels.rows)),
        height_(ceil_div(rows_, strips_)),
        a_(p.a + t.m0 * (tn_ ? 1 : g.lda)),
        kernels_(kernels),
        far_(!tn_ && p.m * p.k > kFar) {
    if (!copies_a(g, rows_, t.n1 - t.n0, kernels)) return;
    group_ = tn_ ? kGroupRows / kernels.rows : 1;
    // An odd number of cache lines from row to row, or strip to strip, keeps them out of each other's cache sets.
    line_ = tn_ ? ceil_div(height_, kernels.width) * kernels.width : kDepth + 16;
    strip_ = tn_ ? kDepth * line_ + 16 : height_ * line_;
    thread_local Scratch scratch;
    buffers_ = scratch.get(2 * group_ * strip_);
  }

  int64_t count() const { return strips_; }
  int64_t begin(int64_t i) const { return std::min(rows_, i * height_); }

  // Before the first strip of a chunk of k.
  void start(int64_t k0, int64_t k) {
    k0_ = k0;
    k_ = k;
    if (buffers_) kernels_.copy(copy_of(0));
  }
  void set(Strip& s, int64_t i) const {
    s.rows = static_cast<int>(begin(i + 1) - begin(i));
    Copy& copy = s.copies[0];
    copy.begin = copy.end = 0;
    if (!buffers_) {
      s.a_row = tn_ ? 1 : lda_;
      s.a_k = tn_ ? lda_ : 1;
      s.a = a_ + begin(i) * s.a_row + k0_ * s.a_k;
      if (far_ && i + 1 < strips_) copy = copy_of(i + 1);  // only fetched: there is no buffer
      return;
    }
    s.a_row = tn_ ? 1 : line_;
    s.a_k = tn_ ? line_ : 1;
    s.a = buffer(i / group_) + i % group_ * strip_;
    if ((i / group_ + 1) * group_ >= strips_) return;
    copy = share_of(copy_of(i / group_ + 1), i % group_, group_);  // each strip does its share of the next group
  }

 private:
  float* buffer(int64_t group) const { return buffers_ + group % 2 * group_ * strip_; }
  Copy copy_of(int64_t group) const {
    const int64_t row = begin(group * group_), rows = begin((group + 1) * group_) - row;
    Copy c;
    c.from = a_ + row * (tn_ ? 1 : lda_) + k0_ * (tn_ ? lda_ : 1);
    c.from_line = lda_;
    c.size = tn_ ? rows : k_;
    c.to = buffer(group);
    c.to_line = line_;
    c.to_unit = tn_ ? strip_ : 16;
    c.width = tn_ ? height_ : buffers_ ? 16 : 64;
    c.end = (tn_ ? k_ : rows) * ceil_div(c.size, c.width);
    return c;
  }

  const bool tn_;
  const int64_t lda_, rows_, strips_, height_;
  const float* const a_;
  const MicroKernels& kernels_;
  const bool far_;                            // fetch ahead what is read in place
  int64_t group_ = 1, line_ = 0, strip_ = 0;  // floats of a line and of a strip in a copy
  float* buffers_ = nullptr;                  // null: A is read in place
  int64_t k0_ = 0, k_ = 0;
};

// How a thread's chunks find B: in place, where it is packed or few rows use it, or packed by the thread into one of two
// buffers, the next one's while the multiply-adds of the present one run.
class ChunksOfB {
 public:
  ChunksOfB(const Gemm& g, const MicroKernels& kernels) : g_(g), kernels_(kernels) {}

  void set(Strip& s, const Chunk& c, int buffer) const {
    const Task& t = *c.task;
    s.b_k = kPanel;
    if (t.p.packed_b) {
      s.b_panel = c.k * kPanel;
      s.b = packed(c);
    } else if (in_place(t)) {
      s.b_k = g_.ldb;
      s.b_panel = kPanel;
      s.b = source(c);
    } else {
      s.b_panel = panel(c);
      s.b = memory(buffer);
    }
  }
  // What is done of a chunk ahead of it: all of it, or where `to` is null, only that it is fetched.
  Copy copy_of(const Chunk& c, int buffer) const {
    Copy copy;
    if (!c.task || in_place(*c.task)) return copy;
    const Task& t = *c.task;
    const int64_t columns = t.n1 - t.n0, panels = ceil_div(columns, kPanel);
    int64_t lines = 1;
    // Memory is busy enough with few rows, which are over before what they ask for has come (4 x 2048 x 2048: 25 %).
    const int64_t few = t.p.packed_b ? kernels_.rows : g_.layout == Layout::nt ? kTransposeRows : 0;
    if (t.m1 - t.m0 <= few) return copy;
    if (t.p.packed_b) {
      copy.from = packed(c);
      copy.size = copy.from_line = panels * kPanel * c.k;
      copy.width = 64;
    } else if (g_.layout == Layout::nt) {  // to transpose it takes more registers than a tile can spare
      lines = columns;
      copy.from = source(c);
      copy.from_line = g_.ldb;
      copy.size = c.k;
      copy.width = 64;
    } else {
      lines = c.k;
      copy.from = source(c);
      copy.from_line = g_.ldb;
      copy.size = columns;
      copy.to = memory(buffer);
      copy.to_line = copy.width = kPanel;
      copy.to_unit = panel(c);
    }
    copy.end = lines * ceil_div(copy.size, copy.width);
    return copy;
  }
  void pack(const Chunk& c, int buffer) const {
    if (!c.task || c.task->p.packed_b || in_place(*c.task)) return;
    const auto pack = g_.layout == Layout::nt ? kernels_.pack_columns : kernels_.pack_rows;
    pack(source(c), g_.ldb, c.task->n1 - c.task->n0, c.k, memory(buffer), panel(c));
  }

 private:
  bool in_place(const Task& t) const {
    const int64_t most = kernels_.width == 16 ? kInPlaceRows : kernels_.rows;
    return !t.p.packed_b && g_.layout != Layout::nt && t.m1 - t.m0 <= most && (t.n1 - t.n0) % 16 == 0;
  }
  const float* packed(const Chunk& c) const {
    return c.task->p.packed_b + packed_size(g_.n, c.k0) + c.task->n0 / kPanel * c.k * kPanel;
  }
  const float* source(const Chunk& c) const {
    return c.task->p.b + (g_.layout == Layout::nt ? c.task->n0 * g_.ldb + c.k0 : c.k0 * g_.ldb + c.task->n0);
  }
  static int64_t panel(const Chunk& c) { return c.k * kPanel + 16; }  // panels should not meet in the same cache sets
  float* memory(int buffer) const {
    thread_local Scratch scratch;
    const int64_t floats = wide_columns() / kPanel * (kDepth * kPanel + 16);
    return scratch.get(2 * floats) + buffer * floats;
  }

  const Gemm& g_;
  const MicroKernels& kernels_;
};

// A thread's part of a product: the chunks of one task after another. With `ahead`, a task is claimed when the last chunk
// of the one before begins, so that its first chunk of B, too, is packed on the way.
class Worker {
 public:
  Worker(const Gemm& g, const std::vector<Task>& tasks, std::atomic<size_t>& claimed, bool ahead,
         const MicroKernels& kernels)
      : g_(g), tasks_(tasks), claimed_(claimed), ahead_(ahead), kernels_(kernels), b_(g, kernels) {}

  void run() {
    std::optional<StripsOfA> a;
    int buffer = 0;
    Chunk c = after({});
    b_.pack(c, buffer);
    while (c.task) {
      if (c.k0 == 0) a.emplace(g_, c.task->p, *c.task, kernels_);
      const bool later = !ahead_ && c.k0 + c.k == c.task->p.k;
      Chunk next = later ? Chunk{} : after(c);
      const Copy copy = b_.copy_of(next, buffer ^ 1);
      run_chunk(c, *a, buffer, copy);
      if (later) next = after(c);
      if (copy.to)
        buffer ^= 1;
      else
        b_.pack(next, buffer);
      c = next;
    }
  }

 private:
  Chunk after(const Chunk& c) {
    const auto chunk = [](const Task& t, int64_t k0) { return Chunk{&t, k0, std::min(kDepth, t.p.k - k0)}; };
    if (c.task && c.k0 + c.k < c.task->p.k) return chunk(*c.task, c.k0 + c.k);
    while (claimed_.load(std::memory_order_relaxed) < tasks_.size()) {  // a locked increment waits for all stores
      const size_t i = claimed_.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks_.size()) break;
      if (tasks_[i].p.k > 0) return chunk(tasks_[i], 0);
      no_products(g_, tasks_[i]);
    }
    return {};
  }

  void run_chunk(const Chunk& c, StripsOfA& a, int buffer, const Copy& copy_b) const {
    const Task& t = *c.task;
    Strip s;
    s.n = t.n1 - t.n0;
    s.k = c.k;
    s.ldc = g_.ldc;
    s.add = g_.accumulate || c.k0 > 0;
    s.bias = g_.bias && c.k0 + c.k == t.p.k ? g_.bias + t.n0 : nullptr;
    b_.set(s, c, buffer);
    a.start(c.k0, c.k);
    // The last strips do it: what comes earlier has left the L2 cache when it is needed.
    const int64_t strips = a.count(), sharing = std::min(strips, kSharing);
    for (int64_t i = 0; i < strips; ++i) {
      a.set(s, i);
      const int64_t share = i - (strips - sharing);
      if (share >= 0 && copy_b.end > 0) s.copies[1] = share_of(copy_b, share, sharing);
      s.c = t.p.c + (t.m0 + a.begin(i)) * g_.ldc + t.n0;
      kernels_.strip(s);
    }
  }

  const Gemm& g_;
  const std::vector<Task>& tasks_;
  std::atomic<size_t>& claimed_;
  const bool ahead_;
  const MicroKernels& kernels_;
  const ChunksOfB b_;
};

// Cuts a product into tasks of about `target` multiply-adds. Columns first: a task packs its own part of B, so rows are
// only divided as long as many of them share the packing.
void add_tasks(const Gemm& g, const Product& p, int64_t target, const MicroKernels& kernels, std::vector<Task>& tasks) {
  if (p.m == 0 || g.n == 0) return;
  const int64_t min_rows = p.packed_b ? 48 : g.layout == Layout::nt ? 128 : 64;
  const int64_t panels = ceil_div(g.n, kPanel), want = ceil_div(p.m * g.n * p.k, target);
  int64_t n_parts = ceil_div(g.n, copies_a(g, p.m, g.n, kernels) ? wide_columns() : kTaskColumns);
  const int64_t m_parts = std::clamp<int64_t>(ceil_div(want, n_parts), 1, std::max<int64_t>(1, p.m / min_rows));
  n_parts =
      std::max(n_parts, std::min(ceil_div(want, m_parts), p.packed_b ? panels : std::max<int64_t>(1, panels / 2)));
  for (int64_t j = 0; j < n_parts; ++j)
    for (int64_t i = 0; i < m_parts; ++i)
      tasks.push_back({p, p.m * i / m_parts, p.m * (i + 1) / m_parts, panels * j / n_parts * kPanel,
                       std::min(g.n, panels * (j + 1) / n_parts * kPanel)});
}

}  // namespace

int64_t packed_size(int64_t n, int64_t k) { return ceil_div(n, kPanel) * kPanel * k; }

void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) noexcept {
  static const MicroKernels& kernels = micro_kernels(supported_isas().front());
  for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, k - k0);
    kernels.pack_columns(b + k0, ldb, n, depth, packed + packed_size(n, k0), depth * kPanel);
  }
}

void gemm(const Gemm& g, ThreadPool& pool, Isa isa) noexcept {
  const MicroKernels& kernels = micro_kernels(isa);
  int64_t total = 0;
  for (int64_t i = 0; i < g.batch; ++i) {
    const Product p = product(g, i);
    total += p.m * g.n * p.k;
  }
  const bool alone = pool.size() == 1 || total < kInline;
  const int64_t parts = (g.packed_b || total >= kLarge ? kTasks : kPackingTasks) * pool.size();
  const int64_t target = alone ? total + 1 : std::max(kSmallest, total / parts);
  thread_local std::vector<Task> tasks;
  tasks.clear();
  for (int64_t i = 0; i < g.batch; ++i) add_tasks(g, product(g, i), target, kernels, tasks);
  std::atomic<size_t> claimed{0};
  const auto work = [&, list = &tasks](int64_t, int) {
    Worker(g, *list, claimed, target >= kClaimAhead, kernels).run();
  };
  if (alone) {
    work(0, 0);
  } else {
    pool.run(std::min<int64_t>(pool.size(), static_cast<int64_t>(tasks.size())), work);
  }
}

}  // namespace ponder::kernels::cpu
