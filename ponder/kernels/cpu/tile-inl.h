// The two register-blocked products of attention, for a few rows at a time:
//   scores   S[r, j] = x_r . key_j   over keys stored transposed, [depth][kPageSize]   (rule R1; lanes across keys)
//   chains   Y[r, c] = sum_j W[r, j] M[j, c], one chain of fma over j                  (lanes across the columns of M)
// where each row has its own range of j, because attention is causal. Compiled once per target.
#if defined(PONDER_KERNELS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PONDER_KERNELS_CPU_TILE_INL_H_
#undef PONDER_KERNELS_CPU_TILE_INL_H_
#else
#define PONDER_KERNELS_CPU_TILE_INL_H_
#endif

#include "ponder/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ponder::kernels::cpu::HWY_NAMESPACE {

// Rows and groups of sixteen columns that are held in registers at once. A step costs rows x columns fma at two per
// cycle and rows + columns loads; the accumulators, the columns and one broadcast must fit (32 registers, AVX2: 16).
#if HWY_TARGET == HWY_AVX3
constexpr int kTileRows = 8, kTileColumns = 3;
#else
constexpr int kTileRows = 6, kTileColumns = 1;
#endif

// f(Index<n>()) for a number n in 1 .. max that is only known at run time.
template <int max, class F>
HWY_INLINE void with_constant(int n, F&& f) {
  if constexpr (max == 1) {
    f(Index<1>());
  } else {
    if (n == max) f(Index<max>());
    else with_constant<max - 1>(n, f);
  }
}
// How many groups of sixteen to take next: 4 as 2 + 2, not 3 + 1.
HWY_INLINE int next_columns(int64_t groups) {
  if (kTileColumns == 3 && groups == 4) return 2;
  return static_cast<int>(groups < kTileColumns ? groups : kTileColumns);
}

// The rows of a block: where each begins. Attention's rows are (query, head) pairs, so they have no common stride.
struct Rows {
  const float* x[kTileRows];
};

template <int rows, int columns>
HWY_NOINLINE void scores_tile(const Rows& x, const float* HWY_RESTRICT keys, int64_t depth, float* HWY_RESTRICT s) {
  for (int64_t begin = 0; begin < depth; begin += kDotBlock) {
    const int64_t end = begin + kDotBlock < depth ? begin + kDotBlock : depth;
    F16 sum[rows][columns];
    unroll<rows>([&](auto r) HWY_ATTR { unroll<columns>([&](auto c) HWY_ATTR { sum[r][c] = set(0.f); }); });
    for (int64_t d = begin; d < end; ++d) {
      F16 key[columns];
      unroll<columns>([&](auto c) HWY_ATTR { key[c] = load(keys + d * kPageSize + c * kLanes); });
      unroll<rows>([&](auto r) HWY_ATTR {
        const F16 q = set(x.x[r][d]);
        unroll<columns>([&](auto c) HWY_ATTR { sum[r][c] = fma(q, key[c], sum[r][c]); });
      });
    }
    unroll<rows>([&](auto r) HWY_ATTR {
      unroll<columns>([&](auto c) HWY_ATTR {
        float* p = s + r * kPageSize + c * kLanes;
        // The first block would be added to +0, which can only turn a -0 into +0: nobody can tell in a score.
        store(begin == 0 ? sum[r][c] : load(p) + sum[r][c], p);
      });
    });
  }
}

// s[r * kPageSize + j] for `rows` rows (up to kTileRows) and at least the first `visible` keys; those beyond, up to a
// multiple of sixteen, receive something.
HWY_INLINE void scores(const Rows& x, int rows, const float* keys, int64_t depth, int64_t visible, float* s) {
  int64_t groups = (visible + kLanes - 1) / kLanes;
  for (int64_t g = 0; groups > 0;) {
    const int columns = next_columns(groups);
    with_constant<kTileRows>(rows, [&](auto r) HWY_ATTR {
      with_constant<kTileColumns>(columns, [&](auto c) HWY_ATTR {
        scores_tile<r, c>(x, keys + g * kLanes, depth, s + g * kLanes);
      });
    });
    g += columns;
    groups -= columns;
  }
}

// Weights of row r at w + r * row_stride + j * step; row r has j in [begin[r], end[r]). Ascending in r are either the
// begins (ends equal) or the ends (begins equal).
struct Weights {
  const float* w;
  int64_t row_stride, step;
  int begin[kTileRows], end[kTileRows];
};

// `columns` groups of sixteen of which the last has `last` columns.
template <int rows, int columns, bool full, class Finish>
HWY_INLINE void chains_tile(const Weights& w, const float* HWY_RESTRICT m, int64_t ldm, int last, Finish&& finish) {
  F16 sum[rows][columns];
  unroll<rows>([&](auto r) HWY_ATTR { unroll<columns>([&](auto c) HWY_ATTR { sum[r][c] = set(0.f); }); });
  const auto load_m = [&](auto c, int64_t j) HWY_ATTR {
    const float* p = m + j * ldm + c * kLanes;
    if constexpr (!full && c == columns - 1) return load_n(p, last);
    else return load(p);
  };
  const auto row_step = [&](auto r, int64_t j) HWY_ATTR {
    const F16 x = set(w.w[r * w.row_stride + j * w.step]);
    unroll<columns>([&](auto c) HWY_ATTR { sum[r][c] = fma(x, load_m(c, j), sum[r][c]); });
  };
  // All rows share [lo, hi); before it some rows begin, after it some go on.
  const int lo = w.begin[rows - 1], hi = w.end[0];
  unroll<rows>([&](auto r) HWY_ATTR {
    for (int j = w.begin[r]; j < lo && j < w.end[r]; ++j) row_step(r, j);
  });
  for (int j = lo; j < hi; ++j) {
    F16 columns_of_m[columns];
    unroll<columns>([&](auto c) HWY_ATTR { columns_of_m[c] = load_m(c, j); });
    const float* p = w.w + j * w.step;
    unroll<rows>([&](auto r) HWY_ATTR {
      const F16 x = set(p[r * w.row_stride]);
      unroll<columns>([&](auto c) HWY_ATTR { sum[r][c] = fma(x, columns_of_m[c], sum[r][c]); });
    });
  }
  unroll<rows>([&](auto r) HWY_ATTR {
    for (int j = hi > lo ? hi : lo; j < w.end[r]; ++j) row_step(r, j);
  });
  unroll<rows>([&](auto r) HWY_ATTR {
    unroll<columns>([&](auto c) HWY_ATTR {
      if constexpr (!full && c == columns - 1) finish(static_cast<int>(r), c * kLanes, sum[r][c], last);
      else finish(static_cast<int>(r), c * kLanes, sum[r][c], Index<kLanes>());
    });
  });
}

// finish(r, c, sum of columns c .. c + n - 1, n) for every row and group of columns of M [.., width].
template <class Finish>
HWY_INLINE void chains(const Weights& w, int rows, const float* m, int64_t ldm, int64_t width, Finish&& finish) {
  for (int64_t c0 = 0; c0 < width;) {
    const int columns = next_columns((width - c0 + kLanes - 1) / kLanes);
    const int64_t end = c0 + columns * kLanes;
    const int last = static_cast<int>(width < end ? width - (end - kLanes) : kLanes);
    with_constant<kTileRows>(rows, [&](auto r) HWY_ATTR {
      with_constant<kTileColumns>(columns, [&](auto c) HWY_ATTR {
        const auto shifted = [&](int row, int64_t col, const F16& sum, auto n) HWY_ATTR { finish(row, c0 + col, sum, n); };
        if (last == kLanes) chains_tile<r, c, true>(w, m + c0, ldm, last, shifted);
        else chains_tile<r, c, false>(w, m + c0, ldm, last, shifted);
      });
    });
    c0 = end;
  }
}

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // PONDER_KERNELS_CPU_TILE_INL_H_
