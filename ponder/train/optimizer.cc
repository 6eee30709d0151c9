#include "ponder/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ponder/base/error.h"

namespace ponder::train {
namespace {

constexpr int64_t kSumChunk = 4096;  // of kernels::SumSquares

// x^n by squaring: the same bits on every machine, which a library's pow does not promise.
double power(double x, int64_t n) {
  double result = 1;
  for (; n; n >>= 1, x *= x)
    if (n & 1) result *= x;
  return result;
}

}  // namespace

int64_t AdamW::bytes_for(std::span<const Slot> slots) {
  int64_t floats = 0;
  for (const Slot& s : slots) floats += 2 * padded(s.n);
  return floats * static_cast<int64_t>(sizeof(float));
}

AdamW::AdamW(std::vector<Slot> slots, const AdamWConfig& config, const kernels::Backend& backend)
    : slots_(std::move(slots)), config_(config), backend_(backend), moments_(static_cast<size_t>(bytes_for(slots_))) {
  int64_t floats = 0, largest = 0;
  for (const Slot& s : slots_) {
    offsets_.push_back(floats);
    floats += 2 * padded(s.n);
    largest = std::max(largest, s.n);
  }
  scratch_.resize(static_cast<size_t>((largest + kSumChunk - 1) / kSumChunk));
}

AdamW::Report AdamW::step(double learning_rate, bool usable) {
  Report report;
  double squares = 0;
  for (const Slot& s : slots_) {
    double sum = 0;
    backend_.sum_squares({.n = s.n, .x = s.grad, .out = &sum, .scratch = scratch_.data()});
    if (!std::isfinite(sum) && report.first_broken.empty()) report.first_broken = s.name;
    squares += sum;
  }
  report.grad_norm = std::sqrt(squares);
  if (!usable || !std::isfinite(report.grad_norm)) {
    report.applied = false;
    return report;
  }
  if (config_.max_grad_norm > 0) report.grad_scale = std::min(1.0, config_.max_grad_norm / (report.grad_norm + 1e-6));

  ++steps_;
  // The kernel's betas are floats; the corrections follow from those, so that a first step is exactly sign-like.
  const float beta1 = static_cast<float>(config_.adam_beta1), beta2 = static_cast<float>(config_.adam_beta2);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& s = slots_[i];
    backend_.adamw({.n = s.n,
                    .p = s.value,
                    .m = first_moment(i),
                    .v = second_moment(i),
                    .g = s.grad,
                    .grad_scale = static_cast<float>(report.grad_scale),
                    .lr = static_cast<float>(learning_rate),
                    .beta1 = beta1,
                    .beta2 = beta2,
                    .eps = static_cast<float>(config_.adam_epsilon),
                    .weight_decay = s.decay ? static_cast<float>(config_.weight_decay) : 0,
                    .correction1 = 1 - power(beta1, steps_),
                    .correction2 = 1 - power(beta2, steps_)});
  }
  return report;
}

std::vector<NamedTensor> AdamW::state() {
  std::vector<NamedTensor> out = {{"adam.step", make_tensor(&steps_, {1}, DType::i64), DType::i64}};
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& s = slots_[i];
    out.push_back({"adam.m." + s.name, make_tensor(first_moment(i), {s.n}), DType::f32});
    out.push_back({"adam.v." + s.name, make_tensor(second_moment(i), {s.n}), DType::f32});
  }
  return out;
}

void AdamW::load_state(const Checkpoint& checkpoint) {
  const std::vector<NamedTensor> wanted = state();
  for (const NamedTensor& t : wanted) {
    const TensorEntry& e = checkpoint.at(t.name);
    const StoredType type = t.tensor.dtype == DType::i64 ? StoredType::i64 : StoredType::f32;
    if (e.dtype != type || e.size() != t.tensor.size())
      throw_error(Exit::data, "{}: {} is {} {}, this model's is {} {}: another model or optimizer?", checkpoint.path(),
                  t.name, stored_type_name(e.dtype), e.shape_string(), stored_type_name(type), t.tensor.shape_string());
  }
  for (const NamedTensor& t : wanted) {
    const TensorEntry& e = checkpoint.at(t.name);
    std::memcpy(t.tensor.data, e.bytes.data(), e.bytes.size());
  }
}

}  // namespace ponder::train
