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
    if (n == max)
      f(Index<max>());
    else
      with_constant<max - 1>(n, f);
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
    unroll<rows>([&](auto r) PONDER_LAMBDA { unroll<columns>([&](auto c) PONDER_LAMBDA { sum[r][c] = set(0.f); }); });
    for (int64_t d = begin; d < end; ++d) {
      F16 key[columns];
      unroll<columns>([&](auto c) PONDER_LAMBDA { key[c] = load(keys + d * kPageSize + c * kLanes); });
      unroll<rows>([&](auto r) PONDER_LAMBDA {
        const F16 q = set(x.x[r][d]);
        unroll<columns>([&](auto c) PONDER_LAMBDA { sum[r][c] = fma(q, key[c], sum[r][c]); });
      });
    }
    unroll<rows>([&](auto r) PONDER_LAMBDA {
      unroll<columns>([&](auto c) PONDER_LAMBDA {
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
    with_constant<kTileRows>(rows, [&](auto r) PONDER_LAMBDA {
      with_constant<kTileColumns>(
          columns, [&](auto c) PONDER_LAMBDA { scores_tile<r, c>(x, keys + g * kLanes, depth, s + g * kLanes); });
    });
    g += columns;
    groups -= columns;
  }
}

// Y[r, c] = Y[r, c] * decay[r] + sum_j W[r, j] M[j, c], the product and sum fused (decay 1 adds). Row r has j in
// [begin[r], end[r]); ascending in r are either the ends (begins equal) or the begins (ends equal).
struct Chains {
  const float* w;  // [rows][kPageSize], or [j][kPageSize] where transposed
  int begin[kTileRows], end[kTileRows];
  float* y[kTileRows];
  float decay[kTileRows];
};

// `n` columns of Y and M from column c0 on: all of them, or fewer where columns = 1.
template <int rows, int columns, bool transposed, class N>
HWY_NOINLINE void chains_tile(const Chains& t, const float* HWY_RESTRICT m, int64_t ldm, int64_t c0, N n) {
  constexpr int64_t kRow = transposed ? 1 : kPageSize, kStep = transposed ? kPageSize : 1;
  F16 sum[rows][columns];
  unroll<rows>([&](auto r) PONDER_LAMBDA { unroll<columns>([&](auto c) PONDER_LAMBDA { sum[r][c] = set(0.f); }); });
  m += c0;
  const auto row_step = [&](auto r, int64_t j) PONDER_LAMBDA {
    const F16 x = set(t.w[r * kRow + j * kStep]);
    unroll<columns>([&](auto c) PONDER_LAMBDA { sum[r][c] = fma(x, load_n(m + j * ldm + c * kLanes, n), sum[r][c]); });
  };
  // All rows share [lo, hi). Before it, some have begun (transposed), or after it, some go on.
  const int lo = t.begin[rows - 1], hi = t.end[0];
  if constexpr (transposed) {
    unroll<rows - 1>([&](auto r) PONDER_LAMBDA {
      for (int j = t.begin[r]; j < lo; ++j) row_step(r, j);
    });
  }
  for (int64_t j = lo; j < hi; ++j) {
    F16 x[columns];
    unroll<columns>([&](auto c) PONDER_LAMBDA { x[c] = load_n(m + j * ldm + c * kLanes, n); });
    unroll<rows>([&](auto r) PONDER_LAMBDA {
      const F16 w = set(t.w[r * kRow + j * kStep]);
      unroll<columns>([&](auto c) PONDER_LAMBDA { sum[r][c] = fma(w, x[c], sum[r][c]); });
    });
  }
  if constexpr (!transposed) {
    unroll<rows - 1>([&](auto r) PONDER_LAMBDA {
      for (int j = hi; j < t.end[r + 1]; ++j) row_step(Index<r + 1>(), j);
    });
  }
  unroll<rows>([&](auto r) PONDER_LAMBDA {
    unroll<columns>([&](auto c) PONDER_LAMBDA {
      float* y = t.y[r] + c0 + c * kLanes;
      store_n(fma(load_n(y, n), set(t.decay[r]), sum[r][c]), y, n);
    });
  });
}

// For `rows` rows (up to kTileRows) and `width` columns.
template <bool transposed>
HWY_INLINE void chains(const Chains& t, int rows, const float* m, int64_t ldm, int64_t width) {
  with_constant<kTileRows>(rows, [&](auto r) PONDER_LAMBDA {
    int64_t c0 = 0;
    for (int64_t groups = width / kLanes; groups > 0;) {
      const int columns = next_columns(groups);
      with_constant<kTileColumns>(
          columns, [&](auto c) PONDER_LAMBDA { chains_tile<r, c, transposed>(t, m, ldm, c0, Index<kLanes>()); });
      groups -= columns;
      c0 += columns * kLanes;
    }
    if (c0 < width) chains_tile<r, 1, transposed>(t, m, ldm, c0, static_cast<int>(width - c0));
  });
}

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // PONDER_KERNELS_CPU_TILE_INL_H_
