// y = x / rms * w,  rms = sqrt(mean(x^2) + eps).                       Zhang & Sennrich 2019
// dx = (g - xn mean(g xn)) / rms,  g = dy w,  xn = x / rms;   dw = sum_T dy xn.
// Saved: x and 1/rms per row.
#include <cstring>

#include "ponder/ops/ops.h"

namespace ponder::ops {
namespace {

void backward(Ctx& ctx, const Tensor& x, int64_t rows, int64_t d, int64_t ldx, Param& w, const Tensor& inv,
              const Tensor& dy, int64_t lddy, const Tensor& dx, int64_t lddx, bool accumulate) {
  const Arena::Mark mark = ctx.arena.mark();
  const Tensor scratch = ctx.empty({(rows + kernels::kDotBlock - 1) / kernels::kDotBlock, d});
  ctx.backend.rms_norm_grad({.rows = rows,
                             .d = d,
                             .x = x.f32(),
                             .ldx = ldx,
                             .w = w.value.f32(),
                             .inv = inv.f32(),
                             .dy = dy.f32(),
                             .lddy = lddy,
                             .dx = dx.f32(),
                             .lddx = lddx,
                             .accumulate_dx = accumulate,
                             .dw = w.grad.f32(),
                             .scratch = scratch.f32()});
  ctx.arena.release(mark);
}

}  // namespace

Tensor rms_norm(Ctx& ctx, const Tensor& x, Param& w, float eps) {
  const int64_t rows = x.rows(), d = x.cols();
  PONDER_CHECK(w.value.size() == d, "rms_norm: {} with {} {}", x.shape_string(), w.name, w.value.shape_string());
  Tensor y = ctx.empty({rows, d}), inv = ctx.empty({rows});
  ctx.backend.rms_norm({.rows = rows,
                        .d = d,
                        .x = x.f32(),
                        .ldx = x.ld,
                        .w = w.value.f32(),
                        .eps = eps,
                        .y = y.f32(),
                        .ldy = d,
                        .inv = inv.f32()});
  if (ctx.tape)
    ctx.tape->record([=, w = &w](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      const auto [dx, accumulate] = tape.slot(x);
      backward(ctx, x, rows, d, x.ld, *w, inv, dy, dy.ld, dx, dx.ld, accumulate);
    });
  return y;
}

void rms_norm_heads(Ctx& ctx, Tensor& x, Param& w, float eps) {
  const int64_t d = w.value.size(), heads = x.cols() / d, rows = x.rows();
  PONDER_CHECK(heads * d == x.cols(), "rms_norm_heads: {} with {} {}", x.shape_string(), w.name,
               w.value.shape_string());
  // In place on a view; backward needs the input, which is kept as [T * heads, d].
  Tensor before = ctx.empty({rows * heads, d}), inv = ctx.empty({rows * heads});
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(before.row(r * heads), x.row(r), static_cast<size_t>(x.cols()) * sizeof(float));
  for (int64_t h = 0; h < heads; ++h)
    ctx.backend.rms_norm({.rows = rows,
                          .d = d,
                          .x = before.row(h),
                          .ldx = heads * d,
                          .w = w.value.f32(),
                          .eps = eps,
                          .y = x.f32() + h * d,
                          .ldy = x.ld,
                          .inv = inv.f32() + h * rows});
  if (ctx.tape)
    ctx.tape->record([=, w = &w](Ctx& ctx, Tape& tape) {
      const Tensor dx = tape.grad(x);
      if (!dx) return;
      const Tensor dy = ctx.empty({rows * heads, d});  // the gradient of y becomes the gradient of x where it stands
      for (int64_t r = 0; r < rows; ++r)
        std::memcpy(dy.row(r * heads), dx.row(r), static_cast<size_t>(x.cols()) * sizeof(float));
      for (int64_t h = 0; h < heads; ++h) {
        Tensor head = before, dhead = dx, inv_h = inv, dy_h = dy;
        head.data = before.row(h);
        dy_h.data = dy.row(h);
        dhead.data = dx.f32() + h * d;
        inv_h.data = inv.f32() + h * rows;
        backward(ctx, head, rows, d, heads * d, *w, inv_h, dy_h, heads * d, dhead, dx.ld, false);
      }
    });
}

}  // namespace ponder::ops
