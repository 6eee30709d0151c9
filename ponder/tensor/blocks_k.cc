// Super-blocks of 256 numbers whose parts have scales of a few bits: decoding.
#include "ponder/tensor/blocks.h"

namespace ponder::blocks {

std::array<int8_t, 16> unpack_scales(const Q3K& b) {
  std::array<int8_t, 16> out;
  for (int j = 0; j < 16; ++j) {  // low four bits of two scales in each of 8 bytes, high two bits of four in each of 4
    const int low = j < 8 ? b.scales[j] & 15 : b.scales[j - 8] >> 4;
    const int high = b.scales[8 + j % 4] >> (j / 4 * 2) & 3;
    out[static_cast<size_t>(j)] = static_cast<int8_t>((low | high << 4) - 32);
  }
  return out;
}

namespace {

void decode_q2k(const Q2K& b, float* out) {
  const float d = b.d.f32(), dmin = b.dmin.f32();
  for (int part = 0; part < 16; ++part) {
    const float scale = d * static_cast<float>(b.scales[part] & 15);
    const float min = dmin * static_cast<float>(b.scales[part] >> 4);
    const uint8_t* codes = b.codes + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int j = 0; j < 16; ++j) out[16 * part + j] = scale * static_cast<float>(codes[j] >> shift & 3) - min;
  }
}

void decode_q3k(const Q3K& b, float* out) {
  const float d = b.d.f32();
  const auto scales = unpack_scales(b);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * static_cast<float>(scales[static_cast<size_t>(part)]);
    const uint8_t* codes = b.codes + part / 8 * 32 + part % 2 * 16;
    const uint8_t* high = b.high + part % 2 * 16;
    const int shift = part % 8 / 2 * 2, bit = part / 2;
    for (int j = 0; j < 16; ++j) {
      const int code = (codes[j] >> shift & 3) | (high[j] >> bit & 1) << 2;
      out[16 * part + j] = scale * static_cast<float>(code - 4);
    }
  }
}

void decode_q4k(const Q4K& b, float* out) {
  const float d = b.d.f32(), dmin = b.dmin.f32();
  const ScalesAndMins s = unpack_scales(b.scales);
  for (int part = 0; part < 8; ++part, out += 32) {
    const float scale = d * s.scale[part], min = dmin * s.min[part];
    const uint8_t* codes = b.codes + part / 2 * 32;
    if (part % 2 == 0)
      for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(codes[j] & 15) - min;
    else
      for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(codes[j] >> 4) - min;
  }
}

void decode_q5k(const Q5K& b, float* out) {
  const float d = b.d.f32(), dmin = b.dmin.f32();
  const ScalesAndMins s = unpack_scales(b.scales);
  for (int part = 0; part < 8; ++part, out += 32) {
    const float scale = d * s.scale[part], min = dmin * s.min[part];
    const uint8_t* codes = b.codes + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int j = 0; j < 32; ++j) {
      const int code = (codes[j] >> shift & 15) | (b.high[j] >> part & 1) << 4;
      out[j] = scale * static_cast<float>(code) - min;
    }
  }
}

void decode_q6k(const Q6K& b, float* out) {
  const float d = b.d.f32();
  for (int part = 0; part < 16; ++part, out += 16) {
    const float scale = d * b.scales[part];
    const int group = part % 8 / 2, half = part % 2 * 16;  // group: which 32 of the 128 numbers
    const uint8_t* low = b.low + part / 8 * 64 + group % 2 * 32 + half;
    const uint8_t* high = b.high + part / 8 * 32 + half;
    const int low_shift = group / 2 * 4, high_shift = group * 2;
    for (int j = 0; j < 16; ++j) {
      const int code = (low[j] >> low_shift & 15) | (high[j] >> high_shift & 3) << 4;
      out[j] = scale * static_cast<float>(code - 32);
    }
  }
}

void decode_iq4_xs(const Iq4Xs& b, float* out) {
  const float d = b.d.f32();
  for (int part = 0; part < 8; ++part, out += 32) {
    const int low = b.scales_low[part / 2] >> part % 2 * 4 & 15;
    const int high = b.scales_high[part / 4] >> part % 4 * 2 & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (int j = 0; j < 16; ++j) {
      out[j] = scale * kIq4Values[b.codes[16 * part + j] & 15];
      out[j + 16] = scale * kIq4Values[b.codes[16 * part + j] >> 4];
    }
  }
}

}  // namespace

constinit const Codec kQ2K = codec<Q2K, decode_q2k>();
constinit const Codec kQ3K = codec<Q3K, decode_q3k>();
constinit const Codec kQ4K = codec<Q4K, decode_q4k, encode_q4k>();
constinit const Codec kQ5K = codec<Q5K, decode_q5k, encode_q5k>();
constinit const Codec kQ6K = codec<Q6K, decode_q6k, encode_q6k>();
constinit const Codec kIq4Xs = codec<Iq4Xs, decode_iq4_xs>();

}  // namespace ponder::blocks
