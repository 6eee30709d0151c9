// From hidden states to tokens: the head, what a request changes of its logits, the draw by counters.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ponder/engine/sequence.h"
#include "ponder/model/model.h"

namespace ponder::engine {

// Keeps the memory of its lists; without other state.
class Sampler {
 public:
  explicit Sampler(const model::Model& model) : model_(model) {}

  struct Drawn {
    Tensor tokens, logp, entropy;  // [decisions], in the arena of the step
  };
  // A token for each decision from its row of h (normed). A token is a function of its logits, its sequence's seed and its
  // position. Log-probs and entropies are those of the model at the request's temperature, whatever else was changed.
  Drawn draw(ops::Ctx& ctx, const Tensor& h, std::span<const Decision> decisions);

 private:
  void adjust(const Decision& decision, float* logits);

  const model::Model& model_;
  std::vector<int32_t> rows_;
  std::vector<kernels::SampleRow> params_;
  std::vector<int32_t> counts_;  // of tokens in a sequence that is being penalised; zero in between
};

}  // namespace ponder::engine
