// mla_attend_latents against attention over keys and values in pages of their own: the same floats.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "ponder/base/rng.h"
#include "ponder/ops/ops.h"

namespace ponder::ops {
namespace {

using kernels::Span;

constexpr MlaDims kDims{5, 12, 8, 16, 40};

TEST(MlaAttendLatents, IsExpandedAttention) {
  ThreadPool pool(2);
  const auto backend = kernels::make_best_backend(pool);
  Arena arena;
  Ctx ctx{.backend = *backend, .arena = arena};
  const MlaDims& d = kDims;
  auto random = [&, n = uint64_t{0}](std::initializer_list<int64_t> shape) mutable {
    CounterRng rng(3, Stream::test, n++);
    const Tensor t = ctx.empty(shape);
    for (int64_t i = 0; i < t.size(); ++i) t.f32()[i] = static_cast<float>(rng.normal());
    return t;
  };

  // Two texts of 1,200 and 70 tokens, whose first page is common, as an engine would have them; queries are the last ones.
  const int64_t qh = d.nope + d.rope;
  std::vector<int32_t> pages_a = {7, 3, 0, 5}, pages_b = {7, 2};
  for (int32_t p = 22; p > 7; --p) pages_a.push_back(p);
  const std::vector<Span> text = {{0, 1200, 0, pages_a.data()}, {1200, 6, 64, pages_b.data()}};
  const std::vector<Span> asked = {{0, 130, 1070, pages_a.data()}, {130, 6, 64, pages_b.data()}};
  const Tensor latent = random({1206, int64_t{d.lora + d.rope}}), q = random({136, d.heads * qh});
  Param kv_b;
  kv_b.value = random({int64_t{d.heads} * (d.nope + d.v), int64_t{d.lora}});
  kv_b.matrices = {d.heads, d.v, d.lora, int64_t{d.nope} * d.lora, int64_t{d.nope + d.v} * d.lora};
  Param stored[2];  // W_UK and W_UV of all heads, packed as f32
  for (int half = 0; half < 2; ++half) {
    const int64_t n = half ? d.v : d.nope,
                  stride = static_cast<int64_t>(backend->packed_weight_bytes(BlockType::f32, n, d.lora));
    auto* packed = static_cast<std::byte*>(arena.allocate(static_cast<size_t>(d.heads * stride)));
    for (int64_t h = 0; h < d.heads; ++h) {
      const float* from = kv_b.value.f32() + (h * (d.nope + d.v) + (half ? d.nope : 0)) * d.lora;
      backend->pack_weights(
          {.rows = n, .cols = d.lora, .data = reinterpret_cast<const std::byte*>(from), .row_bytes = d.lora * 4},
          nullptr, packed + h * stride);
    }
    stored[half].matrices = {d.heads, n, d.lora, 0, n * d.lora};
    stored[half].stored = std::make_unique<StoredWeights>();
    stored[half].stored->parts.push_back({BlockType::f32, n, packed, stride});
  }

  const auto pages_of = [&](const kernels::PageLayout& l) { return ctx.empty({23, l.page_floats()}).f32(); };
  const kernels::PageLayout wide{d.heads, static_cast<int>(qh), d.v}, narrow{1, d.lora + d.rope, d.lora};
  const auto [k, v] = mla_expand(ctx, latent, kv_b, kv_b, d, {0, d.heads});
  KvRef expanded{wide, text, pages_of(wide)}, latents{narrow, text, pages_of(narrow)};
  store_kv(ctx, k, v, expanded);
  store_kv(ctx, latent, latent.columns(0, d.lora), latents);
  expanded.spans = latents.spans = asked;
  const Tensor want = ctx.empty({136, int64_t{d.heads} * d.v});
  attend(ctx, q, d.heads, 0.3f, expanded, want);

  for (const int64_t bytes : {kMlaExpandedBytes, int64_t{1}, int64_t{500000}}) {  // groups of 5, of 1, of 2 and 3 heads
    const Tensor got = ctx.empty({136, int64_t{d.heads} * d.v});
    for (const bool packed : {false, true}) {
      std::memset(got.data, 0, static_cast<size_t>(got.storage_bytes));
      mla_attend_latents(ctx, q, packed ? stored[0] : kv_b, packed ? stored[1] : kv_b, d, 0.3f, latents, got, bytes);
      EXPECT_EQ(0, std::memcmp(got.data, want.data, static_cast<size_t>(got.storage_bytes))) << bytes << packed;
    }
  }
}

}  // namespace
}  // namespace ponder::ops
