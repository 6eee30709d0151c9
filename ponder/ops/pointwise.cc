// Embedding, residual addition, row selection, concatenation, SwiGLU.
#include <cstring>

#include "ponder/ops/ops.h"

namespace ponder::ops {

// y_t = table[id_t];   dtable[id_t] += dy_t.
Tensor embed(Ctx& ctx, Param& table, std::span<const int32_t> ids) {
  const int64_t rows = static_cast<int64_t>(ids.size()), d = table.value.cols(), vocab = table.value.rows();
  Tensor y_TD = ctx.empty({rows, d});
  if (table.stored) {
    ctx.backend.embed_stored(
        {.rows = rows, .table = table.stored->table, .ids = ids.data(), .y = y_TD.f32(), .ldy = d});
    return y_TD;
  }
  ctx.backend.embed({.rows = rows, .d = d, .table = table.value.f32(), .ids = ids.data(), .y = y_TD.f32(), .ldy = d});
  if (ctx.tape)
    ctx.tape->record([=, table = &table](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y_TD);
      if (!dy) return;
      ctx.backend.embed_grad({.rows = rows,
                              .d = d,
                              .vocab = vocab,
                              .ids = ids.data(),
                              .dy = dy.f32(),
                              .lddy = dy.ld,
                              .dtable = table->grad.f32()});
    });
  return y_TD;
}

namespace {
// dx (+)= dy.
void pass_gradient(Ctx& ctx, Tape& tape, const Tensor& dy, const Tensor& x) {
  const auto [dx, accumulate] = tape.slot(x);
  if (accumulate)
    ctx.backend.add({.rows = dy.rows(),
                     .d = dy.cols(),
                     .a = dx.f32(),
                     .lda = dx.ld,
                     .b = dy.f32(),
                     .ldb = dy.ld,
                     .y = dx.f32(),
                     .ldy = dx.ld});
  else
    for (int64_t r = 0; r < dy.rows(); ++r)
      std::memcpy(dx.row(r), dy.row(r), static_cast<size_t>(dy.cols()) * sizeof(float));
}
}  // namespace

Tensor add(Ctx& ctx, const Tensor& a, const Tensor& b, Tensor into) {
  const int64_t rows = a.rows(), d = a.cols();
  PONDER_CHECK(b.rows() == rows && b.cols() == d, "add: {} and {}", a.shape_string(), b.shape_string());
  const Tensor y = into ? into : ctx.empty({rows, d});
  ctx.backend.add(
      {.rows = rows, .d = d, .a = a.f32(), .lda = a.ld, .b = b.f32(), .ldb = b.ld, .y = y.f32(), .ldy = y.ld});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      pass_gradient(ctx, tape, dy, a);
      pass_gradient(ctx, tape, dy, b);
    });
  return y;
}

Tensor gather_rows(Ctx& ctx, const Tensor& x, std::span<const int32_t> rows) {
  const int64_t n = static_cast<int64_t>(rows.size()), d = x.cols();
  Tensor y = ctx.empty({n, d});
  ctx.backend.gather_rows({.rows = n, .d = d, .x = x.f32(), .ldx = x.ld, .index = rows.data(), .y = y.f32(), .ldy = d});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      const auto [dx, accumulate] = tape.slot(x);
      if (!accumulate) std::memset(dx.data, 0, static_cast<size_t>(dx.storage_bytes));
      ctx.backend.scatter_rows(
          {.rows = n, .d = d, .x = dy.f32(), .ldx = dy.ld, .index = rows.data(), .y = dx.f32(), .ldy = dx.ld});
    });
  return y;
}

Tensor concat(Ctx& ctx, const Tensor& a, const Tensor& b) {
  const int64_t rows = a.rows(), da = a.cols(), db = b.cols();
  PONDER_CHECK(b.rows() == rows, "concat: {} and {}", a.shape_string(), b.shape_string());
  Tensor y = ctx.empty({rows, da + db});
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(y.row(r), a.row(r), static_cast<size_t>(da) * sizeof(float));
    std::memcpy(y.row(r) + da, b.row(r), static_cast<size_t>(db) * sizeof(float));
  }
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      pass_gradient(ctx, tape, dy.columns(0, da), a);
      pass_gradient(ctx, tape, dy.columns(da, db), b);
    });
  return y;
}

// h = silu(g) u;   dg = dh u s (1 + g (1 - s)),  du = dh silu(g),  s = sigmoid(g).
Tensor swiglu(Ctx& ctx, const Tensor& gate_up) {
  const int64_t rows = gate_up.rows(), f = gate_up.cols() / 2;
  Tensor h = ctx.empty({rows, f});
  ctx.backend.swiglu({.rows = rows, .f = f, .gate_up = gate_up.f32(), .ldg = gate_up.ld, .h = h.f32(), .ldh = f});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dh = tape.grad(h);
      if (!dh) return;
      const auto [dg, accumulate] = tape.slot(gate_up);
      PONDER_CHECK(!accumulate, "swiglu is the only reader of {}", gate_up.shape_string());
      ctx.backend.swiglu_grad({.rows = rows,
                               .f = f,
                               .gate_up = gate_up.f32(),
                               .ldg = gate_up.ld,
                               .dh = dh.f32(),
                               .lddh = dh.ld,
                               .dgate_up = dg.f32(),
                               .lddg = dg.ld});
    });
  return h;
}

}  // namespace ponder::ops
