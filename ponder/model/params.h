// All parameters of a model in one list: init, load, save, optimizer, counting and checkpoints walk it in this order.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "ponder/model/config.h"
#include "ponder/ops/param.h"

namespace ponder::model {

// Standard deviations of initial values: 1 / sqrt(inputs), and that of a layer's outputs, which add up over all layers.
double fan_in_std(int64_t inputs);
double output_std(const ModelConfig& config, int64_t inputs);

class Params {
 public:
  // `stored`: matrices keep the type that their file has and get their numbers from load_stored; only vectors are f32.
  explicit Params(bool stored) : stored_(stored) {}
  bool stored() const { return stored_; }

  // Declares a parameter; its memory comes with `allocate`. The reference stays valid.
  ops::Param& matrix(std::string name, std::vector<ops::Slice> slices, int64_t rows, int64_t cols, double init_std);
  ops::Param& vector(std::string name, std::vector<ops::Slice> slices, int64_t n, float init_value,
                     bool trainable = true);

  // One buffer for all values (of vectors only, where matrices are stored) and, for training, one for all gradients.
  void allocate(bool gradients);
  // Initial values: parameter i is a function of (seed, i).
  void initialize(uint64_t seed);
  void zero_gradients();
  // Weights changed: packed copies are stale, and so are cached prefixes.
  void bump_version();
  uint64_t version() const { return version_; }

  // What stored weights point into, as long as they live: the file, and the packed matrices.
  void keep(std::shared_ptr<const void> file, Buffer packed) {
    file_ = std::move(file);
    packed_ = std::move(packed);
  }

  std::deque<ops::Param>& list() { return list_; }
  const std::deque<ops::Param>& list() const { return list_; }
  int64_t count() const;  // numbers, trainable or not
  size_t value_bytes() const { return values_.bytes(); }

 private:
  bool stored_;
  std::deque<ops::Param> list_;
  std::shared_ptr<const void> file_;
  Buffer values_, gradients_, packed_;
  uint64_t version_ = 1;
};

}  // namespace ponder::model
