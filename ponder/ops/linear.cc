// y_TN = x_TD W_ND^T (+ b_N).   dx = dy W,  dW += dy^T x,  db += sum_T dy.
#include "ponder/ops/stored.h"

namespace ponder::ops {

using kernels::Gemm;
using kernels::Layout;

Tensor linear(Ctx& ctx, const Tensor& x_TD, Param& w, Param* bias) {
  const int64_t rows = x_TD.rows(), d = x_TD.cols(), n = w.matrices.n;
  PONDER_CHECK(w.matrices.batch == 1 && w.matrices.k == d, "linear: {} times {} {}", x_TD.shape_string(), w.name,
               w.value.shape_string());
  Tensor y_TN = ctx.empty({rows, n});
  ctx.flops += 2.0 * static_cast<double>(rows * n * d);
  if (w.stored) {
    multiply_stored(ctx, w,
                    {.m = rows,
                     .k = d,
                     .a = x_TD.f32(),
                     .lda = x_TD.ld,
                     .c = y_TN.f32(),
                     .ldc = n,
                     .bias = bias ? bias->value.f32() : nullptr});
    return y_TN;
  }
  ctx.backend.gemm({.layout = Layout::nt,
                    .m = rows,
                    .n = n,
                    .k = d,
                    .a = x_TD.f32(),
                    .lda = x_TD.ld,
                    .b = w.value.f32(),
                    .ldb = d,
                    .c = y_TN.f32(),
                    .ldc = n,
                    .packed_b = w.packed(ctx.backend),
                    .bias = bias ? bias->value.f32() : nullptr});
  if (ctx.tape)
    ctx.tape->record([=, w = &w](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y_TN);
      if (!dy) return;
      const auto [dx, accumulate] = tape.slot(x_TD);
      ctx.backend.gemm({.layout = Layout::nn,
                        .m = rows,
                        .n = d,
                        .k = n,
                        .a = dy.f32(),
                        .lda = dy.ld,
                        .b = w->value.f32(),
                        .ldb = d,
                        .c = dx.f32(),
                        .ldc = dx.ld,
                        .accumulate = accumulate});
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = n,
                        .n = d,
                        .k = rows,
                        .a = dy.f32(),
                        .lda = dy.ld,
                        .b = x_TD.f32(),
                        .ldb = x_TD.ld,
                        .c = w->grad.f32(),
                        .ldc = d,
                        .accumulate = true});
      if (bias) {
        const Arena::Mark mark = ctx.arena.mark();
        const Tensor scratch = ctx.empty({(rows + kernels::kDotBlock - 1) / kernels::kDotBlock, n});
        ctx.backend.column_sum(
            {.rows = rows, .d = n, .x = dy.f32(), .ldx = dy.ld, .y = bias->grad.f32(), .scratch = scratch.f32()});
        ctx.arena.release(mark);
      }
    });
  return y_TN;
}

}  // namespace ponder::ops
