#include "ponder/kernels/cpu/weight.h"

#include <algorithm>
#include <vector>

#include "ponder/base/file.h"
#include "ponder/kernels/cpu/flush_subnormals.h"
#include "ponder/kernels/cpu/weight_format.h"
#include "ponder/kernels/cpu/weight_micro.h"
#include "ponder/kernels/cpu/weight_pack.h"
#include "ponder/kernels/ref/blocks.h"

namespace ponder::kernels::cpu {
namespace {

// A task's part of C, and kIntegerDepth of its rows, stay in the L2 cache.
constexpr int64_t kTaskRows = 256, kTaskColumns = 256;
constexpr int64_t kIntegerDepth = 1024;    // a panel so deep stays in the L1 cache while rows pass over it,
constexpr int64_t kExpandedDepth = 256;    // so much of an expanded one, too (a multiple of kDotBlock),
constexpr int64_t kPlainBytes = 64 << 10;  // and so much of a panel of plain numbers in the L2 cache
constexpr int64_t kAhead = 8192;           // bytes; where a panel is read once, the distance to what is fetched
// What work takes on one thread, about: a product below kInline is not worth waking anyone, a task below kSmallest not
// worth claiming.
constexpr int64_t kInlineNs = 3000, kSmallestNs = 1000;
constexpr int64_t kBytesPerNs = 16, kProductsPerNs = 128, kFloatsPerNs = 4;
constexpr int64_t kPackingNs = 1;  // for a byte of what is mapped

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool integers(const WeightGemm& g, BlockType type) { return g.activations == Activations::q8 && !is_plain(type); }

int64_t pair_words(int64_t k) { return (k + 1) / 2; }

// Activations as products read them. Row r of matrix i is row i * m + r (all matrices share one A where a_stride is 0);
// grouped, the row of A.
struct Prepared {
  int64_t rows = 0, matrix_rows = 0;
  QuantizedRow narrow{}, wide{};  // k is 0 where no part wants it
  std::byte *narrow_rows = nullptr, *wide_rows = nullptr;
  float* rounded = nullptr;   // [rows, k] in bf16, where a part wants it
  uint16_t* pairs = nullptr;  // [rows, pair_words(k)][2], where a pair product wants it
  size_t bytes = 0;
};
Prepared prepared(const WeightGemm& g) {
  Prepared p;
  p.matrix_rows = g.offsets || g.a_stride == 0 ? 0 : g.m;
  p.rows = g.offsets || g.a_stride == 0 ? g.m : g.m * g.batch;
  for (const WeightPart& part : g.parts) {
    if (!integers(g, part.type)) continue;
    const int width = sub_blocks(part.type).elements;
    (width == 256 ? p.wide : p.narrow) = {g.k, width};
  }
  std::byte* at = g.scratch;
  const auto take = [&](int64_t bytes) {
    std::byte* mine = at;
    p.bytes += static_cast<size_t>(bytes);
    if (at) at += bytes;
    return mine;
  };
  if (p.narrow.k) p.narrow_rows = take(p.rows * p.narrow.bytes());
  if (p.wide.k) p.wide_rows = take(p.rows * p.wide.bytes());
  if (g.activations == Activations::bf16) {
    const auto pair = [&](const WeightPart& part) { return is_pair_product(part.type, g.activations); };
    if (std::any_of(g.parts.begin(), g.parts.end(), pair))
      p.pairs = reinterpret_cast<uint16_t*>(take(ceil_div(p.rows * pair_words(g.k), 16) * 64));
    if (!std::all_of(g.parts.begin(), g.parts.end(), pair))
      p.rounded = reinterpret_cast<float*>(take(ceil_div(p.rows * g.k, 16) * 64));
  }
  return p;
}

void prepare(const WeightGemm& g, const Prepared& p, const WeightKernels& kernels, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.matrix_rows ? g.a + r / p.matrix_rows * g.a_stride + r % p.matrix_rows * g.lda : g.a + r * g.lda;
    if (p.narrow.k) kernels.quantize(x, p.narrow, p.narrow_rows + r * p.narrow.bytes());
    if (p.wide.k) kernels.quantize(x, p.wide, p.wide_rows + r * p.wide.bytes());
    if (p.rounded) kernels.round_bf16(x, g.k, p.rounded + r * g.k);
    if (p.pairs) kernels.pair_bf16(x, g.k, p.pairs + r * pair_words(g.k) * 2);
  }
}

// A rectangle of what one part gives to one matrix.
struct Task {
  const WeightPart* part;
  const std::byte* packed;
  const Quantized* mapped;  // in place of `packed`
  const float* a;           // row 0 of the matrix, as floats
  int64_t lda, row;         // and among the prepared rows
  float* c;                 // row 0, the part's column 0
  const float* bias;
  int64_t m0, m1, n0, n1;
};

// Where a thread expands a part of a panel.
float* expanded() {
  alignas(64) thread_local float memory[kExpandedDepth * kPanel];
  return memory;
}

// Strips of rows over all panels of a task, `depth` numbers along k at a time. panel(packed, k0, k1) says where strips
// read that part of a panel; place(strip, k0, k1, row) sets what only this kind of strip has; run(strip) computes it.
template <class S, class Panel, class Place, class Run>
void over_panels(const WeightGemm& g, const Task& t, int max_rows, int64_t depth, Panel&& panel, Place&& place,
                 Run&& run) {
  const BlockType type = t.part->type;
  const int64_t rows = t.m1 - t.m0, strips = ceil_div(rows, max_rows), stride = panel_bytes(type, g.k);
  const int64_t ahead_step = ceil_div(depth_bytes(type, 256) * S::kAheadNumbers / 256, strips);
  S s{};
  s.ldc = g.ldc;
  for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
    const int64_t k1 = std::min(g.k, k0 + depth);
    s.add = k0 > 0;
    for (int64_t j = t.n0; j < t.n1; j += kPanel) {
      const std::byte* packed = t.packed + j / kPanel * stride;
      s.w = panel(packed, k0, k1);
      s.n = std::min<int64_t>(kPanel, t.n1 - j);
      s.bias = t.bias && k1 == g.k ? t.bias + j : nullptr;
      // Next comes the panel beside this one, or the first one further down; alone, the same one further down.
      const bool last = j + kPanel >= t.n1, end = last && k1 == g.k;
      s.ahead = packed + depth_bytes(type, k0) + kAhead;
      if (strips > 1)
        s.ahead = last ? t.packed + t.n0 / kPanel * stride + depth_bytes(type, end ? 0 : k1)
                       : packed + stride + depth_bytes(type, k0);
      s.ahead_step = strips > 1 && end ? 0 : ahead_step;
      for (int64_t i = 0; i < strips; ++i) {  // of equal height, to within one row
        const int64_t m0 = t.m0 + rows * i / strips, m1 = t.m0 + rows * (i + 1) / strips;
        s.rows = static_cast<int>(m1 - m0);
        s.c = t.c + m0 * g.ldc + j;
        place(s, k0, k1, m0);
        run(s);
        s.ahead += (k1 - k0) / S::kAheadNumbers * s.ahead_step;
      }
    }
  }
}

void integer_task(const WeightGemm& g, const Prepared& p, const Task& t, const WeightKernels& kernels) {
  const BlockType type = t.part->type;
  const int width = sub_blocks(type).elements, rows = kernels.integer_rows;
  const QuantizedRow layout = width == 256 ? p.wide : p.narrow;
  const std::byte* a = (width == 256 ? p.wide_rows : p.narrow_rows) + t.row * layout.bytes();
  over_panels<IntegerStrip>(
      g, t, rows, t.m1 - t.m0 <= rows ? g.k : kIntegerDepth,
      [&](const std::byte* packed, int64_t k0, int64_t) { return packed + depth_bytes(type, k0); },
      [&](IntegerStrip& s, int64_t k0, int64_t k1, int64_t row) {
        s.a = a + row * layout.bytes();
        s.layout = layout;
        s.begin = k0 / width;
        s.end = k1 / width;
      },
      [&](const IntegerStrip& s) { kernels.integer_strip(type, s); });
}

void float_task(const WeightGemm& g, const Prepared& p, const Task& t, const WeightKernels& kernels) {
  const BlockType type = t.part->type;
  const bool pairs = is_pair_product(type, g.activations);
  const FlushSubnormals flush(pairs);
  // FP8 costs so much to widen that few rows are enough to do it once.
  const int rows = kernels.plain_rows;
  const bool once = t.m1 - t.m0 <= rows, expand = !is_plain(type) || (type == BlockType::fp8 && !once);
  const int64_t block = pairs ? kPairBlock : kDotBlock;
  const int64_t depth = expand ? kExpandedDepth
                        : once ? g.k
                               : std::max(block, kPlainBytes / depth_bytes(type, block) * block);
  const float* scales = nullptr;
  over_panels<PlainStrip>(
      g, t, rows, depth,
      [&](const std::byte* packed, int64_t k0, int64_t k1) {
        if (expand) {
          kernels.expand(type, packed, g.k, k0, k1, expanded());
          return reinterpret_cast<const std::byte*>(expanded());
        }
        scales = reinterpret_cast<const float*>(packed + depth_bytes(type, g.k)) + k0 / kScaleBlock * kPanel;
        return packed + depth_bytes(type, k0);
      },
      [&](PlainStrip& s, int64_t k0, int64_t k1, int64_t row) {
        if (pairs) {
          s.lda = pair_words(g.k);
          s.a = p.pairs + ((t.row + row) * s.lda + k0 / 2) * 2;
        } else {
          s.a = t.a + row * t.lda + k0;
          s.lda = t.lda;
        }
        s.k = k1 - k0;
        s.scales = scales;
      },
      [&](const PlainStrip& s) {
        pairs ? kernels.pair_strip(s) : kernels.plain_strip(expand ? BlockType::f32 : type, s);
      });
}

// `panel`: where this thread packs what is mapped, a panel for all rows of the task at a time.
void run_task(const WeightGemm& g, const Prepared& p, const Task& t, const WeightKernels& kernels, std::byte* panel) {
  if (!t.mapped) return integers(g, t.part->type) ? integer_task(g, p, t, kernels) : float_task(g, p, t, kernels);
  // All at once: what nobody has asked the disk for yet would come a few pages at a time.
  want_pages(t.mapped->row(t.n0), static_cast<size_t>((t.n1 - t.n0) * t.mapped->row_bytes));
  for (int64_t j = t.n0; j < t.n1; j += kPanel) {
    Task one = t;
    one.n0 = 0;
    one.n1 = std::min<int64_t>(kPanel, t.n1 - j);
    pack_weights(t.mapped->row_range(j, one.n1), nullptr, panel);
    one.packed = panel;
    one.mapped = nullptr;
    one.c += j;
    if (one.bias) one.bias += j;
    run_task(g, p, one, kernels, nullptr);
  }
}

// Of the largest panel that is packed while a product runs; 0: none is.
size_t mapped_panel_bytes(const WeightGemm& g) {
  size_t bytes = 0;
  for (const WeightPart& part : g.parts)
    if (part.mapped) bytes = std::max(bytes, packed_weight_bytes(part.type, kPanel, g.k));
  return bytes;
}

// What m rows times n columns of a part take, in ns of one thread.
int64_t duration(const WeightGemm& g, const WeightPart& part, int64_t m, int64_t n) {
  const int64_t bytes = panel_bytes(part.type, g.k) / kPanel * n;
  const int64_t packing = part.mapped ? bytes * kPackingNs : 0;
  return packing +
         std::max(bytes / kBytesPerNs, m * n * g.k / (integers(g, part.type) ? kProductsPerNs : kProductsPerNs / 2));
}

// f(part, rows, task of the whole part) for every part of every matrix.
template <class F>
void each_part(const WeightGemm& g, const Prepared& p, F&& f) {
  for (int64_t i = 0; i < g.batch; ++i) {
    const int64_t row = g.offsets ? g.offsets[i] : 0, m = g.offsets ? g.offsets[i + 1] - row : g.m;
    Task t{};
    t.row = g.offsets ? row : i * p.matrix_rows;
    t.a = p.rounded ? p.rounded + t.row * g.k : g.a + (g.offsets ? row * g.lda : i * g.a_stride);
    t.lda = p.rounded ? g.k : g.lda;
    t.c = g.c + (g.offsets ? row * g.ldc : i * g.c_stride);
    t.bias = g.bias;
    t.m1 = m;
    for (const WeightPart& part : g.parts) {
      t.part = &part;
      t.packed = part.packed + i * part.stride;
      t.mapped = part.mapped ? part.mapped + i : nullptr;
      t.n1 = part.n;
      if (m > 0 && part.n > 0) f(t);
      t.c += part.n;
      if (t.bias) t.bias += part.n;
    }
  }
}

// Columns first: every task reads its own weights. Rows are divided where there are many.
void add_tasks(const WeightGemm& g, const Task& whole, int64_t target, std::vector<Task>& tasks) {
  const int64_t m = whole.m1, n = whole.n1, panels = ceil_div(n, kPanel);
  const int64_t want = ceil_div(duration(g, *whole.part, m, n), target);
  const int64_t m_parts = ceil_div(m, kTaskRows);
  const int64_t n_parts = std::max(ceil_div(n, kTaskColumns), std::min(panels, ceil_div(want, m_parts)));
  for (int64_t i = 0; i < m_parts; ++i)
    for (int64_t j = 0; j < n_parts; ++j) {
      Task t = whole;
      t.m0 = m * i / m_parts;
      t.m1 = m * (i + 1) / m_parts;
      t.n0 = panels * j / n_parts * kPanel;
      t.n1 = std::min(n, panels * (j + 1) / n_parts * kPanel);
      tasks.push_back(t);
    }
}

}  // namespace

size_t weight_gemm_scratch(const WeightGemm& g, const ThreadPool& pool) {
  return prepared(g).bytes + static_cast<size_t>(pool.size()) * mapped_panel_bytes(g);
}

void weight_gemm(const WeightGemm& g, ThreadPool& pool, Isa isa) noexcept {
  const WeightKernels& kernels = weight_kernels(isa);
  const Prepared p = prepared(g);
  if (p.bytes > 0) {
    const int64_t rows = g.offsets ? g.offsets[g.batch] : p.rows;
    const int64_t grain = std::max<int64_t>(1, kSmallestNs * kFloatsPerNs / std::max<int64_t>(1, g.k));
    if (pool.size() == 1 || rows * g.k < kInlineNs * kFloatsPerNs || rows <= grain)
      prepare(g, p, kernels, 0, rows);
    else
      pool.run_ranges(rows, std::max(grain, rows / (4 * pool.size())),
                      [&](int64_t begin, int64_t end, int) { prepare(g, p, kernels, begin, end); });
  }
  int64_t total = 0;
  each_part(g, p, [&](const Task& t) { total += duration(g, *t.part, t.m1, t.n1); });
  const bool alone = pool.size() == 1 || total < kInlineNs;
  const int64_t target = alone ? total + 1 : std::max(kSmallestNs, total / (4 * pool.size()));
  thread_local std::vector<Task> tasks;
  tasks.clear();
  each_part(g, p, [&](const Task& t) { add_tasks(g, t, target, tasks); });
  std::byte* const panels = g.scratch + p.bytes;
  const size_t panel = mapped_panel_bytes(g);
  if (alone) {
    for (const Task& t : tasks) run_task(g, p, t, kernels, panels);
  } else {
    pool.run(static_cast<int64_t>(tasks.size()), [&, list = tasks.data()](int64_t i, int thread) {
      run_task(g, p, list[i], kernels, panels + static_cast<size_t>(thread) * panel);
    });
  }
}

}  // namespace ponder::kernels::cpu
