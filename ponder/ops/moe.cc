// DeepSeekMoE: routing, grouped expert products, combination, balance loss (DeepSeek-V3 report, section 2.1.2).
// Experts return rows and the token's home adds them in slot order, so a token's output does not depend on its batch.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ponder/base/file.h"
#include "ponder/ops/stored.h"

namespace ponder::ops {

using kernels::Layout;

// g = normalise(s_chosen) * scaling; the choice is by s + bias and has no gradient.
Routing route(Ctx& ctx, const Tensor& x, Param& router, const float* bias, const RouterConfig& c) {
  const int64_t rows = x.rows(), e = c.experts, k = c.top_k;
  Routing r;
  const kernels::Activations chosen = ctx.activations;
  ctx.activations = kernels::Activations::f32;  // near ties: rounding would choose other experts
  r.logits_TE = linear(ctx, x, router);
  ctx.activations = chosen;
  r.scores_TE = ctx.empty({rows, e});
  r.gates_TK = ctx.empty({rows, k});
  r.index_TK = ctx.empty({rows, k}, DType::i32);
  r.slot_of = ctx.empty({rows * k}, DType::i32);
  r.place_of = ctx.empty({rows * k}, DType::i32);
  r.offsets = ctx.empty({e + 1}, DType::i32);
  ctx.backend.route({.rows = rows,
                     .experts = c.experts,
                     .top_k = c.top_k,
                     .n_group = c.n_group,
                     .topk_group = c.topk_group,
                     .scoring = c.scoring,
                     .group_score = c.group_score,
                     .normalize = c.normalize,
                     .scaling = c.scaling,
                     .logits = r.logits_TE.f32(),
                     .bias = bias,
                     .scores = r.scores_TE.f32(),
                     .index = r.index_TK.i32(),
                     .gates = r.gates_TK.f32()});
  ctx.backend.dispatch({.rows = rows,
                        .experts = c.experts,
                        .top_k = c.top_k,
                        .index = r.index_TK.i32(),
                        .slot_of = r.slot_of.i32(),
                        .place_of = r.place_of.i32(),
                        .offsets = r.offsets.i32()});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dgates = tape.grad(r.gates_TK);
      if (!dgates) return;
      const auto [dlogits, accumulate] = tape.slot(r.logits_TE);
      const Tensor fresh = accumulate ? ctx.empty({rows, e}) : dlogits;
      ctx.backend.route_grad({.rows = rows,
                              .experts = c.experts,
                              .top_k = c.top_k,
                              .scoring = c.scoring,
                              .normalize = c.normalize,
                              .scaling = c.scaling,
                              .scores = r.scores_TE.f32(),
                              .index = r.index_TK.i32(),
                              .gates = r.gates_TK.f32(),
                              .dgates = dgates.f32(),
                              .dlogits = fresh.f32()});
      if (accumulate)
        ctx.backend.add({.rows = rows,
                         .d = e,
                         .a = dlogits.f32(),
                         .lda = e,
                         .b = fresh.f32(),
                         .ldb = e,
                         .y = dlogits.f32(),
                         .ldy = e});
    });
  return r;
}

Tensor dispatch(Ctx& ctx, const Tensor& x, const Routing& r) {
  const int64_t rows = x.rows(), d = x.cols(), k = r.index_TK.cols();
  Tensor y = ctx.empty({rows * k, d});
  // place p holds a copy of the row of slot slot_of[p]
  Tensor row_of = ctx.empty({rows * k}, DType::i32);
  for (int64_t p = 0; p < rows * k; ++p) row_of.i32()[p] = r.slot_of.i32()[p] / static_cast<int32_t>(k);
  ctx.backend.gather_rows(
      {.rows = rows * k, .d = d, .x = x.f32(), .ldx = x.ld, .index = row_of.i32(), .y = y.f32(), .ldy = d});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      const auto [dx, accumulate] = tape.slot(x);
      // dx_t = sum_j dy_place(t, j): a combine with gates 1
      const Arena::Mark mark = ctx.arena.mark();
      const Tensor ones = ctx.empty({rows, k});
      std::fill_n(ones.f32(), rows * k, 1.f);
      ctx.backend.combine({.rows = rows,
                           .d = d,
                           .top_k = static_cast<int>(k),
                           .x = dy.f32(),
                           .gates = ones.f32(),
                           .place_of = r.place_of.i32(),
                           .base = accumulate ? dx.f32() : nullptr,
                           .ldb = dx.ld,
                           .y = dx.f32(),
                           .ldy = dx.ld});
      ctx.arena.release(mark);
    });
  return y;
}

void read_ahead(const Param& w, const Routing& r) {
  if (!w.stored || w.stored->mapped.empty()) return;
  // A long prompt wants all experts: asked for too early, they would drive each other out of memory again.
  constexpr int64_t kMost = int64_t{256} << 20;
  const std::vector<Quantized>& mapped = w.stored->mapped;
  const int32_t* offsets = r.offsets.i32();
  const auto experts = static_cast<size_t>(w.matrices.batch);
  int64_t asked = 0;
  for (size_t e = 0; e < experts; ++e)
    for (size_t i = e; i < mapped.size() && offsets[e] < offsets[e + 1]; i += experts) {
      const int64_t bytes = mapped[i].rows * mapped[i].row_bytes;
      if ((asked += bytes) > kMost) return;
      want_pages(mapped[i].data, static_cast<size_t>(bytes));
    }
}

// Rows of expert e times W_e^T.   dx = dy W_e,  dW_e += dy^T x over the rows of e.
Tensor grouped_linear(Ctx& ctx, const Tensor& x, Param& w, const Routing& r) {
  const int64_t rows = x.rows(), n = w.matrices.n, k = w.matrices.k, experts = w.matrices.batch;
  PONDER_CHECK(x.cols() == k && r.offsets.size() == experts + 1, "grouped_linear: {} with {} {}", x.shape_string(),
               w.name, w.value.shape_string());
  Tensor y = ctx.empty({rows, n});
  ctx.flops += 2.0 * static_cast<double>(rows * n * k);
  if (w.stored) {
    multiply_stored(ctx, w,
                    {.m = rows, .k = k, .a = x.f32(), .lda = x.ld, .c = y.f32(), .ldc = n, .offsets = r.offsets.i32()});
    return y;
  }
  ctx.backend.gemm({.layout = Layout::nt,
                    .m = rows,
                    .n = n,
                    .k = k,
                    .a = x.f32(),
                    .lda = x.ld,
                    .b = w.value.f32(),
                    .ldb = k,
                    .c = y.f32(),
                    .ldc = n,
                    .packed_b = w.packed(ctx.backend),
                    .batch = experts,
                    .b_stride = n * k,
                    .offsets = r.offsets.i32()});
  if (ctx.tape)
    ctx.tape->record([=, w = &w](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      const auto [dx, accumulate] = tape.slot(x);
      ctx.backend.gemm({.layout = Layout::nn,
                        .m = rows,
                        .n = k,
                        .k = n,
                        .a = dy.f32(),
                        .lda = dy.ld,
                        .b = w->value.f32(),
                        .ldb = k,
                        .c = dx.f32(),
                        .ldc = dx.ld,
                        .accumulate = accumulate,
                        .batch = experts,
                        .b_stride = n * k,
                        .offsets = r.offsets.i32()});
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = n,
                        .n = k,
                        .k = rows,
                        .a = dy.f32(),
                        .lda = dy.ld,
                        .b = x.f32(),
                        .ldb = x.ld,
                        .c = w->grad.f32(),
                        .ldc = k,
                        .accumulate = true,
                        .batch = experts,
                        .c_stride = n * k,
                        .offsets = r.offsets.i32()});
    });
  return y;
}

Tensor combine(Ctx& ctx, const Tensor& x, const Routing& r, const Tensor& base) {
  const int64_t rows = r.index_TK.rows(), k = r.index_TK.cols(), d = x.cols();
  Tensor y = ctx.empty({rows, d});
  ctx.backend.combine({.rows = rows,
                       .d = d,
                       .top_k = static_cast<int>(k),
                       .x = x.f32(),
                       .gates = r.gates_TK.f32(),
                       .place_of = r.place_of.i32(),
                       .base = base.f32(),
                       .ldb = base ? base.ld : 0,
                       .y = y.f32(),
                       .ldy = d});
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      const auto dx = tape.slot(x), dgates = tape.slot(r.gates_TK);
      PONDER_CHECK(!dx.accumulate && !dgates.accumulate, "combine is the only reader of expert outputs and gates");
      ctx.backend.combine_grad({.rows = rows,
                                .d = d,
                                .top_k = static_cast<int>(k),
                                .x = x.f32(),
                                .gates = r.gates_TK.f32(),
                                .dy = dy.f32(),
                                .lddy = dy.ld,
                                .place_of = r.place_of.i32(),
                                .dx = dx.grad.f32(),
                                .dgates = dgates.grad.f32()});
      if (base) {
        const auto [db, accumulate] = tape.slot(base);
        PONDER_CHECK(!accumulate, "combine is the only reader of its base");
        for (int64_t t = 0; t < rows; ++t) std::copy_n(dy.row(t), d, db.row(t));
      }
    });
  return y;
}

// f_i = E / (K T) #{t : i among the K best of s_t},  P_i = mean_t s_ti / sum_j s_tj,  loss = sum_i f_i P_i per sequence.
double balance_loss(Ctx& ctx, const Routing& r, std::span<const kernels::Span> spans, const RouterConfig& c,
                    float weight) {
  const int e = c.experts;
  const Tensor f_SE = ctx.empty({static_cast<int64_t>(spans.size()), e});
  double total = 0;
  for (size_t q = 0; q < spans.size(); ++q) {
    float* f = f_SE.row(static_cast<int64_t>(q));
    std::fill_n(f, e, 0.f);
    double p[1024] = {};
    PONDER_CHECK(e <= 1024, "{} experts", e);
    for (int t = spans[q].row; t < spans[q].row + spans[q].count; ++t) {
      const float* s = r.scores_TE.row(t);
      double sum = 0;
      for (int i = 0; i < e; ++i) {
        int better = 0;
        for (int j = 0; j < e; ++j) better += s[j] > s[i] || (s[j] == s[i] && j < i);
        if (better < c.top_k) f[i] += 1.f;
        sum += s[i];
      }
      for (int i = 0; i < e; ++i) p[i] += s[i] / sum;
    }
    const double count = spans[q].count;
    for (int i = 0; i < e; ++i) {
      f[i] = static_cast<float>(f[i] * e / (c.top_k * count));
      total += f[i] * p[i] / count;
    }
  }
  if (ctx.tape && weight != 0)
    ctx.tape->record([=](Ctx&, Tape& tape) {
      const auto [dlogits, accumulate] = tape.slot(r.logits_TE);
      if (!accumulate) std::fill_n(dlogits.f32(), dlogits.size(), 0.f);
      for (size_t q = 0; q < spans.size(); ++q) {
        const float* f = f_SE.row(static_cast<int64_t>(q));
        for (int t = spans[q].row; t < spans[q].row + spans[q].count; ++t) {
          const float* s = r.scores_TE.row(t);
          double sum = 0, mean_f = 0;
          for (int i = 0; i < e; ++i) sum += s[i], mean_f += double{f[i]} * s[i];
          mean_f /= sum;
          double inner = 0;  // softmax: d s_j / d z_i = s_j (1[i = j] - s_i); its s sum to 1
          if (c.scoring == kernels::Scoring::softmax)
            for (int i = 0; i < e; ++i) inner += s[i] * (f[i] - mean_f) / sum;
          for (int i = 0; i < e; ++i) {
            const double ds = (f[i] - mean_f) / sum;  // d (sum_i f_i s_i / sum_j s_j) / d s_i
            const double dz = c.scoring == kernels::Scoring::sigmoid ? ds * s[i] * (1 - s[i]) : s[i] * (ds - inner);
            dlogits.row(t)[i] += static_cast<float>(weight * dz / spans[q].count);
          }
        }
      }
    });
  return total;
}

}  // namespace ponder::ops
