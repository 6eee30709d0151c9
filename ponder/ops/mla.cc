// Multi-head latent attention in both forms (DeepSeek-V2 report, section 2.1; DeepSeek-V3 report, equations 1 to 11).
//
// kv_b_proj holds, head by head, W_UK [nope, lora] and W_UV [v, lora]. Absorbed: q~ = W_UK^T q^C meets the cached latent
// itself and W_UV is applied to what attention returns. Expanded: keys and values are made from the latent first. Equal on
// paper, different in floats; whatever compares log-probs uses one of them throughout (docs/numerics.md).
#include <cstring>

#include "ponder/ops/stored.h"

namespace ponder::ops {

using kernels::Gemm;
using kernels::Layout;

namespace {

const float* w_uk(const Param& kv_b) { return kv_b.value.f32(); }
const float* w_uv(const Param& kv_b, const MlaDims& d) { return kv_b.value.f32() + int64_t{d.nope} * d.lora; }
int64_t head_weights(const MlaDims& d) { return int64_t{d.nope + d.v} * d.lora; }

kernels::Rope rope_args(const Tensor& x, int64_t x_head, const Tensor& y, int64_t y_head, int heads,
                        const RopeTable& table, const int32_t* positions, bool inverse, bool accumulate) {
  return {.rows = x.rows(),
          .heads = heads,
          .rotary = table.rotary,
          .x = x.f32(),
          .ldx = x.ld,
          .head_stride = x_head,
          .y = y.f32(),
          .ldy = y.ld,
          .y_head_stride = y_head,
          .positions = positions,
          .cos_sin = table.cos_sin,
          .interleaved = table.interleaved,
          .inverse = inverse,
          .accumulate = accumulate};
}

}  // namespace

Tensor mla_latent(Ctx& ctx, const Tensor& kv_a, Param& norm, float eps, const MlaDims& d, const RopeTable& table,
                  std::span<const int32_t> positions) {
  const int64_t rows = kv_a.rows();
  PONDER_CHECK(kv_a.cols() == d.lora + d.rope && norm.value.size() == d.lora && table.rotary == d.rope,
               "mla_latent: {}", kv_a.shape_string());
  Tensor latent = ctx.empty({rows, int64_t{d.lora + d.rope}}), inv = ctx.empty({rows});
  const Tensor c_raw = kv_a.columns(0, d.lora), k_raw = kv_a.columns(d.lora, d.rope);
  ctx.backend.rms_norm({.rows = rows,
                        .d = d.lora,
                        .x = c_raw.f32(),
                        .ldx = c_raw.ld,
                        .w = norm.value.f32(),
                        .eps = eps,
                        .y = latent.f32(),
                        .ldy = latent.ld,
                        .inv = inv.f32()});
  ctx.backend.rope(rope_args(k_raw, 0, latent.columns(d.lora, d.rope), 0, 1, table, positions.data(), false, false));
  if (ctx.tape)
    ctx.tape->record([=, norm = &norm](Ctx& ctx, Tape& tape) {
      const Tensor dl = tape.grad(latent);
      if (!dl) return;
      const Tensor dc = tape.slot(c_raw).grad, dk = tape.slot(k_raw).grad;  // views: zeroed, so both accumulate
      const Arena::Mark mark = ctx.arena.mark();
      const Tensor scratch = ctx.empty({(rows + kernels::kDotBlock - 1) / kernels::kDotBlock, int64_t{d.lora}});
      ctx.backend.rms_norm_grad({.rows = rows,
                                 .d = d.lora,
                                 .x = c_raw.f32(),
                                 .ldx = c_raw.ld,
                                 .w = norm->value.f32(),
                                 .inv = inv.f32(),
                                 .dy = dl.f32(),
                                 .lddy = dl.ld,
                                 .dx = dc.f32(),
                                 .lddx = dc.ld,
                                 .accumulate_dx = true,
                                 .dw = norm->grad.f32(),
                                 .scratch = scratch.f32()});
      ctx.arena.release(mark);
      ctx.backend.rope(rope_args(dl.columns(d.lora, d.rope), 0, dk, 0, 1, table, positions.data(), true, true));
    });
  return latent;
}

Tensor mla_absorb_query(Ctx& ctx, const Tensor& q, Param& k_b, const MlaDims& d, const RopeTable& table,
                        std::span<const int32_t> positions) {
  const int64_t rows = q.rows(), qh = d.nope + d.rope, ah = d.lora + d.rope;
  PONDER_CHECK(q.cols() == d.heads * qh, "mla_absorb_query: {}", q.shape_string());
  Tensor a = ctx.empty({rows, d.heads * ah});
  // q~_h [T, lora] = q^C_h [T, nope] W_UK_h [nope, lora]; stored weights hold W_UK_h^T
  if (k_b.stored)
    multiply_stored(
        ctx, k_b,
        {.m = rows, .k = d.nope, .a = q.f32(), .lda = q.ld, .c = a.f32(), .ldc = a.ld, .a_stride = qh, .c_stride = ah});
  else
    ctx.backend.gemm({.layout = Layout::nn,
                      .m = rows,
                      .n = d.lora,
                      .k = d.nope,
                      .a = q.f32(),
                      .lda = q.ld,
                      .b = w_uk(k_b),
                      .ldb = d.lora,
                      .c = a.f32(),
                      .ldc = a.ld,
                      .batch = d.heads,
                      .a_stride = qh,
                      .b_stride = head_weights(d),
                      .c_stride = ah});
  ctx.flops += 2.0 * static_cast<double>(rows) * d.heads * d.nope * d.lora;
  const auto rope_part = [](const Tensor& t, int64_t skip) {
    Tensor p = t;
    p.data = t.f32() + skip;
    return p;
  };
  ctx.backend.rope(
      rope_args(rope_part(q, d.nope), qh, rope_part(a, d.lora), ah, d.heads, table, positions.data(), false, false));
  if (ctx.tape)
    ctx.tape->record([=, kv_b = &k_b](Ctx& ctx, Tape& tape) {
      const Tensor da = tape.grad(a);
      if (!da) return;
      const auto [dq, accumulate] = tape.slot(q);
      // dq^C_h [T, nope] = dq~_h [T, lora] W_UK_h^T;   dW_UK_h [nope, lora] += q^C_h^T dq~_h
      ctx.backend.gemm({.layout = Layout::nt,
                        .m = rows,
                        .n = d.nope,
                        .k = d.lora,
                        .a = da.f32(),
                        .lda = da.ld,
                        .b = w_uk(*kv_b),
                        .ldb = d.lora,
                        .c = dq.f32(),
                        .ldc = dq.ld,
                        .accumulate = accumulate,
                        .batch = d.heads,
                        .a_stride = ah,
                        .b_stride = head_weights(d),
                        .c_stride = qh});
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = d.nope,
                        .n = d.lora,
                        .k = rows,
                        .a = q.f32(),
                        .lda = q.ld,
                        .b = da.f32(),
                        .ldb = da.ld,
                        .c = kv_b->grad.f32(),
                        .ldc = d.lora,
                        .accumulate = true,
                        .batch = d.heads,
                        .a_stride = qh,
                        .b_stride = ah,
                        .c_stride = head_weights(d)});
      ctx.backend.rope(rope_args(rope_part(da, d.lora), ah, rope_part(dq, d.nope), qh, d.heads, table, positions.data(),
                                 true, accumulate));
    });
  return a;
}

Tensor mla_absorb_output(Ctx& ctx, const Tensor& u, Param& v_b, const MlaDims& d) {
  const int64_t rows = u.rows();
  PONDER_CHECK(u.cols() == int64_t{d.heads} * d.lora, "mla_absorb_output: {}", u.shape_string());
  Tensor o = ctx.empty({rows, int64_t{d.heads} * d.v});
  // o_h [T, v] = u_h [T, lora] W_UV_h^T
  if (v_b.stored)
    multiply_stored(ctx, v_b,
                    {.m = rows,
                     .k = d.lora,
                     .a = u.f32(),
                     .lda = u.ld,
                     .c = o.f32(),
                     .ldc = o.ld,
                     .a_stride = d.lora,
                     .c_stride = d.v});
  else
    ctx.backend.gemm({.layout = Layout::nt,
                      .m = rows,
                      .n = d.v,
                      .k = d.lora,
                      .a = u.f32(),
                      .lda = u.ld,
                      .b = w_uv(v_b, d),
                      .ldb = d.lora,
                      .c = o.f32(),
                      .ldc = o.ld,
                      .packed_b = v_b.packed(ctx.backend),
                      .batch = d.heads,
                      .a_stride = d.lora,
                      .b_stride = head_weights(d),
                      .c_stride = d.v});
  ctx.flops += 2.0 * static_cast<double>(rows) * d.heads * d.v * d.lora;
  if (ctx.tape)
    ctx.tape->record([=, kv_b = &v_b](Ctx& ctx, Tape& tape) {
      const Tensor d_o = tape.grad(o);
      if (!d_o) return;
      const auto [du, accumulate] = tape.slot(u);
      ctx.backend.gemm({.layout = Layout::nn,
                        .m = rows,
                        .n = d.lora,
                        .k = d.v,
                        .a = d_o.f32(),
                        .lda = d_o.ld,
                        .b = w_uv(*kv_b, d),
                        .ldb = d.lora,
                        .c = du.f32(),
                        .ldc = du.ld,
                        .accumulate = accumulate,
                        .batch = d.heads,
                        .a_stride = d.v,
                        .b_stride = head_weights(d),
                        .c_stride = d.lora});
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = d.v,
                        .n = d.lora,
                        .k = rows,
                        .a = d_o.f32(),
                        .lda = d_o.ld,
                        .b = u.f32(),
                        .ldb = u.ld,
                        .c = kv_b->grad.f32() + int64_t{d.nope} * d.lora,
                        .ldc = d.lora,
                        .accumulate = true,
                        .batch = d.heads,
                        .a_stride = d.v,
                        .b_stride = d.lora,
                        .c_stride = head_weights(d)});
    });
  return o;
}

Tensor mla_expand_query(Ctx& ctx, const Tensor& q, const MlaDims& d, const RopeTable& table,
                        std::span<const int32_t> positions) {
  const int64_t rows = q.rows(), qh = d.nope + d.rope;
  Tensor y = ctx.empty({rows, d.heads * qh});
  for (int64_t r = 0; r < rows; ++r) std::memcpy(y.row(r), q.row(r), static_cast<size_t>(q.cols()) * sizeof(float));
  const auto rotate = [=](Ctx& ctx, const Tensor& t, bool inverse) {
    Tensor p = t;
    p.data = t.f32() + d.nope;
    ctx.backend.rope(rope_args(p, qh, p, qh, d.heads, table, positions.data(), inverse, false));
  };
  rotate(ctx, y, false);
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dy = tape.grad(y);
      if (!dy) return;
      rotate(ctx, dy, true);
      const auto [dq, accumulate] = tape.slot(q);
      if (accumulate)
        ctx.backend.add({.rows = rows,
                         .d = dy.cols(),
                         .a = dq.f32(),
                         .lda = dq.ld,
                         .b = dy.f32(),
                         .ldb = dy.ld,
                         .y = dq.f32(),
                         .ldy = dq.ld});
      else
        for (int64_t r = 0; r < rows; ++r)
          std::memcpy(dq.row(r), dy.row(r), static_cast<size_t>(dy.cols()) * sizeof(float));
    });
  return y;
}

KeysValues mla_expand(Ctx& ctx, const Tensor& latent, Param& k_b, Param& v_b, const MlaDims& d, HeadRange heads) {
  const int64_t rows = latent.rows(), kh = d.nope + d.rope, n_heads = heads.count;
  const bool all = heads.count == d.heads;
  PONDER_CHECK(latent.cols() == d.lora + d.rope && (all || !ctx.tape), "mla_expand: {}", latent.shape_string());
  Tensor k = ctx.empty({rows, n_heads * kh}), v = ctx.empty({rows, n_heads * d.v});
  // k_h [T, nope] = c W_UK_h^T,  v_h [T, v] = c W_UV_h^T
  const auto product = [&](Param& w, const float* weights, int64_t n, const Tensor& y, int64_t y_head,
                           const float* packed) {
    if (w.stored)
      multiply_stored(
          ctx, w, heads.first, n_heads,
          {.m = rows, .k = d.lora, .a = latent.f32(), .lda = latent.ld, .c = y.f32(), .ldc = y.ld, .c_stride = y_head});
    else
      ctx.backend.gemm({.layout = Layout::nt,
                        .m = rows,
                        .n = n,
                        .k = d.lora,
                        .a = latent.f32(),
                        .lda = latent.ld,
                        .b = weights + heads.first * head_weights(d),
                        .ldb = d.lora,
                        .c = y.f32(),
                        .ldc = y.ld,
                        .packed_b = packed,
                        .batch = n_heads,
                        .b_stride = head_weights(d),
                        .c_stride = y_head});
  };
  product(k_b, w_uk(k_b), d.nope, k, kh, nullptr);
  product(v_b, w_uv(v_b, d), d.v, v, d.v, v_b.stored || !all ? nullptr : v_b.packed(ctx.backend));
  ctx.flops += 2.0 * static_cast<double>(rows * n_heads) * (d.nope + d.v) * d.lora;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < n_heads; ++h)
      std::memcpy(k.row(r) + h * kh + d.nope, latent.row(r) + d.lora, static_cast<size_t>(d.rope) * sizeof(float));
  if (ctx.tape)
    ctx.tape->record([=, kv_b = &k_b](Ctx& ctx, Tape& tape) {
      const Tensor dk = tape.grad(k), dv = tape.grad(v);
      if (!dk && !dv) return;
      PONDER_CHECK(dk && dv, "keys and values are used together");
      const auto [dl, accumulate] = tape.slot(latent);
      if (!accumulate) std::memset(dl.data, 0, static_cast<size_t>(dl.storage_bytes));
      for (int64_t h = 0; h < d.heads; ++h) {  // heads add to one latent: in order
        ctx.backend.gemm({.layout = Layout::nn,
                          .m = rows,
                          .n = d.lora,
                          .k = d.nope,
                          .a = dk.f32() + h * kh,
                          .lda = dk.ld,
                          .b = w_uk(*kv_b) + h * head_weights(d),
                          .ldb = d.lora,
                          .c = dl.f32(),
                          .ldc = dl.ld,
                          .accumulate = true});
        ctx.backend.gemm({.layout = Layout::nn,
                          .m = rows,
                          .n = d.lora,
                          .k = d.v,
                          .a = dv.f32() + h * d.v,
                          .lda = dv.ld,
                          .b = w_uv(*kv_b, d) + h * head_weights(d),
                          .ldb = d.lora,
                          .c = dl.f32(),
                          .ldc = dl.ld,
                          .accumulate = true});
        ctx.backend.add({.rows = rows,
                         .d = d.rope,
                         .a = dl.f32() + d.lora,
                         .lda = dl.ld,
                         .b = dk.f32() + h * kh + d.nope,
                         .ldb = dk.ld,
                         .y = dl.f32() + d.lora,
                         .ldy = dl.ld});
      }
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = d.nope,
                        .n = d.lora,
                        .k = rows,
                        .a = dk.f32(),
                        .lda = dk.ld,
                        .b = latent.f32(),
                        .ldb = latent.ld,
                        .c = kv_b->grad.f32(),
                        .ldc = d.lora,
                        .accumulate = true,
                        .batch = d.heads,
                        .a_stride = kh,
                        .c_stride = head_weights(d)});
      ctx.backend.gemm({.layout = Layout::tn,
                        .m = d.v,
                        .n = d.lora,
                        .k = rows,
                        .a = dv.f32(),
                        .lda = dv.ld,
                        .b = latent.f32(),
                        .ldb = latent.ld,
                        .c = kv_b->grad.f32() + int64_t{d.nope} * d.lora,
                        .ldc = d.lora,
                        .accumulate = true,
                        .batch = d.heads,
                        .a_stride = d.v,
                        .c_stride = head_weights(d)});
    });
  return {k, v};
}

}  // namespace ponder::ops
