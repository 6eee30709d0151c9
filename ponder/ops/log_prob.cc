// log softmax(logits / temperature)[target]; the same kernel serves loss, rollout check and scoring.
// dlogits = (1 / T) (dlogp (onehot - p) - dH p (log p + H)).
#include "ponder/ops/ops.h"

namespace ponder::ops {

TokenLogProb token_log_prob(Ctx& ctx, const Tensor& logits, std::span<const int32_t> targets, float temperature,
                            bool want_entropy) {
  const int64_t rows = logits.rows(), vocab = logits.cols();
  PONDER_CHECK(static_cast<int64_t>(targets.size()) == rows, "token_log_prob: {} and {} targets", logits.shape_string(),
               targets.size());
  const float inv_t = 1.f / temperature;
  TokenLogProb y{ctx.empty({rows}), want_entropy ? ctx.empty({rows}) : Tensor{}};
  const Tensor max = ctx.empty({rows}), log_sum = ctx.empty({rows});
  ctx.backend.log_prob({.rows = rows,
                        .vocab = vocab,
                        .logits = logits.f32(),
                        .ldl = logits.ld,
                        .inv_temperature = inv_t,
                        .targets = targets.data(),
                        .logp = y.logp_R.f32(),
                        .max = max.f32(),
                        .log_sum = log_sum.f32(),
                        .entropy = y.entropy_R.f32()});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dlogp = tape.grad(y.logp_R), dentropy = want_entropy ? tape.grad(y.entropy_R) : Tensor{};
      if (!dlogp) return;
      const auto [dlogits, accumulate] = tape.slot(logits);
      PONDER_CHECK(!accumulate, "token_log_prob is the only reader of its logits");
      ctx.backend.log_prob_grad({.rows = rows,
                                 .vocab = vocab,
                                 .logits = logits.f32(),
                                 .ldl = logits.ld,
                                 .inv_temperature = inv_t,
                                 .targets = targets.data(),
                                 .max = max.f32(),
                                 .log_sum = log_sum.f32(),
                                 .entropy = y.entropy_R.f32(),
                                 .dlogp = dlogp.f32(),
                                 .dentropy = dentropy.f32(),
                                 .dlogits = dlogits.f32(),
                                 .lddl = dlogits.ld});
    });
  return y;
}

}  // namespace ponder::ops
