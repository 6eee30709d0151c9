// The layout of every quantised block, byte for byte (facts of ggml's ggml-common.h), for those who decode or multiply
// blocks where they lie. The structs have no alignment: a block may be read at any address of a mapped file.
//
// In each, `d` is the scale and `m` (or `dmin`) what is subtracted or added; codes of 32 numbers in nibbles keep number
// j in the low half of byte j and number j + 16 in the high half.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ponder/tensor/float16.h"

namespace ponder::blocks {

constexpr int kSuper = 256;  // numbers in a super-block

struct Half {
  uint8_t low, high;
  uint16_t bits() const { return static_cast<uint16_t>(low | high << 8); }
  float f32() const { return f16_to_f32(bits()); }
  static Half of(float x) {
    const uint16_t h = f32_to_f16(x);
    return {static_cast<uint8_t>(h & 255), static_cast<uint8_t>(h >> 8)};
  }
};

inline uint32_t load_u32(const uint8_t* p) {
  uint32_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// --- 32 numbers, one scale -------------------------------------------------------------------------------------------

struct Q4_0 {  // d * (code - 8)
  static constexpr int kElements = 32;
  Half d;
  uint8_t codes[16];
};
struct Q4_1 {  // d * code + m
  static constexpr int kElements = 32;
  Half d, m;
  uint8_t codes[16];
};
struct Q5_0 {  // d * (code - 16); bit 4 of code j is bit j of `high`
  static constexpr int kElements = 32;
  Half d;
  uint8_t high[4], codes[16];
};
struct Q5_1 {  // d * code + m
  static constexpr int kElements = 32;
  Half d, m;
  uint8_t high[4], codes[16];
};
struct Q8_0 {  // d * code
  static constexpr int kElements = 32;
  Half d;
  int8_t codes[32];
};
struct Iq4Nl {  // d * kIq4Values[code]
  static constexpr int kElements = 32;
  Half d;
  uint8_t codes[16];
};
struct Mxfp4 {  // 2^(e - 128) * kFp4Values[code]
  static constexpr int kElements = 32;
  uint8_t e, codes[16];
};
struct Nvfp4 {  // 4 x 16 numbers; scale E4M3 without sign, halved: d * kFp4Values[code]; nibbles by 8 numbers
  static constexpr int kElements = 64;
  uint8_t d[4], codes[32];
};

inline constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr std::array<int8_t, 16> kFp4Values = {0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12};  // 2 x E2M1

float mxfp4_scale(uint8_t e);
float nvfp4_scale(uint8_t d);

// --- 256 numbers, scales of parts in few bits ------------------------------------------------------------------------

// Codes of 2 bits: number 128 h + 32 k + l is bits 2 k of byte 32 h + l, in Q2_K and Q3_K.
struct Q2K {  // 16 parts of 16: d * (scale & 15) * code - dmin * (scale >> 4)
  static constexpr int kElements = kSuper;
  uint8_t scales[16], codes[64];
  Half d, dmin;
};
struct Q3K {  // 16 parts of 16: d * (scale - 32) * (code - 4); bit 2 of code 32 k + l is bit k of high[l]
  static constexpr int kElements = kSuper;
  uint8_t high[32], codes[64], scales[12];
  Half d;
};
// Q4_K and Q5_K: 8 parts of 32, d * scale * code - dmin * min, with scales and mins of 6 bits (unpack_scales); parts 2 k
// and 2 k + 1 are the low and high nibbles of 32 bytes.
struct Q4K {
  static constexpr int kElements = kSuper;
  Half d, dmin;
  uint8_t scales[12], codes[128];
};
struct Q5K {  // bit 4 of a code of part k is bit k of high[l]
  static constexpr int kElements = kSuper;
  Half d, dmin;
  uint8_t scales[12], high[32], codes[128];
};
struct Q6K {  // 16 parts of 16: d * scale * (code - 32); of every 128 numbers, four groups of 32 share 64 + 32 bytes
  static constexpr int kElements = kSuper;
  uint8_t low[128], high[64];
  int8_t scales[16];
  Half d;
};
struct Iq4Xs {  // 8 parts of 32: d * (scale - 32) * kIq4Values[code]
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t scales_high[2], scales_low[4], codes[128];
};

struct ScalesAndMins {
  uint8_t scale[8], min[8];
};
inline ScalesAndMins unpack_scales(const uint8_t (&packed)[12]) {
  ScalesAndMins s;
  for (int j = 0; j < 4; ++j) {
    s.scale[j] = packed[j] & 63;
    s.min[j] = packed[j + 4] & 63;
    s.scale[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | (packed[j] >> 6) << 4);
    s.min[j + 4] = static_cast<uint8_t>(packed[j + 8] >> 4 | (packed[j + 4] >> 6) << 4);
  }
  return s;
}
std::array<int8_t, 16> unpack_scales(const Q3K& block);  // already less 32

// --- 256 numbers, groups of 8 or 4 from a codebook --------------------------------------------------------------------

struct Iq2Xxs {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[64];
};
struct Iq2Xs {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[64], scales[8];
};
struct Iq2S {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[32], signs[32], high[8], scales[8];
};
struct Iq3Xxs {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[64], scales_and_signs[32];
};
struct Iq3S {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[64], high[8], signs[32], scales[4];
};
struct Iq1S {
  static constexpr int kElements = kSuper;
  Half d;
  uint8_t codes[32], high[16];
};
struct Iq1M {
  static constexpr int kElements = kSuper;
  uint8_t codes[32], high[16], scales[8];
};

// --- 256 numbers of -1, 0, 1 -------------------------------------------------------------------------------------------

struct Tq1_0 {  // d * (digit - 1): five digits of base 3 in a byte (four in the last four), as a fraction of 256
  static constexpr int kElements = kSuper;
  uint8_t codes[52];
  Half d;
};
struct Tq2_0 {  // 2 bits a number, as Q2_K places them: d * (code - 1)
  static constexpr int kElements = kSuper;
  uint8_t codes[64];
  Half d;
};

// --- One number, or one row, at a time ----------------------------------------------------------------------------------

// How a type is read and written, over whole blocks. encode is null where ponder cannot quantise to the type.
struct Codec {
  int elements, bytes;
  void (*decode)(const std::byte* blocks, int64_t n, float* out);
  void (*encode)(const float* in, int64_t n, std::byte* blocks);
};

template <class Block, void (*kDecode)(const Block&, float*)>
void decode_all(const std::byte* bytes, int64_t n, float* out) {
  const auto* block = reinterpret_cast<const Block*>(bytes);
  for (int64_t i = 0; i < n; ++i) kDecode(block[i], out + i * Block::kElements);
}
template <class Block, void (*kEncode)(const float*, Block&)>
void encode_all(const float* in, int64_t n, std::byte* bytes) {
  auto* block = reinterpret_cast<Block*>(bytes);
  for (int64_t i = 0; i < n; ++i) kEncode(in + i * Block::kElements, block[i]);
}
template <class Block, void (*kDecode)(const Block&, float*)>
constexpr Codec codec() {
  static_assert(alignof(Block) == 1);
  return {Block::kElements, sizeof(Block), decode_all<Block, kDecode>, nullptr};
}
template <class Block, void (*kDecode)(const Block&, float*), void (*kEncode)(const float*, Block&)>
constexpr Codec codec() {
  Codec c = codec<Block, kDecode>();
  c.encode = encode_all<Block, kEncode>;
  return c;
}

extern const Codec kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kIq4Nl, kMxfp4, kNvfp4;  // blocks_small.cc
extern const Codec kQ2K, kQ3K, kQ4K, kQ5K, kQ6K, kIq4Xs;                       // blocks_k.cc
extern const Codec kIq1S, kIq1M, kIq2Xxs, kIq2Xs, kIq2S, kIq3Xxs, kIq3S;       // blocks_iq.cc
extern const Codec kTq1_0, kTq2_0;                                             // blocks_ternary.cc

void encode_q4k(const float* in, Q4K& out);  // blocks_k_encode.cc
void encode_q5k(const float* in, Q5K& out);
void encode_q6k(const float* in, Q6K& out);

}  // namespace ponder::blocks
