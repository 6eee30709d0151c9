#include "ponder/kernels/cpu/gemm_micro.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ponder/base/error.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ponder/kernels/cpu/gemm_micro.cc"
#include "hwy/foreach_target.h"
#include "ponder/kernels/cpu/ends-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
constexpr int kPanelVecs = kPanel / kWidth;
// Between so many k a tile of this height does a bit of what is not arithmetic: it reads rows of C, all of them within
// the first block, and copies a unit or two of A or B. In bursts, the same requests keep B waiting.
constexpr int64_t step_of(int rows) { return rows < 4 ? kDotBlock : rows < 8 ? 16 : 8; }
constexpr int rows_of_c(int rows) { return static_cast<int>((rows * step_of(rows) + kDotBlock - 1) / kDotBlock); }

// Tiles, in rows x vectors. One k costs rows * vectors fma, which two pipes take at two per cycle, and rows + vectors
// loads, two per cycle as well; accumulators, vectors of B and one of A must fit the registers (32, or 16 for AVX2).
// Few rows take more columns instead, so that enough independent chains hide the latency of fma.
#if HWY_TARGET == HWY_AVX3
constexpr int kRows = 14, kVecs = 2, kFewRows = 3, kFewVecs = 8;
#elif HWY_TARGET == HWY_AVX2
constexpr int kRows = 6, kVecs = 2, kFewRows = 3, kFewVecs = 4;
#else
constexpr int kRows = 6, kVecs = 4, kFewRows = 3, kFewVecs = 8;
#endif

// Does copies unit by unit from within the loop over k, where the work disappears between multiply-adds; a copy of A on
// its own costs 5 % of the time. Memory answers in 150 ns or more: a unit is asked for at least kAhead units before it
// is read, which for the first lines of a copy has been done by the copy of the lines before them. It is asked for past
// L2, where it would push out B and never be read again (2048^3, nn: 3 %).
class Copier {
 public:
  Copier(const Copy* copies, int count) : next_(copies), end_(copies + count) { start_next(); }
  int64_t steps() const {
    int64_t steps = left_;
    for (const Copy* c = next_; c < end_; ++c) steps += c->end - c->begin;
    return steps;
  }
  HWY_INLINE void step() {
    if (left_ > 0) work();
  }
  void finish() {
    while (left_ > 0) {
      if (!c_.to) left_ = 1;  // nobody needs the rest to be fetched now
      work();
    }
  }

 private:
  static constexpr int64_t kAhead = 24;

  void start_next() {
    for (; left_ == 0 && next_ < end_; ++next_) {
      left_ = next_->end - next_->begin;
      if (left_ == 0) continue;
      c_ = *next_;
      const int64_t units = (c_.size + c_.width - 1) / c_.width;
      const int64_t line = c_.begin / units, unit = c_.begin % units;
      rest_ = c_.size - unit * c_.width;
      from_ = c_.from + line * c_.from_line + unit * c_.width;
      from_next_line_ = c_.from_line - units * c_.width;
      ahead_ = 0;
      if (!c_.to) continue;
      to_ = c_.to + line * c_.to_line + unit * c_.to_unit;
      to_next_line_ = c_.to_line - units * c_.to_unit;
      ahead_ = (kAhead + units - 1) / units * c_.from_line;
    }
  }
  HWY_INLINE void work() {
    if (c_.to) {
      const D d;
      for (int64_t v = 0; v < c_.width; v += 16) __builtin_prefetch(from_ + ahead_ + v, 0, 0);
      for (int64_t v = 0; v < c_.width; v += kWidth) {
        if (v + kWidth <= rest_)
          hn::Store(hn::LoadU(d, from_ + v), d, to_ + v);  // a mask would make this load several times slower
        else
          hn::Store(load_first(d, from_ + v, rest_ - v), d, to_ + v);
      }
      to_ += c_.to_unit;
    } else {
      for (int64_t v = 0; v < c_.width; v += 16) __builtin_prefetch(from_ + v, 0, 2);
    }
    from_ += c_.width;
    rest_ -= c_.width;
    if (--left_ == 0) return start_next();
    if (rest_ > 0) return;
    rest_ = c_.size;
    from_ += from_next_line_;
    if (c_.to) to_ += to_next_line_;
  }

  const Copy *next_, *const end_;
  Copy c_;
  int64_t left_ = 0, rest_ = 0;  // units wanted; values of the present line that are not yet copied
  const float* from_ = nullptr;
  float* to_ = nullptr;
  int64_t from_next_line_ = 0, to_next_line_ = 0, ahead_ = 0;
};
void copy(const Copy& c) { Copier(&c, 1).finish(); }

// One tile: `rows` x (vecs * kWidth) of C. The accumulators must stay in registers, so every loop over them is
// unrolled. kByRow: A[i, k] lies at a + i * a_stride + k, else at a + k * a_stride + i.
#define PONDER_UNROLL _Pragma("GCC unroll 16")
#define PONDER_EACH_SUM PONDER_UNROLL for (int i = 0; i < rows; ++i) PONDER_UNROLL for (int v = 0; v < vecs; ++v)

template <int rows, int vecs, bool kByRow>
HWY_NOINLINE void tile(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT b, int64_t b_k,
                       int64_t b_panel, int64_t k, float* HWY_RESTRICT c, int64_t ldc, int64_t n, bool add,
                       const float* HWY_RESTRICT bias, const float* c_next, Copier& copier, int copies) {
  const D d;

  const float* a_rows[(rows + 2) / 3];  // three rows share a pointer: x86 adds 0, 1 or 2 strides for nothing
  PONDER_UNROLL for (int i = 0; i < rows; i += 3) a_rows[i / 3] = a + i * a_stride;
  const bool whole = n >= vecs * kWidth;
  HWY_ALIGN float total[rows * vecs * kWidth];  // the start value, then the sum of the blocks so far
  // Old values of C are copied to `total` row by row, and the rows of the tile after this one fetched to L2, as long
  // before their use as a tile takes. Rows whose distance is a multiple of the page, fourteen in twelve ways, push each
  // other out of L1, so that fetching them there and reading all at the end of the block waits (2048^3: 89 to 92 %
  // of peak instead of 91 to 94). Half a tile has no time to hide that in (16 columns: 72 instead of 75 %).
  constexpr bool kEarly = vecs >= kVecs;
  const float *c_fetch = kEarly ? c_next : c, *c_old = c;
  float* start = total;
  int c_left = rows;
  const int c_rows = add && k < kDotBlock ? rows : rows_of_c(rows);  // at a step; a short block has too few of them
  for (int64_t begin = 0; begin < k; begin += kDotBlock) {
    const int64_t end = begin + kDotBlock < k ? begin + kDotBlock : k;
    V sum[rows][vecs];
    PONDER_EACH_SUM sum[i][v] = hn::Zero(d);
    for (int64_t kk = begin; kk < end;) {
      const int64_t stop = kk + step_of(rows) < end ? kk + step_of(rows) : end;
      for (int i = 0; i < c_rows && c_left > 0; ++i, --c_left, c_fetch += ldc) {
        PONDER_UNROLL for (int v = 0; v < vecs * kWidth; v += 16)
            __builtin_prefetch(c_fetch + v, !kEarly, kEarly ? 2 : 3);
        if (!kEarly || !add) continue;
        PONDER_UNROLL for (int v = 0; v < vecs; ++v)
            hn::Store(load_first(d, c_old + v * kWidth, n - v * kWidth), d, start + v * kWidth);
        c_old += ldc;
        start += vecs * kWidth;
      }
      for (int i = 0; i < copies; ++i) copier.step();
#pragma GCC unroll 4
      for (; kk < stop; ++kk) {
        V bv[vecs];
        PONDER_UNROLL for (int v = 0; v < vecs; ++v) bv[v] =
            hn::LoadU(d, b + (v / kPanelVecs) * b_panel + (v % kPanelVecs) * kWidth);
        PONDER_UNROLL for (int i = 0; i < rows; ++i) {
          const V av = hn::Set(d, kByRow ? a_rows[i / 3][i % 3 * a_stride] : a[i]);
          PONDER_UNROLL for (int v = 0; v < vecs; ++v) sum[i][v] = hn::MulAdd(av, bv[v], sum[i][v]);
        }
        if constexpr (kByRow) {
          PONDER_UNROLL for (const float*& row : a_rows)++ row;
        } else {
          a += a_stride;
        }
        b += b_k;
      }
    }
    // Hides c and ldc from the compiler, which otherwise keeps an address for every row of C through the loop over k
    // and, out of registers, reads B from the stack (6 rows: 60 instead of 97 % of peak).
    asm("" : "+r"(c), "+r"(ldc));
    if (begin > 0 || (kEarly && add)) {
      PONDER_EACH_SUM sum[i][v] = hn::Add(hn::Load(d, total + (i * vecs + v) * kWidth), sum[i][v]);
    } else if (add) {
      PONDER_EACH_SUM sum[i][v] = hn::Add(load_first(d, c + i * ldc + v * kWidth, n - v * kWidth), sum[i][v]);
    } else {
      PONDER_EACH_SUM sum[i][v] = hn::Add(hn::Zero(d), sum[i][v]);
    }
    if (end < k) {
      PONDER_EACH_SUM hn::Store(sum[i][v], d, total + (i * vecs + v) * kWidth);
      continue;
    }
    if (bias) PONDER_EACH_SUM sum[i][v] = hn::Add(sum[i][v], load_first(d, bias + v * kWidth, n - v * kWidth));
    if (whole) {
      PONDER_EACH_SUM hn::StoreU(sum[i][v], d, c + i * ldc + v * kWidth);
    } else {
      PONDER_EACH_SUM store_first(sum[i][v], d, c + i * ldc + v * kWidth, n - v * kWidth);
    }
  }
}

using TileFn = void (*)(const float*, int64_t, const float*, int64_t, int64_t, int64_t, float*, int64_t, int64_t, bool,
                        const float*, const float*, Copier&, int);
struct TileRow {  // the tiles of one height
  TileFn full, half, few;
};
template <int rows, bool kByRow>
constexpr TileRow tile_row() {
  TileRow t{tile<rows, kVecs, kByRow>, tile<rows, kVecs / 2, kByRow>, nullptr};
  if constexpr (rows <= kFewRows) t.few = tile<rows, kFewVecs, kByRow>;
  return t;
}
template <bool kByRow, size_t... i>
constexpr std::array<TileRow, kRows> tile_rows(std::index_sequence<i...>) {
  return {tile_row<static_cast<int>(i) + 1, kByRow>()...};
}
constexpr std::array<TileRow, kRows> kTiles[2] = {tile_rows<false>(std::make_index_sequence<kRows>()),
                                                  tile_rows<true>(std::make_index_sequence<kRows>())};

void strip(const Strip& s) {
  const bool by_row = s.a_k == 1;
  const int64_t a_stride = by_row ? s.a_row : s.a_k;
  const TileRow& tiles = kTiles[by_row][static_cast<size_t>(s.rows - 1)];
  Copier copier(s.copies, 2);
  int copies = 0;  // at each step
  if (copier.steps() > 0) {
    const int64_t steps = std::max<int64_t>(1, s.n / (kVecs * kWidth) * (s.k / step_of(s.rows)));
    copies = static_cast<int>((copier.steps() + steps - 1) / steps);
  }
  for (int64_t j = 0; j < s.n;) {
    const int64_t left = s.n - j;
    int64_t width = kVecs * kWidth;
    TileFn fn = tiles.full;
    if (tiles.few && left >= kFewVecs * kWidth) {
      width = kFewVecs * kWidth;
      fn = tiles.few;
    } else if (left <= width / 2) {
      fn = tiles.half;
    }
    fn(s.a, a_stride, s.b + (j / kPanel) * s.b_panel + j % kPanel, s.b_k, s.b_panel, s.k, s.c + j, s.ldc, left, s.add,
       s.bias ? s.bias + j : nullptr, j + width < s.n ? s.c + j + width : s.c + s.rows * s.ldc, copier, copies);
    j += width;
  }
  copier.finish();
}

// Rows r, r + 4, r + 8 ... of a matrix, four values of each, as 128-bit blocks of one vector.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> load_blocks(hn::FixedTag<float, 4> d, const float* p, int64_t) {
  return hn::LoadU(d, p);
}
template <class DN>
HWY_INLINE hn::Vec<DN> load_blocks(DN d, const float* p, int64_t block_stride) {
  const hn::Half<DN> dh;
  constexpr int64_t half_blocks = static_cast<int64_t>(hn::MaxLanes(DN())) / 8;
  return hn::Combine(d, load_blocks(dh, p + half_blocks * block_stride, block_stride),
                     load_blocks(dh, p, block_stride));
}

void pack_columns(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed, int64_t panel_stride) {
  const hn::FixedTag<float, kWidth> d;
  const hn::Repartition<double, decltype(d)> dd;
  for (int64_t p = 0; p < n; p += kPanel, packed += panel_stride) {
    for (int64_t v = 0; v < kPanel; v += kWidth) {
      const float* from = b + (p + v) * ldb;
      float* to = packed + v;
      int64_t kk = 0;
      if (p + v + kWidth <= n) {
        for (; kk + 4 <= k; kk += 4) {  // transpose 4 x 4 in every 128-bit block
          const auto r0 = load_blocks(d, from + kk, 4 * ldb), r1 = load_blocks(d, from + ldb + kk, 4 * ldb);
          const auto r2 = load_blocks(d, from + 2 * ldb + kk, 4 * ldb),
                     r3 = load_blocks(d, from + 3 * ldb + kk, 4 * ldb);
          const auto l01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)),
                     u01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
          const auto l23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3)),
                     u23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
          hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, l01, l23)), d, to + (kk + 0) * kPanel);
          hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, l01, l23)), d, to + (kk + 1) * kPanel);
          hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, u01, u23)), d, to + (kk + 2) * kPanel);
          hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, u01, u23)), d, to + (kk + 3) * kPanel);
        }
      }
      for (; kk < k; ++kk)
        for (int64_t j = 0; j < kWidth; ++j) to[kk * kPanel + j] = p + v + j < n ? from[j * ldb + kk] : 0.f;
    }
  }
}

// Row after row, so that the cache reads ahead within a row; kAhead rows ahead it has to be asked.
void pack_rows(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed, int64_t panel_stride) {
  constexpr int64_t kAhead = 8;
  const D d;
  for (int64_t kk = 0; kk < k; ++kk, b += ldb) {
    for (int64_t j = 0; j < n; j += kPanel) {
      float* to = packed + j / kPanel * panel_stride + kk * kPanel;
      if (kk + kAhead < k)
        PONDER_UNROLL for (int64_t v = 0; v < kPanel; v += 16) __builtin_prefetch(b + kAhead * ldb + j + v, 0, 2);
      for (int64_t v = 0; v < kPanel; v += kWidth)
        hn::StoreU(j + kPanel <= n ? hn::LoadU(d, b + j + v) : load_first(d, b + j + v, n - j - v), d, to + v);
    }
  }
}

constexpr MicroKernels kKernels{kRows, kWidth, strip, copy, pack_columns, pack_rows};

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ponder::kernels::cpu {

const MicroKernels& micro_kernels(Isa isa) {
  switch (isa) {
#if HWY_TARGETS & HWY_AVX3
    case Isa::avx512: return N_AVX3::kKernels;
#endif
#if HWY_TARGETS & HWY_AVX2
    case Isa::avx2: return N_AVX2::kKernels;
#endif
#if HWY_TARGETS & HWY_NEON
    case Isa::neon: return N_NEON::kKernels;
#endif
    default: break;
  }
  PONDER_CHECK(false, "gemm was not built for {}", isa_name(isa));
  return HWY_STATIC_DISPATCH(kKernels);
}

}  // namespace ponder::kernels::cpu
#endif
