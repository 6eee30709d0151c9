// A tensor of weights: value, gradient, the names under which checkpoints know it, and its packed working copy.
//
// A Param is one of two things. Trainable (and of f32 checkpoints): `value` holds the numbers, row after row. Stored:
// the numbers stay in the type that their file has (BF16, FP8, Q4_K ...), `value` is empty, and all that can be done is
// to multiply with them, in the backend's packed form, or to look rows up.
// Experts may stay in the mapped file altogether, to be packed each time they are multiplied with.
//
// A Param may hold several released tensors one below the other ([gate; up], [q; k; v], all experts of a layer), because
// one product is faster than three; every output is a dot product of its own, so fusing changes no bits. Slices say
// which rows belong to which released name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ponder/kernels/backend.h"
#include "ponder/tensor/tensor.h"

namespace ponder::ops {

struct Slice {
  std::string name;            // the released tensor name, e.g. model.layers.0.mlp.gate_proj.weight
  int64_t offset;              // first element in the Param
  std::vector<int64_t> shape;  // as released
  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// The numbers of a stored Param.
struct StoredWeights {
  std::vector<kernels::WeightPart> parts;  // one below the other in each matrix: released tensors may differ in type
  std::vector<Quantized> mapped;           // [parts, batch] where they stay in the file; empty: they are packed
  Quantized table;                         // for look-ups: the rows as the file has them
};

struct Param {
  std::string name;
  Tensor value;           // [rows, cols] or [n]; without data in a stored Param
  Tensor grad;            // the same shape; empty when the model was made without gradients
  bool trainable = true;  // false: router biases, moved by counts and not by a gradient
  bool decay = true;      // weight decay applies (matrices)
  double init_std = 0;    // initial values N(0, init_std^2); 0: `init_value`
  float init_value = 0;
  std::vector<Slice> slices;

  // How `linear` and friends read it: `batch` matrices [n, k], the first at element `offset`, `stride` apart.
  struct Matrices {
    int64_t batch = 1, n = 0, k = 0, offset = 0, stride = 0;
  };
  Matrices matrices;

  bool looked_up = false;    // rows are read by id (embedding)
  bool multiplied = true;    // products read it (false: an embedding with a head of its own)
  bool routed = false;       // one matrix an expert, of which a token passes through those that the router chose
  bool for_prompts = false;  // generated tokens do not pass through (the expanded half of model::MlaForm::by_token)
  // Share of the numbers that a generated token passes through: experts K / E; look-ups and MTP modules 0.
  double visited = 1;
  std::unique_ptr<StoredWeights> stored;

  // The matrices in the backend's packed form (null where it does not pack); made again after `version` has moved.
  const float* packed(const kernels::Backend& backend) const;
  uint64_t version = 1;

 private:
  mutable Buffer packed_;
  mutable uint64_t packed_version_ = 0;
};

}  // namespace ponder::ops
