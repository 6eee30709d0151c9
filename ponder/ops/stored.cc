#include "ponder/ops/stored.h"

namespace ponder::ops {

void multiply_stored(Ctx& ctx, const Param& w, kernels::WeightGemm g) {
  PONDER_CHECK(!ctx.tape, "{} holds stored weights, which cannot be trained", w.name);
  g.parts = w.stored->parts;
  g.batch = w.matrices.batch;
  g.activations = ctx.activations;
  const Arena::Mark mark = ctx.arena.mark();
  g.scratch = static_cast<std::byte*>(ctx.arena.allocate(ctx.backend.weight_gemm_scratch(g)));
  ctx.backend.weight_gemm(g);
  ctx.arena.release(mark);
}

}  // namespace ponder::ops
