// Blocks of 32 (NVFP4: 64) numbers: decoding, and the bytes of ggml's reference quantisation.
#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>

#include "ponder/tensor/blocks.h"

namespace ponder::blocks {

namespace {

// Toward zero, like a cast, but with a value for every float.
int truncated(float x) { return x > -128.f ? x < 127.f ? static_cast<int>(x) : 127 : x <= -128.f ? -128 : 0; }

float inverse(float d) { return d != 0.f ? 1.f / d : 0.f; }

// The number farthest from 0, with its sign; the first of equals.
float extreme(const float* x, int n) {
  float most = 0.f, at = 0.f;
  for (int i = 0; i < n; ++i) {
    if (most >= std::fabs(x[i])) continue;
    most = std::fabs(x[i]);
    at = x[i];
  }
  return at;
}

struct Range {
  float low, high;
};
Range range(const float* x, int n) {
  Range r{FLT_MAX, -FLT_MAX};
  for (int i = 0; i < n; ++i) r = {std::min(r.low, x[i]), std::max(r.high, x[i])};
  return r;
}

// --- Nibbles, with a fifth bit or without ------------------------------------------------------------------------------

template <class Value>
void decode_nibbles(const uint8_t (&codes)[16], float* out, Value&& value) {
  for (int j = 0; j < 16; ++j) {
    out[j] = value(codes[j] & 15);
    out[j + 16] = value(codes[j] >> 4);
  }
}

template <class Value>
void decode_fives(const uint8_t (&codes)[16], const uint8_t (&high)[4], float* out, Value&& value) {
  const uint32_t bits = load_u32(high);
  for (int j = 0; j < 16; ++j) {
    out[j] = value(static_cast<int>((codes[j] & 15) | (bits >> j & 1) << 4));
    out[j + 16] = value(static_cast<int>(codes[j] >> 4 | (bits >> (j + 16) & 1) << 4));
  }
}

template <class Code>
void encode_nibbles(uint8_t (&codes)[16], Code&& code) {
  for (int j = 0; j < 16; ++j) codes[j] = static_cast<uint8_t>(code(j) | code(j + 16) << 4);
}

template <class Code>
void encode_fives(uint8_t (&codes)[16], uint8_t (&high)[4], Code&& code) {
  uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= static_cast<uint32_t>(code(j) >> 4) << j;
  std::memcpy(high, &bits, sizeof bits);
  encode_nibbles(codes, [&](int j) { return code(j) & 15; });
}

void decode_q4_0(const Q4_0& b, float* out) {
  const float d = b.d.f32();
  decode_nibbles(b.codes, out, [d](int code) { return static_cast<float>(code - 8) * d; });
}
void encode_q4_0(const float* x, Q4_0& b) {
  const float d = extreme(x, 32) / -8, inv = inverse(d);
  b.d = Half::of(d);
  encode_nibbles(b.codes, [&](int j) { return std::clamp(truncated(x[j] * inv + 8.5f), 0, 15); });
}

void decode_q4_1(const Q4_1& b, float* out) {
  const float d = b.d.f32(), m = b.m.f32();
  decode_nibbles(b.codes, out, [=](int code) { return static_cast<float>(code) * d + m; });
}
void encode_q4_1(const float* x, Q4_1& b) {
  const auto [low, high] = range(x, 32);
  const float d = (high - low) / 15, inv = inverse(d), base = low;
  b.d = Half::of(d);
  b.m = Half::of(low);
  encode_nibbles(b.codes, [&](int j) { return std::clamp(truncated((x[j] - base) * inv + 0.5f), 0, 15); });
}

void decode_q5_0(const Q5_0& b, float* out) {
  const float d = b.d.f32();
  decode_fives(b.codes, b.high, out, [d](int code) { return static_cast<float>(code - 16) * d; });
}
void encode_q5_0(const float* x, Q5_0& b) {
  const float d = extreme(x, 32) / -16, inv = inverse(d);
  b.d = Half::of(d);
  encode_fives(b.codes, b.high, [&](int j) { return std::clamp(truncated(x[j] * inv + 16.5f), 0, 31); });
}

void decode_q5_1(const Q5_1& b, float* out) {
  const float d = b.d.f32(), m = b.m.f32();
  decode_fives(b.codes, b.high, out, [=](int code) { return static_cast<float>(code) * d + m; });
}
void encode_q5_1(const float* x, Q5_1& b) {
  const auto [low, high] = range(x, 32);
  const float d = (high - low) / 31, inv = inverse(d), base = low;
  b.d = Half::of(d);
  b.m = Half::of(low);
  encode_fives(b.codes, b.high, [&](int j) { return std::clamp(truncated((x[j] - base) * inv + 0.5f), 0, 31); });
}

void decode_q8_0(const Q8_0& b, float* out) {
  const float d = b.d.f32();
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(b.codes[j]) * d;
}
void encode_q8_0(const float* x, Q8_0& b) {
  const float d = std::fabs(extreme(x, 32)) / 127, inv = inverse(d);
  b.d = Half::of(d);
  for (int j = 0; j < 32; ++j) b.codes[j] = static_cast<int8_t>(truncated(std::round(x[j] * inv)));
}

// --- Values of a table ------------------------------------------------------------------------------------------------

void decode_iq4_nl(const Iq4Nl& b, float* out) {
  const float d = b.d.f32();
  decode_nibbles(b.codes, out, [d](int code) { return d * kIq4Values[code]; });
}

// The nearest of the 16 values, the higher one of two as near.
int nearest_iq4(float x) {
  if (!(x > kIq4Values[0])) return 0;
  if (x >= kIq4Values[15]) return 15;
  const int above = static_cast<int>(std::upper_bound(kIq4Values.begin(), kIq4Values.end(), x) - kIq4Values.begin());
  return x - kIq4Values[above - 1] < kIq4Values[above] - x ? above - 1 : above;
}

// The scale that minimises the error weighted by x^2, searched around the one that maps the extreme to -127.
void encode_iq4_nl(const float* x, Iq4Nl& b) {
  b = {};
  const float most = extreme(x, 32);
  if (std::fabs(most) < 1e-15f) {
    for (uint8_t& code : b.codes) code = 0x88;
    return;
  }
  float d = 0.f, best = 0.f;
  const auto consider = [&](float inv, bool first) {
    float sum_qx = 0.f, sum_qq = 0.f;
    for (int j = 0; j < 32; ++j) {
      const float q = kIq4Values[nearest_iq4(inv * x[j])], w = x[j] * x[j];
      sum_qx += w * q * x[j];
      sum_qq += w * q * q;
    }
    if (!first && !(sum_qq > 0.f && sum_qx * sum_qx > best * sum_qq)) return;
    d = sum_qq > 0.f ? sum_qx / sum_qq : 0.f;
    best = d * sum_qx;
  };
  consider(1.f / (-most / kIq4Values[0]), true);
  for (int step = -7; step <= 7; ++step) consider(static_cast<float>(step + kIq4Values[0]) / most, false);
  b.d = Half::of(d);
  const float inv = inverse(d);
  encode_nibbles(b.codes, [&](int j) { return nearest_iq4(inv * x[j]); });
}

void decode_mxfp4(const Mxfp4& b, float* out) {
  const float d = mxfp4_scale(b.e);
  decode_nibbles(b.codes, out, [d](int code) { return static_cast<float>(kFp4Values[code]) * d; });
}

// The nearest value by magnitude, the smaller one of two as near; 0 has no sign.
int nearest_fp4(float x, float d) {
  int best = 0;
  float error = std::fabs(x);
  for (int i = 1; i < 8; ++i) {
    const float e = std::fabs(static_cast<float>(kFp4Values[i]) * d - std::fabs(x));
    if (e >= error) continue;
    error = e;
    best = i;
  }
  return best && x < 0 ? best + 8 : best;
}

void encode_mxfp4(const float* x, Mxfp4& b) {
  const float most = std::fabs(extreme(x, 32));
  // floor(log2f(most)) - 2, where log2f rounds to float: just below a power of two it is that power's.
  const float power = std::floor(static_cast<float>(std::log2(static_cast<double>(most)))) + 125.f;
  b.e = most > 0.f ? static_cast<uint8_t>(std::clamp(power, 0.f, 254.f)) : uint8_t{0};
  const float d = mxfp4_scale(b.e);
  encode_nibbles(b.codes, [&](int j) { return nearest_fp4(x[j], d); });
}

void decode_nvfp4(const Nvfp4& b, float* out) {
  for (int part = 0; part < 4; ++part) {
    const float d = nvfp4_scale(b.d[part]);
    for (int j = 0; j < 8; ++j) {
      const uint8_t codes = b.codes[8 * part + j];
      out[16 * part + j] = static_cast<float>(kFp4Values[codes & 15]) * d;
      out[16 * part + j + 8] = static_cast<float>(kFp4Values[codes >> 4]) * d;
    }
  }
}

}  // namespace

// E8M0 is 2^(e - 127); half of that, since the values of the table are doubled.
float mxfp4_scale(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : static_cast<uint32_t>(e - 1) << 23);
}

float nvfp4_scale(uint8_t d) { return d == 0x7F ? 0.f : 0.5f * fp8_to_f32(d & 0x7F); }

constinit const Codec kQ4_0 = codec<Q4_0, decode_q4_0, encode_q4_0>();
constinit const Codec kQ4_1 = codec<Q4_1, decode_q4_1, encode_q4_1>();
constinit const Codec kQ5_0 = codec<Q5_0, decode_q5_0, encode_q5_0>();
constinit const Codec kQ5_1 = codec<Q5_1, decode_q5_1, encode_q5_1>();
constinit const Codec kQ8_0 = codec<Q8_0, decode_q8_0, encode_q8_0>();
constinit const Codec kIq4Nl = codec<Iq4Nl, decode_iq4_nl, encode_iq4_nl>();
constinit const Codec kMxfp4 = codec<Mxfp4, decode_mxfp4, encode_mxfp4>();
constinit const Codec kNvfp4 = codec<Nvfp4, decode_nvfp4>();

}  // namespace ponder::blocks
