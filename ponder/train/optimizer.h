// AdamW over named slots of f32 parameters, with clipping by the global gradient norm.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ponder/kernels/backend.h"
#include "ponder/tensor/tensor.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::train {

struct AdamWConfig {
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1;

  template <class V>
  void fields(V& v) {
    v.field("weight_decay", weight_decay, {.help = "decoupled, times the rate; on matrices only", .min = 0});
    v.field("adam_beta1", adam_beta1, {.help = "decay of the first moment", .min = 0, .max = 0.9999999});
    v.field("adam_beta2", adam_beta2, {.help = "decay of the second moment", .min = 0, .max = 0.9999999});
    v.field("adam_epsilon", adam_epsilon, {.help = "added to the root of the second moment", .min = 1e-30});
    v.field("max_grad_norm", max_grad_norm,
            {.help = "the gradient is scaled down to this norm; 0: never",
             .synonyms = {"grad_clip", "clip_grad"},
             .min = 0});
  }
};

// One parameter: n floats and their gradient, owned by the model, at fixed addresses.
struct Slot {
  std::string name;
  float* value;
  const float* grad;
  int64_t n;
  bool decay;
};

class AdamW {
 public:
  AdamW(std::vector<Slot> slots, const AdamWConfig& config, const kernels::Backend& backend);

  struct Report {
    bool applied = true;       // false: nothing was changed
    double grad_norm = 0;      // over all slots, before clipping
    double grad_scale = 1;     // min(1, max_grad_norm / (grad_norm + 1e-6))
    std::string first_broken;  // the first slot whose gradient is not finite
  };
  // Changes nothing if the norm is not finite, or if something else is not (`usable` false: the loss).
  Report step(double learning_rate, bool usable = true);

  int64_t steps() const { return steps_; }  // applied ones
  int64_t bytes() const { return static_cast<int64_t>(moments_.bytes()); }
  static int64_t bytes_for(std::span<const Slot> slots);  // for the memory plan, before anything is allocated

  // For checkpoints: adam.step (I64 [1]), then adam.m.NAME and adam.v.NAME (F32 [n]) of every slot: views of the state.
  std::vector<NamedTensor> state();
  // Takes exactly those from a checkpoint; an Error names what is missing or has another size, and changes nothing.
  void load_state(const Checkpoint& checkpoint);

 private:
  float* first_moment(size_t slot) const { return moments_.f32() + offsets_[slot]; }
  float* second_moment(size_t slot) const { return first_moment(slot) + padded(slots_[slot].n); }
  static int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }  // rows of cache lines

  std::vector<Slot> slots_;
  AdamWConfig config_;
  const kernels::Backend& backend_;
  std::vector<int64_t> offsets_;  // of a slot's first moment in the buffer, in floats
  Buffer moments_;
  std::vector<double> scratch_;
  int64_t steps_ = 0;
};

}  // namespace ponder::train
