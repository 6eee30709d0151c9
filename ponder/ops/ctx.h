// What an operation needs from outside: where to compute, where to put results, and, in training, the tape.
#pragma once

#include <initializer_list>

#include "ponder/kernels/backend.h"
#include "ponder/tensor/tensor.h"

namespace ponder::ops {

class Tape;

struct Ctx {
  const kernels::Backend& backend;
  Arena& arena;
  Tape* tape = nullptr;  // null: inference. Operations record what backward needs if it is there.
  kernels::Activations activations = kernels::Activations::f32;  // of products with stored weights
  double flops = 0;  // of the forward pass so far: 2 per multiply-add that the mathematics needs

  Tensor empty(std::initializer_list<int64_t> shape, DType dtype = DType::f32) {
    Tensor t = make_tensor(nullptr, shape, dtype);
    t.data = t.storage = arena.allocate(static_cast<size_t>(t.size()) * dtype_bytes(dtype));
    return t;
  }
};

}  // namespace ponder::ops
