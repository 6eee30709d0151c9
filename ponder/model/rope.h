// Rotary tables: cosines and sines by position, with YaRN (Peng et al. 2023) and llama3 scaling applied to the frequencies.
#pragma once

#include <vector>

#include "ponder/model/config.h"
#include "ponder/ops/ops.h"

namespace ponder::model {

// Angle per position of each rotated pair, in double.
std::vector<double> rope_frequencies(const ModelConfig& config);

// What cosines and sines are multiplied by: YaRN's attention_factor, or what is computed where none is given.
double rope_magnitude(const ModelConfig& config);

class RopeCache {
 public:
  explicit RopeCache(const ModelConfig& config);
  // A table that covers positions 0 .. `positions` - 1; grows to the next power of two.
  ops::RopeTable table(int64_t positions);

 private:
  std::vector<double> frequencies_;
  double magnitude_;
  bool interleaved_;
  std::vector<float> cos_sin_;
  int64_t positions_ = 0;
};

}  // namespace ponder::model
