// How far two models, or two ways of computing one, are apart on a text: what quantising costs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ponder/app/model_source.h"
#include "ponder/kernels/backend.h"

namespace ponder::app {

// Over all positions of a text, in nats: KL(a || b) of the distributions of the next token, and how often both have the
// same likeliest token.
struct Comparison {
  int64_t positions = 0;
  double kl = 0, kl_99 = 0, kl_max = 0;  // mean, 99th percentile, largest
  double top1 = 0;                       // share
  double perplexity_a = 0, perplexity_b = 0;

  std::string text() const;  // for people, one line
  std::string json() const;
};

struct CompareSide {
  const model::Model* model;
  kernels::Activations activations;
  std::string name;  // for errors
};
// The text is cut into pieces of `context` tokens that know nothing of each other. `bos` >= 0 begins each.
struct CompareText {
  std::vector<int32_t> ids;
  int64_t context = 512;
  int32_t bos = -1;
};
// Error (data) where a model's logits are not finite: it names model and position.
Comparison compare(const CompareSide& a, const CompareSide& b, const CompareText& text,
                   const kernels::Backend& backend);

// The beginning of a file, at most `tokens` of `model`'s tokens. Error (data): no tokenizer, no text.
CompareText read_compare_text(const LoadedModel& model, const std::string& path, int64_t tokens, int64_t context);

}  // namespace ponder::app
