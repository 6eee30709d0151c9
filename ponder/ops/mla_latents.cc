// Expanded attention over pages that hold latents: what prompt tokens do in the form `by_token` (model/kv.h).
#include <algorithm>
#include <cstring>

#include "ponder/ops/ops.h"

namespace ponder::ops {

using kernels::kPageSize;
using kernels::Span;

namespace {

// Of one head: its keys and values as rows, and in pages.
int64_t head_bytes(const MlaDims& d, int64_t pages) {
  return 2 * pages * kPageSize * (d.nope + d.rope + d.v) * int64_t{sizeof(float)};
}
int64_t head_groups(const MlaDims& d, int64_t pages, int64_t bytes) {
  return std::clamp<int64_t>((d.heads * head_bytes(d, pages) + bytes - 1) / bytes, 1, d.heads);
}

// The pages that some spans see, each once however many sequences share it, with the positions in use of each.
struct Seen {
  std::span<int32_t> pages, rows;  // in ascending order
  int64_t total = 0;               // rows

  int32_t index(int32_t page) const {
    return static_cast<int32_t>(std::lower_bound(pages.begin(), pages.end(), page) - pages.begin());
  }
};

int32_t end_of(const Span& s) { return s.position + s.count; }
int64_t pages_of(const Span& s) { return (end_of(s) + kPageSize - 1) / kPageSize; }

std::span<int32_t> integers(Ctx& ctx, int64_t n) { return {ctx.empty({n}, DType::i32).i32(), static_cast<size_t>(n)}; }

Seen seen_pages(Ctx& ctx, std::span<const Span> spans) {
  int64_t most = 0;
  for (const Span& s : spans) most += pages_of(s);
  Seen seen{integers(ctx, most), integers(ctx, most)};
  auto* next = seen.pages.data();
  for (const Span& s : spans) next = std::copy_n(s.pages, pages_of(s), next);
  std::sort(seen.pages.begin(), seen.pages.end());
  seen.pages = {seen.pages.begin(), std::unique(seen.pages.begin(), seen.pages.end())};
  seen.rows = seen.rows.first(seen.pages.size());
  std::fill(seen.rows.begin(), seen.rows.end(), 0);
  for (const Span& s : spans)
    for (int64_t i = 0; i < pages_of(s); ++i) {
      int32_t& rows = seen.rows[static_cast<size_t>(seen.index(s.pages[i]))];
      rows = std::max(rows, std::min<int32_t>(kPageSize, end_of(s) - static_cast<int32_t>(i * kPageSize)));
    }
  for (const int32_t rows : seen.rows) seen.total += rows;
  return seen;
}

// [c | k^R] of the positions in use, page after page.
Tensor latents(Ctx& ctx, const Seen& seen, const KvRef& kv, const MlaDims& d) {
  const Tensor out = ctx.empty({seen.total, int64_t{d.lora + d.rope}});
  float* to = out.f32();
  for (size_t i = 0; i < seen.pages.size(); ++i) {
    const float* keys = kv.pages + seen.pages[i] * kv.layout.page_floats();  // [lora + rope][64]
    const float* values = keys + int64_t{kPageSize} * kv.layout.dk;          // [64][lora]
    for (int64_t r = 0; r < seen.rows[i]; ++r, to += out.ld) {
      std::memcpy(to, values + r * d.lora, static_cast<size_t>(d.lora) * sizeof(float));
      for (int64_t j = d.lora; j < d.lora + d.rope; ++j) to[j] = keys[j * kPageSize + r];
    }
  }
  return out;
}

}  // namespace

int64_t mla_attend_latents_bytes(const MlaDims& d, int64_t positions) {
  const int64_t pages = (positions + kPageSize - 1) / kPageSize, groups = head_groups(d, pages, kMlaExpandedBytes);
  return (d.heads + groups - 1) / groups * head_bytes(d, pages) +
         positions * (d.lora + d.rope) * int64_t{sizeof(float)};
}

void mla_attend_latents(Ctx& ctx, const Tensor& q, Param& k_b, Param& v_b, const MlaDims& d, float scale,
                        const KvRef& kv, const Tensor& out, int64_t bytes) {
  const int64_t kh = d.nope + d.rope;
  PONDER_CHECK(!ctx.tape && q.cols() == d.heads * kh && out.cols() == int64_t{d.heads} * d.v,
               "mla_attend_latents: q {}, out {}", q.shape_string(), out.shape_string());
  const Arena::Mark mark = ctx.arena.mark();
  const Seen seen = seen_pages(ctx, kv.spans);
  const Tensor latent = latents(ctx, seen, kv, d);

  // Page i of the expanded ones is the i-th that is seen; the sequences find theirs through tables of their own.
  const auto n_pages = static_cast<int64_t>(seen.pages.size());
  const auto table = integers(ctx, n_pages);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  const auto span_memory = [&](size_t n) {
    return std::span(static_cast<Span*>(ctx.arena.allocate(n * sizeof(Span))), n);
  };
  const auto stored = span_memory(seen.pages.size()), asked = span_memory(kv.spans.size());
  for (int32_t i = 0, row = 0; i < n_pages; row += seen.rows[static_cast<size_t>(i++)])
    stored[static_cast<size_t>(i)] = {row, seen.rows[static_cast<size_t>(i)], 0, &table[static_cast<size_t>(i)]};
  for (size_t i = 0; i < asked.size(); ++i) {
    const Span& s = kv.spans[i];
    const auto pages = integers(ctx, pages_of(s));
    for (size_t p = 0; p < pages.size(); ++p) pages[p] = seen.index(s.pages[p]);
    asked[i] = {s.row, s.count, s.position, pages.data()};
  }

  const kernels::PageLayout one{1, static_cast<int>(kh), d.v};
  const int64_t groups = head_groups(d, n_pages, bytes);
  for (int64_t g = 0; g < groups; ++g) {
    const Arena::Mark group_mark = ctx.arena.mark();
    const auto first = static_cast<int>(d.heads * g / groups);
    const int count = static_cast<int>(d.heads * (g + 1) / groups) - first;
    const auto [k, v] = mla_expand(ctx, latent, k_b, v_b, d, {first, count});
    KvRef expanded{{count, one.dk, one.dv}, stored, nullptr};
    expanded.pages = ctx.empty({n_pages, expanded.layout.page_floats()}).f32();
    store_kv(ctx, k, v, expanded);
    expanded.spans = asked;
    attend(ctx, q.columns(first * kh, count * kh), count, scale, expanded,
           out.columns(int64_t{first} * d.v, int64_t{count} * d.v));
    ctx.arena.release(group_mark);
  }
  ctx.arena.release(mark);
}

}  // namespace ponder::ops
