#include "ponder/ops/stored.h"

#include <memory>

namespace ponder::ops {

void multiply_stored(Ctx& ctx, const Param& w, kernels::WeightGemm g) {
  multiply_stored(ctx, w, 0, w.matrices.batch, g);
}

void multiply_stored(Ctx& ctx, const Param& w, int64_t first, int64_t count, kernels::WeightGemm g) {
  PONDER_CHECK(!ctx.tape, "{} holds stored weights, which cannot be trained", w.name);
  const Arena::Mark mark = ctx.arena.mark();
  g.parts = w.stored->parts;
  if (first > 0) {
    auto* parts = static_cast<kernels::WeightPart*>(ctx.arena.allocate(g.parts.size_bytes()));
    std::uninitialized_copy(g.parts.begin(), g.parts.end(), parts);
    for (kernels::WeightPart& p : std::span(parts, g.parts.size())) {
      if (p.packed) p.packed += first * p.stride;
      if (p.mapped) p.mapped += first;
    }
    g.parts = {parts, g.parts.size()};
  }
  g.batch = count;
  g.activations = ctx.activations;
  g.scratch = static_cast<std::byte*>(ctx.arena.allocate(ctx.backend.weight_gemm_scratch(g)));
  ctx.backend.weight_gemm(g);
  ctx.arena.release(mark);
}

}  // namespace ponder::ops
