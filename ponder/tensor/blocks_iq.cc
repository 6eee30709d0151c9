// Super-blocks of 256 numbers whose groups of 8 (IQ1, IQ2) or 4 (IQ3) magnitudes come from a codebook: decoding.
#include <bit>

#include "ponder/tensor/blocks.h"
#include "ponder/tensor/blocks_iq_grids.h"

namespace ponder::blocks {

namespace {

// A codebook expanded from its packed text, once, at its first use.
template <int kGroups, int kSize>
struct Grid {
  int8_t group[kGroups][kSize];

  template <size_t kValues>
  Grid(const char* packed, const int8_t (&alphabet)[kValues]) {
    const auto digit = [](char c) { return c - '#' - (c > '?') - (c > '\\'); };
    for (auto& values : group) {
      int number = digit(packed[0]) + 90 * digit(packed[1]);
      packed += 2;
      for (int8_t& v : values) {
        v = alphabet[static_cast<size_t>(number) % kValues];
        number /= static_cast<int>(kValues);
      }
    }
  }
};

constexpr int8_t kIq1Alphabet[] = {-1, 0, 1};
constexpr int8_t kIq2Alphabet[] = {8, 25, 43};
constexpr int8_t kIq3XxsAlphabet[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr int8_t kIq3SAlphabet[] = {1, 3, 5, 7, 9, 11, 13, 15};

// Seven stored signs stand for eight: the number of minus signs is even.
unsigned eight_signs(uint32_t seven) {
  seven &= 127;
  return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7;
}

template <int kSize>
float* put(const int8_t (&group)[kSize], float scale, unsigned signs, float* out) {
  constexpr uint32_t kBit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  for (int j = 0; j < kSize; ++j) {
    const uint32_t minus = signs & kBit[j] ? 0x80000000u : 0u;
    out[j] = std::bit_cast<float>(std::bit_cast<uint32_t>(scale * static_cast<float>(group[j])) ^ minus);
  }
  return out + kSize;
}

// The scales of IQ2: 4 bits.
float quarter(float d, int scale) { return d * (0.5f + static_cast<float>(scale)) * 0.25f; }

void decode_iq2_xxs(const Iq2Xxs& b, float* out) {
  static const Grid<256, 8> grid(kIq2XxsGrid, kIq2Alphabet);
  const float d = b.d.f32();
  for (int part = 0; part < 8; ++part) {
    const uint8_t* codes = b.codes + 8 * part;  // 4 codes, then 4 x 7 signs and the scale
    const uint32_t signs = load_u32(codes + 4);
    const float scale = quarter(d, static_cast<int>(signs >> 28));
    for (int l = 0; l < 4; ++l) out = put(grid.group[codes[l]], scale, eight_signs(signs >> 7 * l), out);
  }
}

void decode_iq2_xs(const Iq2Xs& b, float* out) {
  static const Grid<512, 8> grid(kIq2XsGrid, kIq2Alphabet);
  const float d = b.d.f32();
  for (int i = 0; i < 32; ++i) {
    const unsigned code = static_cast<unsigned>(b.codes[2 * i] | b.codes[2 * i + 1] << 8);  // 9 bits of code, 7 signs
    const float scale = quarter(d, b.scales[i / 4] >> i % 4 / 2 * 4 & 15);
    out = put(grid.group[code & 511], scale, eight_signs(code >> 9), out);
  }
}

void decode_iq2_s(const Iq2S& b, float* out) {
  static const Grid<1024, 8> grid(kIq2SGrid, kIq2Alphabet);
  const float d = b.d.f32();
  for (int i = 0; i < 32; ++i) {
    const int code = b.codes[i] | (b.high[i / 4] >> i % 4 * 2 & 3) << 8;
    const float scale = quarter(d, b.scales[i / 4] >> i % 4 / 2 * 4 & 15);
    out = put(grid.group[code], scale, b.signs[i], out);
  }
}

void decode_iq3_xxs(const Iq3Xxs& b, float* out) {
  static const Grid<256, 4> grid(kIq3XxsGrid, kIq3XxsAlphabet);
  const float d = b.d.f32();
  for (int part = 0; part < 8; ++part) {
    const uint32_t packed = load_u32(b.scales_and_signs + 4 * part);
    const float scale = d * (0.5f + static_cast<float>(packed >> 28)) * 0.5f;
    for (int l = 0; l < 4; ++l) {
      const unsigned signs = eight_signs(packed >> 7 * l);
      out = put(grid.group[b.codes[8 * part + 2 * l]], scale, signs, out);
      out = put(grid.group[b.codes[8 * part + 2 * l + 1]], scale, signs >> 4, out);
    }
  }
}

void decode_iq3_s(const Iq3S& b, float* out) {
  static const Grid<512, 4> grid(kIq3SGrid, kIq3SAlphabet);
  const float d = b.d.f32();
  for (int i = 0; i < 64; ++i) {
    const int code = b.codes[i] | (b.high[i / 8] >> i % 8 & 1) << 8;
    const float scale = d * static_cast<float>(1 + 2 * (b.scales[i / 16] >> i % 16 / 8 * 4 & 15));
    out = put(grid.group[code], scale, b.signs[i / 2] >> i % 2 * 4, out);
  }
}

const Grid<2048, 8>& iq1_grid() {
  static const Grid<2048, 8> grid(kIq1Grid, kIq1Alphabet);
  return grid;
}

// IQ1: every value of a group is shifted by an eighth, up or down.
float* put_shifted(const int8_t (&group)[8], float scale, bool down, float* out) {
  for (int j = 0; j < 8; ++j) out[j] = scale * (static_cast<float>(group[j]) + (down ? -0.125f : 0.125f));
  return out + 8;
}

void decode_iq1_s(const Iq1S& b, float* out) {
  const auto& grid = iq1_grid();
  const float d = b.d.f32();
  for (int part = 0; part < 8; ++part) {
    const int high = b.high[2 * part] | b.high[2 * part + 1] << 8;  // 4 x 3 bits of codes, scale, shift
    const float scale = d * static_cast<float>(2 * (high >> 12 & 7) + 1);
    for (int l = 0; l < 4; ++l)
      out = put_shifted(grid.group[b.codes[4 * part + l] | (high >> 3 * l & 7) << 8], scale, high & 0x8000, out);
  }
}

void decode_iq1_m(const Iq1M& b, float* out) {
  const auto& grid = iq1_grid();
  unsigned d_bits = 0;  // the scale is spread over the top four bits of four words; the rest are 16 x 3 bits of scales
  unsigned scales[4];
  for (int i = 0; i < 4; ++i) {
    scales[i] = static_cast<unsigned>(b.scales[2 * i] | b.scales[2 * i + 1] << 8);
    d_bits |= scales[i] >> 12 << 4 * i;
  }
  const float d = f16_to_f32(static_cast<uint16_t>(d_bits));
  for (int i = 0; i < 32; ++i) {
    const int high = b.high[i / 2] >> i % 2 * 4;  // 3 bits of a code, shift
    const int pair = i / 2;
    const float scale = d * static_cast<float>(2 * (scales[pair / 4] >> 3 * (pair % 4) & 7) + 1);
    out = put_shifted(grid.group[b.codes[i] | (high & 7) << 8], scale, high & 8, out);
  }
}

}  // namespace

constinit const Codec kIq1S = codec<Iq1S, decode_iq1_s>();
constinit const Codec kIq1M = codec<Iq1M, decode_iq1_m>();
constinit const Codec kIq2Xxs = codec<Iq2Xxs, decode_iq2_xxs>();
constinit const Codec kIq2Xs = codec<Iq2Xs, decode_iq2_xs>();
constinit const Codec kIq2S = codec<Iq2S, decode_iq2_s>();
constinit const Codec kIq3Xxs = codec<Iq3Xxs, decode_iq3_xxs>();
constinit const Codec kIq3S = codec<Iq3S, decode_iq3_s>();

}  // namespace ponder::blocks
