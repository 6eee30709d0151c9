#include "ponder/model/params.h"

#include <cmath>
#include <cstring>

#include "ponder/base/rng.h"

namespace ponder::model {

double fan_in_std(int64_t inputs) { return 1 / std::sqrt(static_cast<double>(inputs)); }
double output_std(const ModelConfig& config, int64_t inputs) {
  return fan_in_std(inputs) * config.init_output_scale / std::sqrt(static_cast<double>(config.num_hidden_layers));
}

ops::Param& Params::matrix(std::string name, std::vector<ops::Slice> slices, int64_t rows, int64_t cols,
                           double init_std) {
  ops::Param& p = list_.emplace_back();
  p.name = std::move(name);
  p.slices = std::move(slices);
  p.value = make_tensor(nullptr, {rows, cols});
  p.matrices = {.batch = 1, .n = rows, .k = cols, .offset = 0, .stride = 0};
  p.init_std = init_std;
  return p;
}

ops::Param& Params::vector(std::string name, std::vector<ops::Slice> slices, int64_t n, float init_value,
                           bool trainable) {
  ops::Param& p = list_.emplace_back();
  p.name = std::move(name);
  p.slices = std::move(slices);
  p.value = make_tensor(nullptr, {n});
  p.init_value = init_value;
  p.trainable = trainable;
  p.decay = false;
  return p;
}

namespace {
int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }  // every parameter starts on a cache line
}  // namespace

void Params::allocate(bool gradients) {
  PONDER_CHECK(!stored_ || !gradients, "stored weights cannot be trained");
  const auto held = [&](const ops::Param& p) { return !stored_ || p.value.rank == 1; };
  int64_t floats = 0;
  for (const ops::Param& p : list_)
    if (held(p)) floats += padded(p.value.size());
  values_ = Buffer(static_cast<size_t>(floats) * sizeof(float));
  if (gradients) gradients_ = Buffer(static_cast<size_t>(floats) * sizeof(float));
  int64_t at = 0;
  for (ops::Param& p : list_) {
    if (!held(p)) continue;
    const auto place = [&](Tensor& t, const Buffer& buffer) {
      t = p.value;
      t.data = t.storage = buffer.f32() + at;
    };
    if (gradients && p.trainable) place(p.grad, gradients_);
    place(p.value, values_);
    at += padded(p.value.size());
  }
}

void Params::initialize(uint64_t seed) {
  PONDER_CHECK(!stored_, "stored weights come from a file");
  uint64_t index = 0;
  for (ops::Param& p : list_) {
    CounterRng rng(seed, Stream::init, index++);
    float* x = p.value.f32();
    for (int64_t i = 0; i < p.value.size(); ++i)
      x[i] = p.init_std > 0 ? static_cast<float>(p.init_std * rng.normal()) : p.init_value;
  }
  bump_version();
}

void Params::zero_gradients() {
  if (gradients_.data()) std::memset(gradients_.data(), 0, gradients_.bytes());
}

void Params::bump_version() {
  ++version_;
  for (ops::Param& p : list_) p.version = version_;
}

int64_t Params::count() const {
  int64_t n = 0;
  for (const ops::Param& p : list_) n += p.value.size();
  return n;
}

}  // namespace ponder::model
