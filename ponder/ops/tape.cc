#include "ponder/ops/tape.h"

#include <cstring>

namespace ponder::ops {

Tape::Entry& Tape::find(const void* storage) {
  if (used_ * 2 >= entries_.size()) {
    std::vector<Entry> old(entries_.size() * 2);
    old.swap(entries_);
    used_ = 0;
    for (const Entry& e : old)
      if (e.storage) find(e.storage) = e;
  }
  const size_t mask = entries_.size() - 1;
  size_t i = (reinterpret_cast<uintptr_t>(storage) >> 6) * 0x9E3779B97F4A7C15ull >> 20 & mask;
  while (entries_[i].storage && entries_[i].storage != storage) i = (i + 1) & mask;
  if (!entries_[i].storage) {
    entries_[i].storage = storage;
    ++used_;
  }
  return entries_[i];
}

namespace {
// The view of `grad` (a gradient of the whole storage) that corresponds to `t`.
Tensor same_view(const Tensor& t, void* grad) {
  Tensor g = t;
  g.storage = grad;
  g.data = static_cast<char*>(grad) + (static_cast<const char*>(t.data) - static_cast<const char*>(t.storage));
  return g;
}
}  // namespace

Tensor Tape::grad(const Tensor& t) {
  void* grad = find(t.storage).grad;
  return grad ? same_view(t, grad) : Tensor{};
}

Tape::Slot Tape::slot(const Tensor& t) {
  Entry& e = find(t.storage);
  if (e.grad) return {same_view(t, e.grad), true};
  e.grad = arena_.allocate(static_cast<size_t>(t.storage_bytes));
  if (t.whole()) return {same_view(t, e.grad), false};
  std::memset(e.grad, 0, static_cast<size_t>(t.storage_bytes));
  return {same_view(t, e.grad), true};
}

void Tape::seed(const Tensor& t, const float* values) {
  const Slot s = slot(t);
  PONDER_CHECK(!s.accumulate && t.whole(), "a seed is the first gradient of a whole tensor, not of {}",
               t.shape_string());
  std::memcpy(s.grad.data, values, static_cast<size_t>(t.storage_bytes));
}

void Tape::backward(Ctx& ctx) {
  for (Node* n = last_; n; n = n->previous) n->run(n, ctx, *this);
}

void Tape::clear() {
  last_ = nullptr;
  if (used_) std::fill(entries_.begin(), entries_.end(), Entry{});
  used_ = 0;
}

}  // namespace ponder::ops
