#include "ponder/kernels/cpu/weight_micro.h"

#include <array>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "ponder/base/error.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/targets.h"
#include "ponder/kernels/cpu/weight_format.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ponder/kernels/cpu/weight_micro.cc"
#include "hwy/foreach_target.h"
#include "ponder/kernels/cpu/ends-inl.h"

#if HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni,avx512bf16")  // weight_kernels() asks the CPU
#else
HWY_BEFORE_NAMESPACE();
#endif
namespace ponder::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using DB = hn::Repartition<uint8_t, DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
using VB = hn::Vec<DB>;
constexpr int kWidth = static_cast<int>(hn::MaxLanes(DF()));
constexpr int kPanelVecs = kPanel / kWidth;

#define PONDER_UNROLL _Pragma("GCC unroll 16")
#define PONDER_EACH PONDER_UNROLL for (int i = 0; i < rows; ++i) PONDER_UNROLL for (int v = 0; v < vecs; ++v)

// Tiles of integer products: rows x vectors.
#if HWY_TARGET == HWY_AVX3
constexpr int kRows = 6, kVecs = 2, kFewRows = 6, kPlainRows = 14, kPlainFewRows = 14;
constexpr bool kUnsignedDot = true;
#else
constexpr int kRows = 4, kVecs = 2, kFewRows = 1, kPlainRows = 6, kPlainFewRows = 2;
constexpr bool kUnsignedDot = false;
#endif

// ---- dot products of four bytes ------------------------------------------------------------------------------------
// `dot` adds u * a over the four bytes of every lane to a partial sum, `widen` makes lanes of 32 bits of it. Where the
// CPU has no such instruction, pairs are added in 16 bits; kChain is how many groups fit before they must be widened.
// Codes of 8 bits do not fit once (255 * 127 * 2): they are taken with their sign (kSigned) and the offset is gone.
template <Format f>
constexpr bool kSigned = !kUnsignedDot && f.offset == 128;
template <Format f>
constexpr int kOffset = kSigned<f> ? 0 : f.offset;

#if HWY_TARGET == HWY_AVX3
using Partial = VI;
template <Format f>
HWY_INLINE Partial dot(Partial p, VB w, VB a) {
  return VI{_mm512_dpbusd_epi32(p.raw, w.raw, a.raw)};
}
#elif HWY_TARGET == HWY_AVX2
using Partial = hn::Vec<hn::Repartition<int16_t, DF> >;
constexpr int kLargestPair = 32767 / (2 * 127);  // largest code whose pair fits
template <Format f>
constexpr int kChain = f.offset == 128 ? 1 : kLargestPair / (f.table == Table::fp4 ? 28 : (1 << f.bits) - 1) / 2 * 2;
template <Format f>
HWY_INLINE Partial dot(Partial p, VB w, VB a) {
  __m256i pairs;
  if constexpr (kSigned<f>)
    pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w.raw), _mm256_sign_epi8(a.raw, w.raw));
  else
    pairs = _mm256_maddubs_epi16(w.raw, a.raw);
  return Partial{_mm256_add_epi16(p.raw, pairs)};
}
HWY_INLINE VI widen(Partial p) { return VI{_mm256_madd_epi16(p.raw, _mm256_set1_epi16(1))}; }
#else
using Partial = VI;
template <Format f>
HWY_INLINE Partial dot(Partial p, VB w, VB a) {
  const int8x16_t ws = vreinterpretq_s8_u8(w.raw), as = vreinterpretq_s8_u8(a.raw);
  const int16x8_t low = vmull_s8(vget_low_s8(ws), vget_low_s8(as)), high = vmull_high_s8(ws, as);
  return VI{vaddq_s32(p.raw, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))};
}
#endif

// ---- reading a panel -----------------------------------------------------------------------------------------------
template <Format f>
HWY_INLINE VB table() {
  static constexpr std::array<uint8_t, 16> kStored = [] {
    std::array<uint8_t, 16> stored{};
    for (size_t i = 0; i < 16; ++i) stored[i] = static_cast<uint8_t>(table_values(f.table)[i] + kOffset<f>);
    return stored;
  }();
  return hn::LoadDup128(DB(), kStored.data());
}

template <int bits>
HWY_INLINE VB shift(VB x) {  // bits cross into the neighbouring byte: mask them
  const hn::Repartition<uint16_t, DF> d16;
  if constexpr (bits > 0)
    return hn::BitCast(DB(), hn::ShiftLeft<bits>(hn::BitCast(d16, x)));
  else if constexpr (bits < 0)
    return hn::BitCast(DB(), hn::ShiftRight<-bits>(hn::BitCast(d16, x)));
  else
    return x;
}

// Group g of a unit, lanes of the vector that `unit` points into.
template <Format f, int g>
HWY_INLINE VB codes(const uint8_t* unit) {
  const DB d;
  if constexpr (f.bits == 8) {
    const VB x = hn::LoadU(d, unit + g * kPanel * 4);
    if constexpr (kSigned<f>) return hn::Xor(x, hn::Set(d, 0x80));
    return x;
  } else {
    VB x = hn::And(shift<g / 4 * -4>(hn::LoadU(d, unit + f.codes() + g % 4 * kPanel * 4)), hn::Set(d, 15));
    if constexpr (f.bits == 5) x = hn::Or(x, hn::And(shift<4 - g>(hn::LoadU(d, unit)), hn::Set(d, 0x10)));
    if constexpr (f.bits == 6)
      x = hn::Or(x, hn::And(shift<4 - g % 4 * 2>(hn::LoadU(d, unit + g / 4 * kPanel * 4)), hn::Set(d, 0x30)));
    if constexpr (f.table != Table::none) x = hn::TableLookupBytes(table<f>(), x);
    return x;
  }
}

HWY_INLINE VF load_f16(const uint8_t* p) {
  const hn::Rebind<uint16_t, DF> d16;
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(DF(), hn::BitCast(dh, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p))));
}
HWY_INLINE VF load_i8(const uint8_t* p) {
  const hn::Rebind<int8_t, DF> d8;
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::LoadU(d8, reinterpret_cast<const int8_t*>(p))));
}

// The scales and minima of a block; `block` points at the panel's block, `lane` is the vector's first lane.
template <Format f>
HWY_INLINE VF block_scale(const uint8_t* block, int lane) {
  if constexpr (f.e8m0) {  // 2^(e - 128); below 2^-126 by hand
    const hn::Rebind<uint8_t, DF> d8;
    const DU du;
    const auto e = hn::PromoteTo(du, hn::LoadU(d8, block + lane));
    const auto tiny = hn::IfThenElse(hn::Eq(e, hn::Zero(du)), hn::Set(du, 0x200000u), hn::Set(du, 0x400000u));
    const auto bits = hn::ShiftLeft<23>(hn::Sub(e, hn::Set(du, 1u)));
    return hn::BitCast(DF(), hn::IfThenElse(hn::Gt(e, hn::Set(du, 1u)), bits, tiny));
  } else {
    return load_f16(block + lane * 2);
  }
}
template <Format f>
HWY_INLINE VF sub_scale(const uint8_t* block, int64_t s, int lane, VF scale) {
  if constexpr (!f.sub_scales()) return scale;
  return hn::Mul(scale, load_i8(block + f.sub_scales_begin() + s * kPanel + lane));
}
template <Format f>
HWY_INLINE VF sub_minimum(const uint8_t* block, int64_t s, int lane, VF minimum) {
  if constexpr (!f.sub_scales()) return minimum;
  return hn::Mul(minimum, load_i8(block + f.sub_minima() + s * kPanel + lane));
}

// ---- integer products ----------------------------------------------------------------------------------------------
HWY_INLINE int32_t load_i32(const std::byte* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return x;
}
HWY_INLINE float load_f32(const std::byte* p) { return std::bit_cast<float>(load_i32(p)); }

// Groups g .. end - 1 of a unit for all rows.
template <Format f, int g, int end, int rows, int vecs>
HWY_INLINE void dot_groups(const uint8_t* unit, const std::byte* a, int64_t a_stride, Partial (&part)[rows][vecs]) {
  VB w[vecs];
  PONDER_UNROLL for (int v = 0; v < vecs; ++v) w[v] = codes<f, g>(unit + v * kWidth * 4);
  PONDER_UNROLL for (int i = 0; i < rows; ++i) {
    const VB av = hn::BitCast(DB(), hn::Set(DI(), load_i32(a + i * a_stride + g * 4)));
    PONDER_UNROLL for (int v = 0; v < vecs; ++v) part[i][v] = dot<f>(part[i][v], w[v], av);
  }
  if constexpr (g + 1 < end) dot_groups<f, g + 1, end>(unit, a, a_stride, part);
}
// The same in chains that fit partial sums, which are widened in between.
template <Format f, int g, int end, int rows, int vecs>
HWY_INLINE void dot_chains(const uint8_t* unit, const std::byte* a, int64_t a_stride, VI (&total)[rows][vecs]) {
#if HWY_TARGET == HWY_AVX2
  constexpr int kEnd = g + kChain<f> < end ? g + kChain<f> : end;
  Partial part[rows][vecs];
  PONDER_EACH part[i][v] = hn::Zero(hn::Repartition<int16_t, DF>());
  dot_groups<f, g, kEnd>(unit, a, a_stride, part);
  PONDER_EACH total[i][v] = hn::Add(total[i][v], widen(part[i][v]));
  if constexpr (kEnd < end) dot_chains<f, kEnd, end>(unit, a, a_stride, total);
#else
  dot_groups<f, g, end>(unit, a, a_stride, total);
#endif
}

// t = fma(s, sum of products, t) for sub-block `sub`, whose first group in the unit is g, and the minimum's fma.
template <Format f, int g, int rows, int vecs>
HWY_INLINE void add_sub_block(const uint8_t* block, const uint8_t* unit, int64_t sub, int lane, const std::byte* a,
                              int64_t a_stride, const std::byte* sums, const VF (&scale)[vecs],
                              const VF (&minimum)[vecs], VF (&t)[rows][vecs]) {
  VI total[rows][vecs];
  PONDER_EACH {  // the sums are negated
    if constexpr (kOffset<f> == 0)
      total[i][v] = hn::Zero(DI());
    else
      total[i][v] = hn::ShiftLeft<std::countr_zero(static_cast<unsigned>(kOffset<f>) | 256u)>(
          hn::Set(DI(), load_i32(sums + i * a_stride)));
  }
  dot_chains<f, g, g + f.sub / 4>(unit, a, a_stride, total);
  PONDER_UNROLL for (int v = 0; v < vecs; ++v) {
    const VF s = sub_scale<f>(block, sub, lane + v * kWidth, scale[v]);
    PONDER_UNROLL for (int i = 0; i < rows; ++i) t[i][v] = hn::MulAdd(s, hn::ConvertTo(DF(), total[i][v]), t[i][v]);
  }
  if constexpr (f.minimum()) {
    PONDER_UNROLL for (int v = 0; v < vecs; ++v) {
      const VF z = sub_minimum<f>(block, sub, lane + v * kWidth, minimum[v]);
      PONDER_UNROLL for (int i = 0; i < rows; ++i) t[i][v] =
          hn::MulAdd(z, hn::Set(DF(), load_f32(sums + i * a_stride)), t[i][v]);
    }
  }
}

template <Format f, int rows, int vecs>
HWY_NOINLINE void integer_tile(const IntegerStrip& s) {
  const DF d;
  const int64_t stride = s.layout.bytes();
  for (int lane = 0; lane < kPanel && lane < s.n; lane += vecs * kWidth) {
    const int64_t columns = s.n - lane;
    const bool whole = columns >= vecs * kWidth;
    float* c = s.c + lane;
    const std::byte* a = s.a + s.begin * f.block;
    const std::byte* scales = s.a + s.layout.scales() + s.begin * 4;
    const std::byte* sums = s.a +
                            (f.sub == 16   ? s.layout.short_sums()
                             : f.minimum() ? s.layout.float_sums()
                                           : s.layout.sums()) +
                            s.begin * f.subs() * 4;
    const uint8_t* w = reinterpret_cast<const uint8_t*>(s.w);
    const std::byte* ahead = s.ahead;
    VF y[rows][vecs];
    if (!s.add)
      PONDER_EACH y[i][v] = hn::Zero(d);
    else if (whole)
      PONDER_EACH y[i][v] = hn::LoadU(d, c + i * s.ldc + v * kWidth);
    else
      PONDER_EACH y[i][v] = load_first(d, c + i * s.ldc + v * kWidth, columns - v * kWidth);
    for (int64_t b = s.begin; b < s.end; ++b) {
      VF scale[vecs], minimum[vecs], t[rows][vecs];
      PONDER_UNROLL for (int v = 0; v < vecs; ++v) scale[v] = block_scale<f>(w, lane + v * kWidth);
      PONDER_UNROLL for (int v = 0; v < vecs; ++v) {
        if constexpr (f.minimum())
          minimum[v] = load_f16(w + f.minima() + (lane + v * kWidth) * 2);
        else
          minimum[v] = hn::Zero(d);
      }
      PONDER_EACH t[i][v] = hn::Zero(d);
      const uint8_t* unit = w + f.header() + lane * 4;
      for (int u = 0; u < f.block / 32; ++u, unit += f.unit(), a += 32, sums += 128 / f.sub) {
        for (int64_t i = 0; i < s.ahead_step; i += 64) __builtin_prefetch(ahead + i);
        ahead += s.ahead_step;
        if constexpr (f.sub == 16) {
          add_sub_block<f, 0>(w, unit, 2 * u, lane, a, stride, sums, scale, minimum, t);
          add_sub_block<f, 4>(w, unit, 2 * u + 1, lane, a, stride, sums + 4, scale, minimum, t);
        } else {
          add_sub_block<f, 0>(w, unit, u, lane, a, stride, sums, scale, minimum, t);
        }
      }
      PONDER_UNROLL for (int i = 0; i < rows; ++i) {
        const VF av = hn::Set(d, load_f32(scales + i * stride));
        PONDER_UNROLL for (int v = 0; v < vecs; ++v) y[i][v] = hn::MulAdd(av, t[i][v], y[i][v]);
      }
      scales += 4;
      w += f.panel_block();
    }
    if (s.bias) {
      PONDER_EACH y[i][v] = hn::Add(y[i][v], load_first(d, s.bias + lane + v * kWidth, columns - v * kWidth));
    }
    if (whole)
      PONDER_EACH hn::StoreU(y[i][v], d, c + i * s.ldc + v * kWidth);
    else
      PONDER_EACH store_first(y[i][v], d, c + i * s.ldc + v * kWidth, columns - v * kWidth);
  }
}

using IntegerTile = void (*)(const IntegerStrip&);
template <Format f>
constexpr std::array<IntegerTile, kRows> kIntegerTiles = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array<IntegerTile, kRows>{integer_tile<f, i + 1, (i + 1 <= kFewRows ? kPanelVecs : kVecs)>...};
}
(std::make_integer_sequence<int, kRows>());

void integer_strip(BlockType type, const IntegerStrip& s) {
  with_format(type, [&](auto f) { kIntegerTiles<f.value>[static_cast<size_t>(s.rows - 1)](s); });
}

// ---- numbers as they are ---------------------------------------------------------------------------------------------
template <BlockType type>
constexpr int kBytes = type == BlockType::f32   ? 4
                       : type == BlockType::fp8 ? 1
                                                : 2;

// Neighbours along k that a row of a panel holds.
template <BlockType type>
constexpr int kNumbers = type == BlockType::bf16 ? 2 : 1;

// The two halves of a pair of bf16 as floats.
HWY_INLINE VF even_half(hn::Vec<DU> pair) { return hn::BitCast(DF(), hn::ShiftLeft<16>(pair)); }
HWY_INLINE VF odd_half(hn::Vec<DU> pair) { return hn::BitCast(DF(), hn::And(pair, hn::Set(DU(), 0xFFFF0000u))); }

// Numbers of one row of a panel; FP8 times 2^-8, which is in its packed scales.
template <BlockType type, int vecs>
HWY_INLINE void load_row(const std::byte* p, VF (&w)[kNumbers<type>][vecs]) {
  const DF d;
  if constexpr (type == BlockType::fp8) {
    // The fields of FP8 moved into those of f16, whose exponents are 8 higher; subnormals are f16's then. (Where the one
    // NaN of FP8 stands, which this makes a number, the packed scale is NaN.)
    const hn::Repartition<uint16_t, DF> d16;
    const hn::Half<decltype(d16)> half;
    const hn::Rebind<uint8_t, decltype(d16)> d8;
    const hn::Rebind<hwy::float16_t, DF> dh;
    PONDER_UNROLL for (int v = 0; v < vecs; v += 2) {
      const auto x = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p) + v * kWidth));
      const auto y = hn::Or(hn::And(hn::ShiftLeft<8>(x), hn::Set(d16, 0x8000)),
                            hn::And(hn::ShiftLeft<7>(x), hn::Set(d16, 0x3F80)));
      w[0][v] = hn::PromoteTo(d, hn::BitCast(dh, hn::LowerHalf(half, y)));
      w[0][v + 1] = hn::PromoteTo(d, hn::BitCast(dh, hn::UpperHalf(half, y)));
    }
  } else {
    PONDER_UNROLL for (int v = 0; v < vecs; ++v, p += kWidth * kBytes<type> * kNumbers<type>) {
      if constexpr (type == BlockType::f32) {
        w[0][v] = hn::LoadU(d, reinterpret_cast<const float*>(p));
      } else if constexpr (type == BlockType::f16) {
        w[0][v] = load_f16(reinterpret_cast<const uint8_t*>(p));
      } else {
        const auto pair = hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(p));
        w[0][v] = even_half(pair);
        w[1][v] = odd_half(pair);
      }
    }
  }
}

// Activations as floats, or as pairs of bf16, multiplied by the CPU's instruction for them or by two fma.
enum class Products { floats, pairs, instruction };

// sum += a row of the panel times the same numbers of every row of A, at a_rows[i / 3][i % 3 * lda]; `both`: not only
// the first of two neighbours.
template <BlockType type, Products products, int rows, int vecs, class Word>
HWY_INLINE void multiply_row(const std::byte* w, const VF (&scale)[vecs], const Word* const (&a_rows)[(rows + 2) / 3],
                             int64_t lda, bool both, VF (&sum)[rows][vecs]) {
  const DF d;
#if HWY_TARGET == HWY_AVX3
  if constexpr (products == Products::instruction) {
    const auto bf16 = [](auto x) { return reinterpret_cast<__m512bh>(x); };
    __m512bh wv[vecs];
    PONDER_UNROLL for (int v = 0; v < vecs; ++v) wv[v] = bf16(_mm512_loadu_si512(w + v * kWidth * 4));
    PONDER_UNROLL for (int i = 0; i < rows; ++i) {
      const __m512bh av = bf16(_mm512_set1_epi32(static_cast<int>(a_rows[i / 3][i % 3 * lda])));
      PONDER_UNROLL for (int v = 0; v < vecs; ++v) sum[i][v] = VF{_mm512_dpbf16_ps(sum[i][v].raw, av, wv[v])};
    }
    return;
  }
#endif
  VF wv[kNumbers<type>][vecs];
  load_row<type>(w, wv);
  if constexpr (type == BlockType::fp8)
    PONDER_UNROLL for (int v = 0; v < vecs; ++v) wv[0][v] = hn::Mul(wv[0][v], scale[v]);
  if constexpr (products == Products::floats) {
    PONDER_UNROLL for (int n = 0; n < kNumbers<type>; ++n) {
      if (n == 1 && !both) return;
      PONDER_UNROLL for (int i = 0; i < rows; ++i) {
        const VF av = hn::Set(d, a_rows[i / 3][i % 3 * lda + n]);
        PONDER_UNROLL for (int v = 0; v < vecs; ++v) sum[i][v] = hn::MulAdd(av, wv[n][v], sum[i][v]);
      }
    }
  } else {
    PONDER_UNROLL for (int i = 0; i < rows; ++i) {
      const auto pair = hn::Set(DU(), a_rows[i / 3][i % 3 * lda]);
      const VF odd = odd_half(pair), even = even_half(pair);
      PONDER_UNROLL for (int v = 0; v < vecs; ++v) sum[i][v] =
          hn::MulAdd(even, wv[0][v], hn::MulAdd(odd, wv[1][v], sum[i][v]));
    }
  }
}

template <BlockType type, Products products, int rows, int vecs>
HWY_NOINLINE void plain_tile(const PlainStrip& s) {
  using Word = std::conditional_t<products == Products::floats, float, uint32_t>;
  constexpr int kRowBytes = kPanel * kBytes<type> * kNumbers<type>;
  constexpr int64_t kBlock = products == Products::floats ? kDotBlock : kPairBlock;
  constexpr int kWords = products == Products::floats ? kNumbers<type> : 1;
  const DF d;
  for (int lane = 0; lane < kPanel && lane < s.n; lane += vecs * kWidth) {
    const std::byte *w = s.w + lane * kBytes<type> * kNumbers<type>, *ahead = s.ahead;
    const float* scales = type == BlockType::fp8 ? s.scales + lane : nullptr;
    float* c = s.c + lane;
    const int64_t columns = s.n - lane;
    const Word* a_rows[(rows + 2) / 3];  // three rows share a pointer: x86 adds 0, 1 or 2 strides for nothing
    PONDER_UNROLL for (int i = 0; i < rows; i += 3) a_rows[i / 3] = static_cast<const Word*>(s.a) + i * s.lda;
    const int64_t lda = s.lda, step = s.ahead_step;
    const float* c_fetch = c;  // the tile of C is asked for, a row at each step, long before it is written
    int c_left = rows;
    HWY_ALIGN float total[rows * vecs * kWidth];  // the sum of the blocks so far
    if (s.add) {
      PONDER_EACH hn::Store(load_first(d, c + i * s.ldc + v * kWidth, columns - v * kWidth), d,
                            total + (i * vecs + v) * kWidth);
    } else {
      PONDER_EACH hn::Store(hn::Zero(d), d, total + (i * vecs + v) * kWidth);
    }
    for (int64_t begin = 0; begin < s.k; begin += kBlock) {
      VF sum[rows][vecs], scale[vecs];
      PONDER_EACH sum[i][v] = hn::Zero(d);
      if constexpr (type == BlockType::fp8)
        PONDER_UNROLL for (int v = 0; v < vecs; ++v) scale[v] =
            hn::LoadU(d, scales + begin / kScaleBlock * kPanel + v * kWidth);
      int64_t left = s.k - begin < kBlock ? s.k - begin : kBlock;
      for (; left > 0; left -= kNumbers<type>, w += kRowBytes) {
        PONDER_UNROLL for (int n = 0; n < kNumbers<type>; ++n, ahead += step) __builtin_prefetch(ahead);
        if (c_left-- > 0) {
          PONDER_UNROLL for (int v = 0; v < vecs * kWidth; v += 16) __builtin_prefetch(c_fetch + v, 1);
          c_fetch += s.ldc;
        }
        multiply_row<type, products>(w, scale, a_rows, lda, left >= kNumbers<type>, sum);
        PONDER_UNROLL for (const Word*& row : a_rows) row += kWords;
      }
      PONDER_EACH {
        float* t = total + (i * vecs + v) * kWidth;
        hn::Store(hn::Add(hn::Load(d, t), sum[i][v]), d, t);
      }
    }
    PONDER_EACH {
      VF y = hn::Load(d, total + (i * vecs + v) * kWidth);
      if (s.bias) y = hn::Add(y, load_first(d, s.bias + lane + v * kWidth, columns - v * kWidth));
      store_first(y, d, c + i * s.ldc + v * kWidth, columns - v * kWidth);
    }
  }
}

template <BlockType type, Products products = Products::floats>
void plain_rows(const PlainStrip& s) {
  static constexpr auto kTiles = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<void (*)(const PlainStrip&), kPlainRows>{
        plain_tile<type, products, i + 1, (i + 1 <= kPlainFewRows ? kPanelVecs : kVecs)>...};
  }
  (std::make_integer_sequence<int, kPlainRows>());
  kTiles[static_cast<size_t>(s.rows - 1)](s);
}
void plain_strip(BlockType type, const PlainStrip& s) {
  if (type == BlockType::f32) return plain_rows<BlockType::f32>(s);
  if (type == BlockType::f16) return plain_rows<BlockType::f16>(s);
  if (type == BlockType::bf16) return plain_rows<BlockType::bf16>(s);
  plain_rows<BlockType::fp8>(s);
}

// ---- expansion -------------------------------------------------------------------------------------------------------
// Number i of every group of four: s * code - z, where s * code is exact.
template <Format f, int i>
HWY_INLINE void expand_number(VB codes, VF s, VF z, float* out) {
  const DU du;
  VI c;
  if constexpr (kSigned<f>)
    c = hn::ShiftRight<24>(hn::BitCast(DI(), hn::ShiftLeft<24 - 8 * i>(hn::BitCast(du, codes))));
  else
    c = hn::Sub(hn::BitCast(DI(), hn::And(hn::ShiftRight<8 * i>(hn::BitCast(du, codes)), hn::Set(du, 255u))),
                hn::Set(DI(), kOffset<f>));
  const VF x = hn::ConvertTo(DF(), c);
  hn::StoreU(f.minimum() ? hn::MulSub(s, x, z) : hn::Mul(s, x), DF(), out + i * kPanel);
}
template <Format f, int g>
HWY_INLINE void expand_groups(const uint8_t* unit, VF s, VF z, float* out) {  // four from g on
  if constexpr (g % 4 != 3) expand_groups<f, g + 1>(unit, s, z, out);
  const VB c = codes<f, g>(unit);
  out += 4 * g * kPanel;
  expand_number<f, 0>(c, s, z, out);
  expand_number<f, 1>(c, s, z, out);
  expand_number<f, 2>(c, s, z, out);
  expand_number<f, 3>(c, s, z, out);
}

template <Format f>
void expand_blocks(const std::byte* panel, int64_t begin, int64_t end, float* out) {
  for (int64_t x = begin; x < end; x += 32, out += 32 * kPanel) {
    const uint8_t* w = reinterpret_cast<const uint8_t*>(panel) + x / f.block * f.panel_block();
    const int64_t unit = x % f.block / 32, sub = x % f.block / f.sub;
    for (int lane = 0; lane < kPanel; lane += kWidth) {
      const uint8_t* at = w + f.header() + unit * f.unit() + lane * 4;
      const VF scale = block_scale<f>(w, lane);
      VF z = hn::Zero(DF());
      if constexpr (f.minimum()) z = sub_minimum<f>(w, sub, lane, load_f16(w + f.minima() + lane * 2));
      expand_groups<f, 0>(at, sub_scale<f>(w, sub, lane, scale), z, out + lane);
      expand_groups<f, 4>(at, sub_scale<f>(w, sub + (f.sub == 16), lane, scale), z, out + lane);
    }
  }
}

template <BlockType type>
void expand_numbers(const std::byte* panel, int64_t k, int64_t begin, int64_t end, float* out) {
  const DF d;
  const float* scales = reinterpret_cast<const float*>(panel + k * kPanel);  // FP8
  for (int64_t x = begin; x < end; x += kNumbers<type>) {
    VF y[kNumbers<type>][kPanelVecs];
    load_row<type>(panel + x * kPanel * kBytes<type>, y);
    for (int64_t n = 0; n < kNumbers<type> && x + n < end; ++n, out += kPanel)
      PONDER_UNROLL for (int v = 0; v < kPanelVecs; ++v) {
        if constexpr (type == BlockType::fp8)
          y[n][v] = hn::Mul(y[n][v], hn::LoadU(d, scales + x / kScaleBlock * kPanel + v * kWidth));
        hn::StoreU(y[n][v], d, out + v * kWidth);
      }
  }
}

void expand(BlockType type, const std::byte* panel, int64_t k, int64_t begin, int64_t end, float* out) {
  switch (type) {
    case BlockType::f32: return expand_numbers<BlockType::f32>(panel, k, begin, end, out);
    case BlockType::f16: return expand_numbers<BlockType::f16>(panel, k, begin, end, out);
    case BlockType::bf16: return expand_numbers<BlockType::bf16>(panel, k, begin, end, out);
    case BlockType::fp8: return expand_numbers<BlockType::fp8>(panel, k, begin, end, out);
    default: with_format(type, [&](auto f) { expand_blocks<f.value>(panel, begin, end, out); });
  }
}

// ---- activations -----------------------------------------------------------------------------------------------------
void quantize(const float* x, const QuantizedRow& layout, std::byte* row) {
  const DF d;
  const DI di;
  const hn::Rebind<int8_t, DF> d8;
  int8_t* codes = reinterpret_cast<int8_t*>(row);
  float* scales = reinterpret_cast<float*>(row + layout.scales());
  int32_t* sums = reinterpret_cast<int32_t*>(row + layout.sums());
  float* float_sums = reinterpret_cast<float*>(row + layout.float_sums());
  int32_t* short_sums = layout.width == 256 ? reinterpret_cast<int32_t*>(row + layout.short_sums()) : nullptr;
  for (int64_t b = 0; b < layout.k; b += layout.width) {
    // As integers, the bits of magnitudes have the order of the magnitudes, infinity and NaN above all others.
    VI largest = hn::Zero(di);
    for (int i = 0; i < layout.width; i += kWidth)
      largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + b + i))));
    const float scale = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(di, largest))) / 127.f;
    float inverse = 1.f / scale;
    const bool usable = inverse > 0.f && inverse <= 0x1.fffffep127f;
    *scales++ = scale;
    for (int i = 0; i < layout.width; i += 32) {
      int32_t halves[2];
      for (int h = 0; h < 2; ++h) {
        VI sum = hn::Zero(di);
        for (int j = 16 * h; j < 16 * h + 16; j += kWidth) {
          VI q = hn::Zero(di);
          if (usable) q = hn::NearestInt(hn::Mul(hn::LoadU(d, x + b + i + j), hn::Set(d, inverse)));
          sum = hn::Add(sum, q);
          hn::StoreU(hn::DemoteTo(d8, q), d8, codes + b + i + j);
        }
        halves[h] = -hn::GetLane(hn::SumOfLanes(di, sum));
      }
      *sums++ = halves[0] + halves[1];
      *float_sums++ = static_cast<float>(halves[0] + halves[1]);
      if (!short_sums) continue;
      *short_sums++ = halves[0];
      *short_sums++ = halves[1];
    }
  }
}

// The bf16 nearest to x, in the upper halves; the lower ones are anything.
HWY_INLINE hn::Vec<DU> nearest_bf16(VF x) {
  const DU d;
  const auto u = hn::BitCast(d, x), odd = hn::And(hn::ShiftRight<16>(u), hn::Set(d, 1u));
  const auto rounded = hn::Add(u, hn::Add(odd, hn::Set(d, 0x7FFFu))), nan = hn::Or(u, hn::Set(d, 0x400000u));
  return hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(x)), nan, rounded);
}
void round_bf16(const float* x, int64_t k, float* y) {
  const DF d;
  int64_t i = 0;
  for (; i + kWidth <= k; i += kWidth) hn::StoreU(odd_half(nearest_bf16(hn::LoadU(d, x + i))), d, y + i);
  for (; i < k; ++i) y[i] = bf16_to_f32(f32_to_bf16(x[i]));
}
void pair_bf16(const float* x, int64_t k, uint16_t* y) {
  const hn::Rebind<uint16_t, DF> d16;
  int64_t i = 0;
  for (; i + kWidth <= k; i += kWidth)
    hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(nearest_bf16(hn::LoadU(DF(), x + i)))), d16, y + i);
  for (; i < k; ++i) y[i] = f32_to_bf16(x[i]);
  if (k % 2) y[k] = 0;
}

template <Products products>
constexpr WeightKernels kWeightKernels{
    .integer_rows = kRows,
    .plain_rows = kPlainRows,
    .integer_strip = integer_strip,
    .plain_strip = plain_strip,
    .pair_strip = plain_rows<BlockType::bf16, products>,
    .expand = expand,
    .quantize = quantize,
    .round_bf16 = round_bf16,
    .pair_bf16 = pair_bf16,
};
const WeightKernels& kernels() {
#if HWY_TARGET == HWY_AVX3
  if (__builtin_cpu_supports("avx512bf16")) return kWeightKernels<Products::instruction>;
#endif
  return kWeightKernels<Products::pairs>;
}

}  // namespace ponder::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ponder::kernels::cpu {

const WeightKernels& weight_kernels(Isa isa) {
  switch (isa) {
#if HWY_TARGETS & HWY_AVX3
    case Isa::avx512:  // the first CPUs with AVX-512 have no dot products of bytes; AVX2's serve them well
      return __builtin_cpu_supports("avx512vnni") ? N_AVX3::kernels() : N_AVX2::kernels();
#endif
#if HWY_TARGETS & HWY_AVX2
    case Isa::avx2: return N_AVX2::kernels();
#endif
#if HWY_TARGETS & HWY_NEON
    case Isa::neon: return N_NEON::kernels();
#endif
    default: break;
  }
  PONDER_CHECK(false, "products with stored weights were not built for {}", isa_name(isa));
  return HWY_STATIC_DISPATCH(kernels)();
}

}  // namespace ponder::kernels::cpu
#endif
