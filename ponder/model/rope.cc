#include "ponder/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ponder::model {

std::vector<double> rope_frequencies(const ModelConfig& c) {
  const int dim = c.mla() ? c.qk_rope_head_dim : c.rotary_width();
  const double pi = std::numbers::pi, original = c.original_max_position_embeddings;
  std::vector<double> f(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < f.size(); ++i) f[i] = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / dim);
  if (c.rope_scaling == "yarn") {
    // The pair that turns r times over the original context; fast pairs keep their frequency, slow ones are stretched.
    const auto corrected = [&](double r) {
      return dim * std::log(original / (2 * pi * r)) / (2 * std::log(c.rope_theta));
    };
    const double low = std::max(std::floor(corrected(c.beta_fast)), 0.0);
    double high = std::min(std::ceil(corrected(c.beta_slow)), dim - 1.0);
    if (low == high) high += 0.001;
    for (size_t i = 0; i < f.size(); ++i) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f[i] = f[i] / c.rope_factor * ramp + f[i] * (1 - ramp);
    }
  } else if (c.rope_scaling == "llama3") {
    for (double& w : f) {
      const double wavelength = 2 * pi / w;
      if (wavelength > original / c.low_freq_factor) {
        w /= c.rope_factor;
      } else if (wavelength >= original / c.high_freq_factor) {
        const double smooth = (original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
        w = (1 - smooth) * w / c.rope_factor + smooth * w;
      }
    }
  }
  return f;
}

double rope_magnitude(const ModelConfig& c) {
  if (c.rope_scaling != "yarn") return 1;
  if (c.attention_factor > 0) return c.attention_factor;
  if (c.rope_factor <= 1) return 1;
  const auto m = [&](double a) { return 0.1 * a * std::log(c.rope_factor) + 1; };
  return c.mscale_all_dim != 0 ? m(c.mscale) / m(c.mscale_all_dim) : m(c.mscale);
}

RopeCache::RopeCache(const ModelConfig& c)
    : frequencies_(rope_frequencies(c)), magnitude_(rope_magnitude(c)), interleaved_(c.mla()) {}

ops::RopeTable RopeCache::table(int64_t positions) {
  const int64_t pairs = static_cast<int64_t>(frequencies_.size());
  if (positions > positions_) {
    int64_t grown = std::max<int64_t>(positions_, 256);
    while (grown < positions) grown *= 2;
    cos_sin_.resize(static_cast<size_t>(grown * pairs * 2));
    for (int64_t p = positions_; p < grown; ++p)
      for (int64_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(p) * frequencies_[static_cast<size_t>(i)];
        cos_sin_[static_cast<size_t>(p * 2 * pairs + i)] = static_cast<float>(magnitude_ * std::cos(angle));
        cos_sin_[static_cast<size_t>(p * 2 * pairs + pairs + i)] = static_cast<float>(magnitude_ * std::sin(angle));
      }
    positions_ = grown;
  }
  return {cos_sin_.data(), static_cast<int>(2 * pairs), interleaved_};
}

}  // namespace ponder::model
