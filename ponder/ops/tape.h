// Reverse-mode differentiation over a tape of coarse operations.
//
// Every operation with a backward records one node: a small trivially destructible callable that lives in the arena.
// `backward` runs them in reverse order. A tensor is known by its storage, so the gradient of a view (some columns of a
// fused projection) is the same view of its storage's gradient. Gradients of activations live in the arena, gradients
// of parameters in the Param. Nothing is allocated from the heap after the first step.
#pragma once

#include <new>
#include <type_traits>
#include <vector>

#include "ponder/ops/ctx.h"

namespace ponder::ops {

class Tape {
 public:
  explicit Tape(Arena& arena) : arena_(arena) { entries_.resize(1024); }

  // f(Ctx&, Tape&) adds the gradients of the operation's inputs.
  template <class F>
  void record(F f) {
    static_assert(std::is_trivially_destructible_v<F>, "nodes live in the arena and are never destroyed");
    auto* node = new (arena_.allocate(sizeof(Holder<F>))) Holder<F>{{last_, &Holder<F>::call}, f};
    last_ = node;
  }

  // The gradient that reached `t`, or an empty tensor: then nothing depends on it and the node has no work.
  Tensor grad(const Tensor& t);

  // Where to add a gradient for `t`. The first writer of a whole tensor finds `accumulate` false and may overwrite.
  struct Slot {
    Tensor grad;
    bool accumulate;
  };
  Slot slot(const Tensor& t);

  // Starts backward with d loss / d t = values (copied), then runs all nodes, last first.
  void seed(const Tensor& t, const float* values);
  void backward(Ctx& ctx);

  // Forgets all nodes and gradients (the arena is reset by its owner).
  void clear();

 private:
  struct Node {
    Node* previous;
    void (*run)(Node*, Ctx&, Tape&);
  };
  template <class F>
  struct Holder : Node {
    F f;
    Holder(Node base, F g) : Node(base), f(g) {}
    static void call(Node* self, Ctx& ctx, Tape& tape) { static_cast<Holder*>(self)->f(ctx, tape); }
  };
  struct Entry {
    const void* storage = nullptr;
    void* grad = nullptr;
  };
  Entry& find(const void* storage);

  Arena& arena_;
  Node* last_ = nullptr;
  std::vector<Entry> entries_;  // open addressing; the size is a power of two
  size_t used_ = 0;
};

}  // namespace ponder::ops
