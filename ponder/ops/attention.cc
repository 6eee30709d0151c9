// Attention over pages, and rotary embedding of fused projections. The numerics are in kernels/backend.h (Attention).
#include <cstring>

#include "ponder/ops/ops.h"

namespace ponder::ops {

// x' = R(position) x in place;   dx = R(-position) dx' in place.             Su et al. 2021
void rope_heads(Ctx& ctx, Tensor& x, int heads, const RopeTable& table, std::span<const int32_t> positions) {
  const int64_t rows = x.rows(), width = x.cols() / heads;
  PONDER_CHECK(table.rotary <= width && static_cast<int64_t>(positions.size()) == rows, "rope: {} in {} heads",
               x.shape_string(), heads);
  const auto rotate = [=](Ctx& ctx, const Tensor& t, bool inverse) {
    ctx.backend.rope({.rows = rows,
                      .heads = heads,
                      .rotary = table.rotary,
                      .x = t.f32(),
                      .ldx = t.ld,
                      .head_stride = width,
                      .y = t.f32(),
                      .ldy = t.ld,
                      .y_head_stride = width,
                      .positions = positions.data(),
                      .cos_sin = table.cos_sin,
                      .interleaved = table.interleaved,
                      .inverse = inverse,
                      .accumulate = false});
  };
  rotate(ctx, x, false);
  if (ctx.tape)
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      if (const Tensor dx = tape.grad(x)) rotate(ctx, dx, true);
    });
}

namespace {
double causal_pairs(std::span<const kernels::Span> spans) {
  double pairs = 0;
  for (const kernels::Span& s : spans) pairs += s.count * (s.position + (s.count + 1) / 2.0);
  return pairs;
}
}  // namespace

void store_kv(Ctx& ctx, const Tensor& k, const Tensor& v, const KvRef& kv) {
  const kernels::PageLayout l = kv.layout;
  PONDER_CHECK(k.cols() == int64_t{l.kv_heads} * l.dk && v.cols() == int64_t{l.kv_heads} * l.dv,
               "store_kv: k {}, v {} with {} of {} and {}", k.shape_string(), v.shape_string(), l.kv_heads, l.dk, l.dv);
  ctx.backend.store_kv(
      {.layout = l, .spans = kv.spans, .k = k.f32(), .ldk = k.ld, .v = v.f32(), .ldv = v.ld, .pages = kv.pages});
}

namespace {
void attend(Ctx& ctx, const Tensor& q, int heads, float scale, const KvRef& kv, const Tensor& out, const Tensor& lse) {
  const kernels::PageLayout l = kv.layout;
  PONDER_CHECK(q.cols() == int64_t{heads} * l.dk && out.cols() == int64_t{heads} * l.dv,
               "attention: q {}, out {} with {} heads over {} of {} and {}", q.shape_string(), out.shape_string(),
               heads, l.kv_heads, l.dk, l.dv);
  ctx.backend.attention({.layout = l,
                         .heads = heads,
                         .scale = scale,
                         .spans = kv.spans,
                         .q = q.f32(),
                         .ldq = q.ld,
                         .pages = kv.pages,
                         .out = out.f32(),
                         .ldo = out.ld,
                         .lse = lse.f32()});
  ctx.flops += 2.0 * causal_pairs(kv.spans) * heads * (l.dk + l.dv);
}
}  // namespace

void attend(Ctx& ctx, const Tensor& q, int heads, float scale, const KvRef& kv, const Tensor& out) {
  PONDER_CHECK(!ctx.tape, "keys and values of earlier passes have no gradients");
  attend(ctx, q, heads, scale, kv, out, {});
}

Tensor attention(Ctx& ctx, const Tensor& q, const Tensor& k, const Tensor& v, int heads, float scale, const KvRef& kv) {
  const kernels::PageLayout l = kv.layout;
  const int64_t rows = q.rows();
  store_kv(ctx, k, v, kv);
  Tensor out = ctx.empty({rows, int64_t{heads} * l.dv});
  const Tensor lse = ctx.tape ? ctx.empty({rows, heads}) : Tensor{};
  attend(ctx, q, heads, scale, kv, out, lse);
  if (ctx.tape) {
    for (const kernels::Span& s : kv.spans) PONDER_CHECK(s.position == 0, "training attends over whole sequences");
    ctx.tape->record([=](Ctx& ctx, Tape& tape) {
      const Tensor dout = tape.grad(out);
      if (!dout) return;
      const auto dq = tape.slot(q);
      Tensor dq_fresh = dq.grad;
      if (dq.accumulate && q.whole()) dq_fresh = ctx.empty({rows, q.cols()});  // somebody else reads q, too
      const auto zeroed = [&](const Tensor& t) {
        const auto [grad, accumulate] = tape.slot(t);
        if (!accumulate) std::memset(grad.storage, 0, static_cast<size_t>(grad.storage_bytes));
        return grad;
      };
      const Tensor dk = zeroed(k), dv = zeroed(v);
      ctx.backend.attention_grad({.layout = l,
                                  .heads = heads,
                                  .scale = scale,
                                  .spans = kv.spans,
                                  .q = q.f32(),
                                  .k = k.f32(),
                                  .v = v.f32(),
                                  .out = out.f32(),
                                  .dout = dout.f32(),
                                  .lse = lse.f32(),
                                  .ldq = q.ld,
                                  .ldk = k.ld,
                                  .ldv = v.ld,
                                  .ldo = out.ld,
                                  .lddo = dout.ld,
                                  .dq = dq_fresh.f32(),
                                  .dk = dk.f32(),
                                  .dv = dv.f32(),
                                  .lddq = dq_fresh.ld,
                                  .lddk = dk.ld,
                                  .lddv = dv.ld});
      if (dq_fresh.data != dq.grad.data)
        ctx.backend.add({.rows = rows,
                         .d = q.cols(),
                         .a = dq.grad.f32(),
                         .lda = dq.grad.ld,
                         .b = dq_fresh.f32(),
                         .ldb = dq_fresh.ld,
                         .y = dq.grad.f32(),
                         .ldy = dq.grad.ld});
    });
  }
  return out;
}

}  // namespace ponder::ops
