// Blocks of -1, 0 and 1 (BitNet b1.58, arXiv:2402.17764): decoding, and the bytes of ggml's reference quantisation.
#include <algorithm>
#include <cmath>

#include "ponder/tensor/blocks.h"

namespace ponder::blocks {

namespace {

// One scale, the largest magnitude; digits are 0, 1, 2.
struct Digits {
  Half d;
  uint8_t digit[kSuper];
};
Digits ternary(const float* x) {
  float most = 0.f;
  for (int i = 0; i < kSuper; ++i) most = std::max(most, std::fabs(x[i]));
  const float inv = most > 0.f ? 1.f / most : 0.f;
  Digits out;
  out.d = Half::of(most);
  for (int i = 0; i < kSuper; ++i) {
    const float scaled = std::round(x[i] * inv);
    out.digit[i] = scaled > 0.5f ? 2 : scaled < -0.5f ? 0 : 1;
  }
  return out;
}

// TQ1_0 lays out three runs of bytes; byte m of a run of `stride` bytes has the numbers m, m + stride, m + 2 stride, ...
struct Run {
  int stride, digits;
};
constexpr Run kRuns[] = {{32, 5}, {16, 5}, {4, 4}};

void decode_tq1_0(const Tq1_0& b, float* out) {
  constexpr uint8_t kPower[5] = {1, 3, 9, 27, 81};
  const float d = b.d.f32();
  const uint8_t* codes = b.codes;
  for (const Run& run : kRuns) {
    for (int k = 0; k < run.digits; ++k) {
      for (int m = 0; m < run.stride; ++m) {  // the fraction times 3^k without its whole part; then its first digit
        const auto rest = static_cast<uint8_t>(codes[m] * kPower[k]);
        *out++ = static_cast<float>((rest * 3 >> 8) - 1) * d;
      }
    }
    codes += run.stride;
  }
}

void encode_tq1_0(const float* x, Tq1_0& b) {
  const Digits t = ternary(x);
  const uint8_t* digit = t.digit;
  uint8_t* codes = b.codes;
  b.d = t.d;
  for (const Run& run : kRuns) {
    for (int m = 0; m < run.stride; ++m) {
      int number = 0;
      for (int k = 0; k < 5; ++k) number = number * 3 + (k < run.digits ? digit[m + k * run.stride] : 0);
      codes[m] = static_cast<uint8_t>((number * 256 + 242) / 243);  // rounded up, so that decoding finds the digits
    }
    codes += run.stride;
    digit += run.stride * run.digits;
  }
}

void decode_tq2_0(const Tq2_0& b, float* out) {
  const float d = b.d.f32();
  for (int group = 0; group < 8; ++group) {
    for (int j = 0; j < 32; ++j)
      *out++ = static_cast<float>((b.codes[group / 4 * 32 + j] >> (group % 4 * 2) & 3) - 1) * d;
  }
}

void encode_tq2_0(const float* x, Tq2_0& b) {
  const Digits t = ternary(x);
  b.d = t.d;
  for (int i = 0; i < 64; ++i) {
    const uint8_t* digit = t.digit + i / 32 * 128 + i % 32;
    b.codes[i] = static_cast<uint8_t>(digit[0] | digit[32] << 2 | digit[64] << 4 | digit[96] << 6);
  }
}

}  // namespace

constinit const Codec kTq1_0 = codec<Tq1_0, decode_tq1_0, encode_tq1_0>();
constinit const Codec kTq2_0 = codec<Tq2_0, decode_tq2_0, encode_tq2_0>();

}  // namespace ponder::blocks
