// Quantising to Q4_K, Q5_K and Q6_K without importance weights: the bytes of ggml's reference quantisation, as
// llama-quantize writes them without an importance matrix. Sums are added in its order, so that ties fall the same way.
#include <algorithm>
#include <bit>
#include <cmath>

#include "ponder/tensor/blocks.h"

namespace ponder::blocks {

namespace {

constexpr float kTiny = 1e-15f;  // a group with no number above it counts as zeros

// To the nearest integer, half to even, for magnitudes below 2^22; any other float gives some integer.
int nearest(float x) { return static_cast<int>(std::bit_cast<uint32_t>(x + 0x1.8p23f) & 0x7FFFFFu) - 0x400000; }
int nearest(float x, int low, int high) { return std::clamp(nearest(x), low, high); }

// --- Scale and minimum: x = scale * code - min -------------------------------------------------------------------------

struct Affine {
  float scale, min;  // neither is negative
};

struct AffineSearch {
  int top;      // codes are 0 .. top
  float first;  // candidates spread the range over top + first, top + first + 0.1, ...
  int steps;
};

// Minimises the squared error over 32 numbers, weighted by their magnitude plus its mean: for each candidate's codes the
// best scale and minimum follow from the normal equations. A better minimum is where later candidates begin.
Affine fit_affine(const float* x, const AffineSearch& search, uint8_t* codes) {
  constexpr int n = 32;
  float squares = 0.f;
  for (int i = 0; i < n; ++i) squares += x[i] * x[i];
  const float mean = std::sqrt(squares / n);
  float w[n];
  for (int i = 0; i < n; ++i) w[i] = mean + std::fabs(x[i]);

  float low = x[0], high = x[0], sum_w = w[0], sum_x = sum_w * x[0];
  for (int i = 1; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  low = std::min(low, 0.f);
  if (high == low) {
    std::fill_n(codes, n, uint8_t{0});
    return {0.f, -low};
  }

  const auto top = static_cast<float>(search.top);
  const float inverse = top / (high - low);
  float scale = 1.f / inverse, min = low, code[n];
  const auto encode = [&](float inverse) {
    for (int i = 0; i < n; ++i) code[i] = static_cast<float>(nearest(inverse * (x[i] - min), 0, search.top));
  };
  const auto error = [&](float s, float m) {
    float sum = 0.f;
    for (int i = 0; i < n; ++i) {
      const float difference = s * code[i] + m - x[i];
      sum += w[i] * (difference * difference);
    }
    return sum;
  };
  const auto keep = [&] {
    for (int i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(code[i]);
  };

  encode(inverse);
  keep();
  float best = error(scale, min);
  for (int step = 0; step <= search.steps; ++step) {
    encode((search.first + 0.1f * static_cast<float>(step) + top) / (high - min));
    float sum_l = 0.f, sum_l2 = 0.f, sum_xl = 0.f;
    for (int i = 0; i < n; ++i) {
      const float wl = w[i] * code[i];
      sum_l += wl;
      sum_l2 += wl * code[i];
      sum_xl += wl * x[i];
    }
    const float determinant = sum_w * sum_l2 - sum_l * sum_l;
    if (!(determinant > 0.f)) continue;
    float this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    float this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    if (this_min > 0.f) {
      this_min = 0.f;
      this_scale = sum_xl / sum_l2;
    }
    const float this_error = error(this_scale, this_min);
    if (!(this_error < best)) continue;
    best = this_error;
    scale = this_scale;
    min = this_min;
    keep();
  }
  return {scale, -min};
}

void pack_scales(const ScalesAndMins& s, uint8_t (&packed)[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(s.scale[j] | (s.scale[j + 4] >> 4) << 6);
    packed[j + 4] = static_cast<uint8_t>(s.min[j] | (s.min[j + 4] >> 4) << 6);
    packed[j + 8] = static_cast<uint8_t>((s.scale[j + 4] & 15) | (s.min[j + 4] & 15) << 4);
  }
}

// What Q4_K and Q5_K share: scales and mins of the 8 parts, and 256 codes.
template <class Block>
void encode_affine(const float* x, const AffineSearch& search, Block& out, uint8_t (&codes)[kSuper]) {
  Affine part[8];
  float most_scale = 0.f, most_min = 0.f;
  for (int j = 0; j < 8; ++j) {
    part[j] = fit_affine(x + 32 * j, search, codes + 32 * j);
    most_scale = std::max(most_scale, part[j].scale);
    most_min = std::max(most_min, part[j].min);
  }
  const float inverse_scale = most_scale > 0.f ? 63.f / most_scale : 0.f;
  const float inverse_min = most_min > 0.f ? 63.f / most_min : 0.f;
  ScalesAndMins s;
  for (int j = 0; j < 8; ++j) {
    s.scale[j] = static_cast<uint8_t>(nearest(inverse_scale * part[j].scale, 0, 63));
    s.min[j] = static_cast<uint8_t>(nearest(inverse_min * part[j].min, 0, 63));
  }
  out.d = Half::of(most_scale / 63.f);
  out.dmin = Half::of(most_min / 63.f);
  pack_scales(s, out.scales);
  for (int j = 0; j < 8; ++j) {  // the codes that suit the rounded scales best
    const float d = out.d.f32() * s.scale[j], min = out.dmin.f32() * s.min[j];
    if (d == 0.f) continue;
    for (int i = 32 * j; i < 32 * (j + 1); ++i)
      codes[i] = static_cast<uint8_t>(nearest((x[i] + min) / d, 0, search.top));
  }
}

// --- Scale alone: x = scale * code, codes of both signs ----------------------------------------------------------------

// Minimises the error over 16 numbers weighted by x^2; codes are -top .. top - 1, stored plus top.
float fit_scale(const float* x, int top, uint8_t* codes) {
  constexpr int n = 16;
  float most = 0.f, at = 0.f;
  for (int i = 0; i < n; ++i) {
    if (most >= std::fabs(x[i])) continue;
    most = std::fabs(x[i]);
    at = x[i];
  }
  if (most < kTiny) {
    std::fill_n(codes, n, uint8_t{0});
    return 0.f;
  }
  float scale = 0.f, best = 0.f;
  const auto consider = [&](float inverse, bool first) {
    float code[n], sum_xl = 0.f, sum_l2 = 0.f;
    for (int i = 0; i < n; ++i) code[i] = static_cast<float>(nearest(inverse * x[i], -top, top - 1));
    for (int i = 0; i < n; ++i) {
      const float w = x[i] * x[i];
      sum_xl += w * x[i] * code[i];
      sum_l2 += w * code[i] * code[i];
    }
    if (!first && !(sum_l2 > 0.f && sum_xl * sum_xl > best * sum_l2)) return;
    scale = sum_l2 != 0.f ? sum_xl / sum_l2 : 0.f;
    best = scale * sum_xl;
    for (int i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(code[i]) + top);
  };
  consider(static_cast<float>(-top) / at, true);
  for (int step = -9; step <= 9; ++step)
    if (step) consider(-(static_cast<float>(top) + 0.1f * static_cast<float>(step)) / at, false);
  return scale;
}

}  // namespace

void encode_q4k(const float* x, Q4K& out) {
  uint8_t codes[kSuper];
  encode_affine(x, {.top = 15, .first = -1.f, .steps = 20}, out, codes);
  for (int i = 0; i < 128; ++i) {
    const uint8_t* code = codes + i / 32 * 64 + i % 32;
    out.codes[i] = static_cast<uint8_t>(code[0] | code[32] << 4);
  }
}

void encode_q5k(const float* x, Q5K& out) {
  uint8_t codes[kSuper];
  encode_affine(x, {.top = 31, .first = -0.5f, .steps = 15}, out, codes);
  for (int i = 0; i < 128; ++i) {
    const uint8_t* code = codes + i / 32 * 64 + i % 32;
    out.codes[i] = static_cast<uint8_t>((code[0] & 15) | (code[32] & 15) << 4);
  }
  for (int j = 0; j < 32; ++j) {
    int bits = 0;
    for (int part = 0; part < 8; ++part) bits |= (codes[32 * part + j] >> 4) << part;
    out.high[j] = static_cast<uint8_t>(bits);
  }
}

void encode_q6k(const float* x, Q6K& out) {
  uint8_t codes[kSuper];
  float scales[16], most = 0.f;
  for (int part = 0; part < 16; ++part) {
    scales[part] = fit_scale(x + 16 * part, 32, codes + 16 * part);
    if (std::fabs(scales[part]) > std::fabs(most)) most = scales[part];
  }
  out = {};
  if (std::fabs(most) < kTiny) return;

  const float inverse = -128.f / most;
  out.d = Half::of(1.f / inverse);
  for (int part = 0; part < 16; ++part) {
    out.scales[part] = static_cast<int8_t>(nearest(inverse * scales[part], -128, 127));
    const float d = out.d.f32() * out.scales[part];
    if (d == 0.f) continue;
    for (int i = 16 * part; i < 16 * (part + 1); ++i) codes[i] = static_cast<uint8_t>(nearest(x[i] / d, -32, 31) + 32);
  }
  for (int half = 0; half < 2; ++half) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t* code = codes + 128 * half + l;
      out.low[64 * half + l] = static_cast<uint8_t>((code[0] & 15) | (code[64] & 15) << 4);
      out.low[64 * half + l + 32] = static_cast<uint8_t>((code[32] & 15) | (code[96] & 15) << 4);
      out.high[32 * half + l] =
          static_cast<uint8_t>(code[0] >> 4 | code[32] >> 4 << 2 | code[64] >> 4 << 4 | code[96] >> 4 << 6);
    }
  }
}

}  // namespace ponder::blocks
