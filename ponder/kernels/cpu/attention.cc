// Attention over pages, and its gradient. A block of rows is up to kTileRows (query, head) pairs that share a kv head:
// they read the same keys, so that many queries of one head and many heads of one query are the same work.
#include <algorithm>

#include "ponder/kernels/cpu/kernels.h"
#include "ponder/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ponder/kernels/cpu/attention.cc"
#include "hwy/foreach_target.h"
#include "ponder/kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace {

static_assert(kAttentionRows % kLanes == 0 && kTileRows <= kLanes);

void store_kv(const StoreKv& a, int64_t begin, int64_t end) {
  const int64_t dk = a.layout.dk, dv = a.layout.dv;
  for (int64_t s = begin; s < end; ++s) {
    const Span& piece = a.spans[static_cast<size_t>(s)];
    const int64_t slot = piece.position % kPageSize;
    float* page = a.pages + piece.pages[piece.position / kPageSize] * a.layout.page_floats();
    for (int64_t h = 0; h < a.layout.kv_heads; ++h) {
      float* keys = page + h * a.layout.head_floats() + slot;
      transpose(a.k + piece.row * a.ldk + h * dk, a.ldk, piece.count, dk, keys, kPageSize);
      float* values = page + h * a.layout.head_floats() + dk * kPageSize + slot * dv;
      for (int64_t j = 0; j < piece.count; ++j)
        std::copy_n(a.v + (piece.row + j) * a.ldv + h * dv, dv, values + j * dv);
    }
  }
}

// Asks for n floats that will be read soon.
HWY_INLINE void prefetch(const float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(float))) __builtin_prefetch(p + i);
}

// s = the raw scores of one row. Scales them and returns their maximum with `max`.
HWY_INLINE float scale_and_max(float* s, int64_t visible, float scale, float max) {
  F16 lane_max = set(-constants::kInf);
  for_lanes(visible, [&](int64_t j, auto n) PONDER_LAMBDA {
    F16 x = load(s + j) * set(scale);
    if constexpr (!std::is_same_v<decltype(n), Index<kLanes>>) x = select(first_n(n), x, set(-constants::kInf));
    store(x, s + j);
    lane_max = max_of(x, lane_max);
  });
  const float row_max = fold_max(lane_max);
  return row_max > max ? row_max : max;
}

// s = exp(s - max), 0 beyond the visible keys; returns the sum.
HWY_INLINE float exp_and_sum(float* s, int64_t visible, float max) {
  F16 sum = set(0.f);
  for_lanes(visible, [&](int64_t j, auto n) PONDER_LAMBDA {
    F16 p = exp_bounded(load(s + j) - set(max));
    if constexpr (!std::is_same_v<decltype(n), Index<kLanes>>) p = zero_unless(first_n(n), p);
    store(p, s + j);
    sum = sum + p;  // of numbers >= 0, which the zeros beyond the visible keys do not change
  });
  return fold_sum(sum);
}

// The rows of a task.
struct Block {
  Block(const Attention& attention, const Span& its_span, int64_t head, int64_t begin, int64_t end)
      : a(attention), span(its_span), kv_head(head), first(begin), rows(static_cast<int>(end - begin)) {
    const int64_t group = a.heads / a.layout.kv_heads;
    for (int r = 0; r < rows; ++r) {
      const int64_t i = (begin + r) / group, h = kv_head * group + (begin + r) % group;
      position[r] = span.position + i;
      q[r] = a.q + (span.row + i) * a.ldq + h * a.layout.dk;
      o[r] = a.out + (span.row + i) * a.ldo + h * a.layout.dv;
    }
  }
  int64_t pages() const { return position[rows - 1] / kPageSize + 1; }
  const float* keys(int64_t page) const {
    return a.pages + span.pages[page] * a.layout.page_floats() + kv_head * a.layout.head_floats();
  }
  const float* values(int64_t page) const { return keys(page) + a.layout.dk * kPageSize; }
  // Positions ascend: the first row that sees a page, and how many of its keys a row that does sees.
  int first_row(int64_t page, int from) const {
    while (position[from] < page * kPageSize) ++from;
    return from;
  }
  int visible(int r, int64_t page) const {
    return static_cast<int>(std::min<int64_t>(kPageSize, position[r] + 1 - page * kPageSize));
  }
  // Raw scores of rows [r0, r0 + n) with the keys of a page.
  void tile_scores(int r0, int n, int64_t page, float* s) const {
    Rows x;
    for (int r = 0; r < n; ++r) x.x[r] = q[r0 + r];
    scores(x, n, keys(page), a.layout.dk, visible(r0 + n - 1, page), s);
  }
  // o = o * decay + p . values, in columns [begin, end).
  void tile_values(int r0, int n, int64_t page, const float* p, const float* decay, int64_t begin, int64_t end) const {
    Chains t;
    t.w = p;
    for (int r = 0; r < n; ++r) {
      t.y[r] = o[r0 + r] + begin;
      t.begin[r] = 0;
      t.end[r] = visible(r0 + r, page);
      t.decay[r] = decay[r];
    }
    chains<false>(t, n, values(page) + begin, a.layout.dv, end - begin);
  }
  void clear(int64_t begin, int64_t end) const {
    for (int r = 0; r < rows; ++r) std::fill_n(o[r] + begin, end - begin, 0.f);
  }
  // Columns [begin, end) / sum; lse = max + log(sum), where it is asked for and the first column is among them.
  void finish(const float* max, const float* sum, int64_t begin, int64_t end) const {
    const int64_t group = a.heads / a.layout.kv_heads;
    for (int r0 = 0; r0 < rows; r0 += kLanes) {
      const int n = std::min(kLanes, rows - r0);
      const F16 l = load_n(sum + r0, n);
      float inverse[kLanes], lse[kLanes];
      store(set(1.f) / l, inverse);
      store(load_n(max + r0, n) + log(l), lse);
      for (int r = r0; r < r0 + n; ++r) {
        if (a.lse && begin == 0)
          a.lse[(span.row + (first + r) / group) * a.heads + kv_head * group + (first + r) % group] = lse[r - r0];
        for_lanes(end - begin, [&](int64_t d, auto m) PONDER_LAMBDA {
          store_n(load_n(o[r] + begin + d, m) * set(inverse[r - r0]), o[r] + begin + d, m);
        });
      }
    }
  }

  const Attention& a;
  const Span& span;
  const int64_t kv_head, first;
  const int rows;
  const float* q[kAttentionRows];
  float* o[kAttentionRows];
  int64_t position[kAttentionRows] = {};
};

void attention(const Attention& a, const Span& span, int64_t kv_head, int64_t begin, int64_t end) {
  const Block x(a, span, kv_head, begin, end);
  const int64_t dk = a.layout.dk, dv = a.layout.dv;
  float max[kAttentionRows], sum[kAttentionRows];
  alignas(64) float s[kTileRows * kPageSize];
  std::fill_n(max, kAttentionRows, -constants::kInf);
  std::fill_n(sum, kAttentionRows, 0.f);
  x.clear(0, dv);
  int first_row = 0;
  for (int64_t page = 0; page < x.pages(); ++page) {
    first_row = x.first_row(page, first_row);
    for (int r0 = first_row; r0 < x.rows; r0 += kTileRows) {
      const int n = std::min(kTileRows, x.rows - r0);
      if (page == 0)
        for (int r = r0 + n; r < std::min(r0 + 2 * n, x.rows); ++r) prefetch(x.q[r], dk);
      x.tile_scores(r0, n, page, s);
      float new_max[kLanes] = {}, page_sum[kLanes] = {}, decay[kLanes] = {};
      for (int r = 0; r < n; ++r)
        new_max[r] = scale_and_max(s + r * kPageSize, x.visible(r0 + r, page), a.scale, max[r0 + r]);
      for (int r = 0; r < n; ++r) page_sum[r] = exp_and_sum(s + r * kPageSize, x.visible(r0 + r, page), new_max[r]);
      if (page > 0) store(exp_bounded(load_n(max + r0, n) - load(new_max)), decay);
      store_n(fma(load_n(sum + r0, n), load(decay), load(page_sum)), sum + r0, n);
      store_n(load(new_max), max + r0, n);
      x.tile_values(r0, n, page, s, decay, 0, dv);
    }
  }
  x.finish(max, sum, 0, dv);
}

// ---- the same in three steps, each of which many threads can share ---------------------------------------------------
// Maxima, sums and decays are known before the first value is read, so that afterwards columns of the output are
// independent chains.
int64_t split_floats(int64_t rows, int64_t pages) { return pages * rows * (kPageSize + 3); }

struct SplitMemory {
  SplitMemory(const SplitBlock& b, const Block& x)
      : rows(x.rows),
        s(b.memory),
        page_max(s + x.pages() * rows * kPageSize),
        max(page_max + x.pages() * rows),
        sum(max + x.pages() * rows) {}
  float* scores(int64_t page, int r) const { return s + (page * rows + r) * kPageSize; }

  int64_t rows;
  float *s, *page_max, *max, *sum;  // [pages][rows]: scores of 64 keys, their maximum, that so far, sum of exponentials
};

Block block_of(const SplitBlock& b) { return {*b.attention, *b.span, b.kv_head, b.begin, b.end}; }

void split_scores(const SplitBlock& b, int64_t begin, int64_t end) {
  const Block x = block_of(b);
  const SplitMemory m(b, x);
  int first_row = 0;
  for (int64_t page = begin; page < end; ++page) {
    first_row = x.first_row(page, first_row);
    for (int r0 = first_row; r0 < x.rows; r0 += kTileRows) {
      const int n = std::min(kTileRows, x.rows - r0);
      x.tile_scores(r0, n, page, m.scores(page, r0));
      for (int r = r0; r < r0 + n; ++r)
        m.page_max[page * m.rows + r] =
            scale_and_max(m.scores(page, r), x.visible(r, page), x.a.scale, -constants::kInf);
    }
  }
}

void split_exps(const SplitBlock& b, int64_t begin, int64_t end) {
  const Block x = block_of(b);
  const SplitMemory m(b, x);
  float max[kAttentionRows];
  std::fill_n(max, kAttentionRows, -constants::kInf);
  int first_row = 0;
  for (int64_t page = 0; page < end; ++page) {
    first_row = x.first_row(page, first_row);
    for (int r = first_row; r < x.rows; ++r) {
      const int64_t at = page * m.rows + r;
      max[r] = m.page_max[at] > max[r] ? m.page_max[at] : max[r];
      if (page < begin) continue;
      m.max[at] = max[r];
      m.sum[at] = exp_and_sum(m.scores(page, r), x.visible(r, page), max[r]);
    }
  }
}

void split_values(const SplitBlock& b, int64_t begin, int64_t end) {
  const Block x = block_of(b);
  const SplitMemory m(b, x);
  float max[kAttentionRows], sum[kAttentionRows];
  std::fill_n(sum, kAttentionRows, 0.f);
  x.clear(begin, end);
  int first_row = 0;
  for (int64_t page = 0; page < x.pages(); ++page) {
    first_row = x.first_row(page, first_row);
    for (int r0 = first_row; r0 < x.rows; r0 += kTileRows) {
      const int n = std::min(kTileRows, x.rows - r0);
      const int64_t at = page * m.rows + r0;
      const F16 new_max = load_n(m.max + at, n);
      float decay[kLanes] = {};
      if (page > 0) store(exp_bounded(load_n(max + r0, n) - new_max), decay);
      store_n(fma(load_n(sum + r0, n), load(decay), load_n(m.sum + at, n)), sum + r0, n);
      store_n(new_max, max + r0, n);
      x.tile_values(r0, n, page, m.scores(page, r0), decay, begin, end);
    }
  }
  x.finish(max, sum, begin, end);
}

// ---- gradient -------------------------------------------------------------------------------------------------------
int64_t pages_of(int64_t count) { return (count + kPageSize - 1) / kPageSize; }

// Keys or values of the span, transposed page by page as `scores` wants them, with zeros up to a multiple of sixteen.
void transpose_pages(const float* x, int64_t ldx, int64_t count, int64_t d, float* out) {
  for (int64_t first = 0; first < count; first += kPageSize, out += d * kPageSize) {
    const int64_t n = std::min<int64_t>(kPageSize, count - first);
    transpose(x + first * ldx, ldx, n, d, out, kPageSize);
    const int64_t missing = -n & (kLanes - 1);
    for (int64_t i = 0; i < d && missing; ++i) std::fill_n(out + i * kPageSize + n, missing, 0.f);
  }
}

int64_t grad_scratch(const AttentionGrad& a, int64_t count) {
  return pages_of(count) * kPageSize * (a.layout.dk + a.layout.dv) + a.heads / a.layout.kv_heads * kPageSize;
}

// One head of one span.
struct Head {
  const float *q, *k, *dout, *lse;
  float *dq, *dk, *dv;
};

// p (from raw scores) and ds (from dp) of one row, 0 beyond the visible keys.
struct RowGrad {
  float scale, lse, delta;
};
HWY_INLINE void score_grad(float* p, float* ds, int64_t visible, const RowGrad& g) {
  for_lanes(visible, [&](int64_t j, auto n) PONDER_LAMBDA {
    F16 x = exp(load(p + j) * set(g.scale) - set(g.lse));
    F16 d = x * (load(ds + j) - set(g.delta)) * set(g.scale);
    if constexpr (!std::is_same_v<decltype(n), Index<kLanes>>) {
      x = zero_unless(first_n(n), x);
      d = zero_unless(first_n(n), d);
    }
    store(x, p + j);
    store(d, ds + j);
  });
}

void attention_grad(const AttentionGrad& a, const Span& span, int64_t kv_head, float* scratch) {
  const int64_t group = a.heads / a.layout.kv_heads, dk = a.layout.dk, dv = a.layout.dv, count = span.count;
  float* keys = scratch;  // [pages][dk][kPageSize]
  float* values = keys + pages_of(count) * kPageSize * dk;
  float* delta = values + pages_of(count) * kPageSize * dv;  // [group][kPageSize]
  transpose_pages(a.k + span.row * a.ldk + kv_head * dk, a.ldk, count, dk, keys);
  transpose_pages(a.v + span.row * a.ldv + kv_head * dv, a.ldv, count, dv, values);
  alignas(64) float p[kPageSize * kPageSize], ds[kPageSize * kPageSize];  // [query][key]

  for (int64_t q0 = 0; q0 < count; q0 += kPageSize) {
    const int queries = static_cast<int>(std::min<int64_t>(kPageSize, count - q0));
    // All heads at once: this is where the rows come from memory, and they are read best from end to end.
    for (int64_t r = 0; r < queries; ++r) {
      const int64_t row = span.row + q0 + r;
      prefetch(a.q + row * a.ldq + kv_head * group * dk, group * dk);
      for (int64_t g = 0; g < group; ++g) {
        const float* dout = a.dout + row * a.lddo + (kv_head * group + g) * dv;
        const float* out = a.out + row * a.ldo + (kv_head * group + g) * dv;
        F16 sum = set(0.f);
        for_lanes(
            dv, [&](int64_t i, auto n) PONDER_LAMBDA { sum = fma_n(load_n(dout + i, n), load_n(out + i, n), sum, n); });
        delta[g * kPageSize + r] = fold_sum(sum);
      }
    }
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const int64_t row = span.row + q0;
      const Head head = {.q = a.q + row * a.ldq + h * dk,
                         .k = a.k + span.row * a.ldk + kv_head * dk,
                         .dout = a.dout + row * a.lddo + h * dv,
                         .lse = a.lse + row * a.heads + h,
                         .dq = a.dq + row * a.lddq + h * dk,
                         .dk = a.dk + span.row * a.lddk + kv_head * dk,
                         .dv = a.dv + span.row * a.lddv + kv_head * dv};
      for (int r = 0; r < queries; ++r) std::fill_n(head.dq + r * a.lddq, dk, 0.f);
      for (int64_t k0 = 0; k0 <= q0; k0 += kPageSize) {
        const bool diagonal = k0 == q0;
        const int n_keys = static_cast<int>(std::min<int64_t>(kPageSize, count - k0));
        Chains t;
        std::fill_n(t.decay, kTileRows, 1.f);
        for (int r0 = 0; r0 < queries; r0 += kTileRows) {
          const int n = std::min(kTileRows, queries - r0);
          float *p_rows = p + r0 * kPageSize, *ds_rows = ds + r0 * kPageSize;
          Rows q_rows, dout_rows;
          for (int r = 0; r < n; ++r) {
            q_rows.x[r] = head.q + (r0 + r) * a.ldq;
            dout_rows.x[r] = head.dout + (r0 + r) * a.lddo;
            t.y[r] = head.dq + (r0 + r) * a.lddq;
            t.begin[r] = 0;
            t.end[r] = diagonal ? r0 + r + 1 : n_keys;
          }
          scores(q_rows, n, keys + k0 * dk, dk, t.end[n - 1], p_rows);
          scores(dout_rows, n, values + k0 * dv, dv, t.end[n - 1], ds_rows);
          for (int r = 0; r < n; ++r)
            score_grad(p_rows + r * kPageSize, ds_rows + r * kPageSize, t.end[r],
                       {.scale = a.scale,
                        .lse = head.lse[(r0 + r) * a.heads],
                        .delta = delta[(h - kv_head * group) * kPageSize + r0 + r]});
          t.w = ds_rows;
          chains<false>(t, n, head.k + k0 * a.ldk, a.ldk, dk);
        }
        for (int j0 = 0; j0 < n_keys; j0 += kTileRows) {
          const int n = std::min(kTileRows, n_keys - j0);
          for (int j = 0; j < n; ++j) {
            t.begin[j] = diagonal ? j0 + j : 0;
            t.end[j] = queries;
            t.y[j] = head.dk + (k0 + j0 + j) * a.lddk;
          }
          t.w = ds + j0;
          chains<true>(t, n, head.q, a.ldq, dk);
          for (int j = 0; j < n; ++j) t.y[j] = head.dv + (k0 + j0 + j) * a.lddv;
          t.w = p + j0;
          chains<true>(t, n, head.dout, a.lddo, dv);
        }
      }
    }
  }
}

}  // namespace

extern const AttentionKernels kAttention;
const AttentionKernels kAttention = {store_kv,   attention,    split_floats, split_scores,
                                     split_exps, split_values, grad_scratch, attention_grad};

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ponder::kernels::cpu {
const AttentionKernels& attention_kernels(Isa isa) { return PONDER_FOR_ISA(isa, kAttention); }
}  // namespace ponder::kernels::cpu
#endif
