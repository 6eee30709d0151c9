#include "ponder/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ponder::engine {

Sampler::Drawn Sampler::draw(ops::Ctx& ctx, const Tensor& h, std::span<const Decision> decisions) {
  const kernels::Backend& backend = ctx.backend;
  rows_.clear(), params_.clear();
  for (const Decision& q : decisions) {
    const Sampling& p = q.sequence->sampling;
    rows_.push_back(q.row);
    params_.push_back({p.temperature, p.top_p, p.min_p, p.top_k, q.sequence->seed, q.sequence->confirmed() + q.draft});
  }
  const int64_t n = static_cast<int64_t>(rows_.size());
  const Tensor logits = model_.head(ctx, ops::gather_rows(ctx, h, rows_));
  const Drawn drawn{ctx.empty({n}, DType::i32), ctx.empty({n}), ctx.empty({n})};
  const Tensor scratch = ctx.empty({backend.pool().size(), 2 * logits.cols()});
  backend.sample({.rows = n,
                  .vocab = logits.cols(),
                  .logits = logits.f32(),
                  .ldl = logits.ld,
                  .params = params_.data(),
                  .tokens = drawn.tokens.i32(),
                  .logp = drawn.logp.f32(),
                  .entropy = drawn.entropy.f32(),
                  .scratch = scratch.f32()});
  for (int64_t i = 0; i < n; ++i) {
    const Decision& q = decisions[static_cast<size_t>(i)];
    if (!q.sequence->sampling.adjusts()) continue;
    // Drawn again from changed logits; log-prob and entropy stay those of the model.
    const Tensor changed = ctx.empty({1, logits.cols()}), one = ctx.empty({4});
    std::copy_n(logits.row(i), logits.cols(), changed.f32());
    adjust(q, changed.f32());
    backend.sample({.rows = 1,
                    .vocab = logits.cols(),
                    .logits = changed.f32(),
                    .ldl = changed.ld,
                    .params = params_.data() + i,
                    .tokens = drawn.tokens.i32() + i,
                    .logp = one.f32(),
                    .scratch = scratch.f32()});
    const float temperature = q.sequence->sampling.temperature;
    backend.log_prob({.rows = 1,
                      .vocab = logits.cols(),
                      .logits = logits.row(i),
                      .ldl = logits.ld,
                      .inv_temperature = temperature == 0.f ? 1.f : 1.f / temperature,
                      .targets = drawn.tokens.i32() + i,
                      .logp = drawn.logp.f32() + i,
                      .max = one.f32(),
                      .log_sum = one.f32() + 1});
  }
  return drawn;
}

void Sampler::adjust(const Decision& q, float* logits) {
  const Sequence& s = *q.sequence;
  const Sampling& p = s.sampling;
  const int64_t length = s.confirmed() + q.draft;
  counts_.resize(static_cast<size_t>(model_.config().vocab_size));
  // Negative while a token was only in the prompt.
  for (int64_t i = 0; i < length; ++i) {
    int32_t& count = counts_[static_cast<size_t>(s.tokens[static_cast<size_t>(i)])];
    if (i < s.prompt)
      count = -1;
    else
      count = std::max(count, 0) + 1;
  }
  for (int64_t i = 0; i < length; ++i) {
    const int32_t token = s.tokens[static_cast<size_t>(i)];
    const int32_t count = std::exchange(counts_[static_cast<size_t>(token)], 0);
    if (count == 0) continue;  // seen already
    float& z = logits[token];
    z = z > 0 ? z / p.repetition_penalty : z * p.repetition_penalty;
    if (count > 0) z = z - p.frequency_penalty * static_cast<float>(count) - p.presence_penalty;
  }
  for (const auto& [token, bias] : p.logit_bias)
    if (token >= 0 && token < model_.config().vocab_size) logits[token] += bias;
  if (length - s.prompt < p.min_tokens)
    for (const int32_t token : s.stop_tokens)
      if (token >= 0 && token < model_.config().vocab_size) logits[token] = -INFINITY;
}

}  // namespace ponder::engine
