// Expanded attention over pages that hold latents: what prompt tokens do in the form `by_token` (model/kv.h).
#include <algorithm>
#include <cstring>

#include "ponder/ops/ops.h"

namespace ponder::ops {

using kernels::kPageSize;
using kernels::Span;

namespace {

// Pages whose keys and values are made at once: enough rows for products of a good size.
constexpr int64_t kPagesAtOnce = 16;

int64_t head_floats(const MlaDims& d) { return kPageSize * int64_t{d.nope + d.rope + d.v}; }  // of one head in a page
int64_t head_groups(const MlaDims& d, int64_t pages, int64_t bytes) {
  const int64_t all = d.heads * pages * head_floats(d) * int64_t{sizeof(float)};
  return std::clamp<int64_t>((all + bytes - 1) / bytes, 1, d.heads);
}

// The pages that some spans see, each once however many sequences share it, with the positions in use of each.
struct Seen {
  std::span<int32_t> pages, rows;  // in ascending order

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
  return seen;
}

// [c | k^R] of the positions in use in pages [begin, end), page after page.
Tensor latents(Ctx& ctx, const Seen& seen, size_t begin, size_t end, const KvRef& kv, const MlaDims& d) {
  int64_t rows = 0;
  for (size_t i = begin; i < end; ++i) rows += seen.rows[i];
  const Tensor out = ctx.empty({rows, int64_t{d.lora + d.rope}});
  float* to = out.f32();
  for (size_t i = begin; i < end; ++i) {
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
  const int64_t pages = (positions + kPageSize - 1) / kPageSize, groups = head_groups(d, pages, kMlaExpandedBytes),
                heads = (d.heads + groups - 1) / groups, at_once = std::min(pages, kPagesAtOnce);
  return (heads * (pages + at_once) * head_floats(d) + at_once * kPageSize * (d.lora + d.rope)) *
         int64_t{sizeof(float)};
}

void mla_attend_latents(Ctx& ctx, const Tensor& q, Param& k_b, Param& v_b, const MlaDims& d, float scale,
                        const KvRef& kv, const Tensor& out, int64_t bytes) {
  const int64_t kh = d.nope + d.rope;
  PONDER_CHECK(!ctx.tape && q.cols() == d.heads * kh && out.cols() == int64_t{d.heads} * d.v,
               "mla_attend_latents: q {}, out {}", q.shape_string(), out.shape_string());
  const Arena::Mark mark = ctx.arena.mark();
  const Seen seen = seen_pages(ctx, kv.spans);
  const size_t n_pages = seen.pages.size();

  // Page i of the expanded ones is the i-th that is seen; the sequences find theirs through tables of their own.
  const auto table = integers(ctx, static_cast<int64_t>(n_pages));
  for (size_t i = 0; i < n_pages; ++i) table[i] = static_cast<int32_t>(i);
  const auto span_memory = [&](size_t n) {
    return std::span(static_cast<Span*>(ctx.arena.allocate(n * sizeof(Span))), n);
  };
  const auto stored = span_memory(n_pages), asked = span_memory(kv.spans.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    const Span& s = kv.spans[i];
    const auto pages = integers(ctx, pages_of(s));
    for (size_t p = 0; p < pages.size(); ++p) pages[p] = seen.index(s.pages[p]);
    asked[i] = {s.row, s.count, s.position, pages.data()};
  }

  const int64_t groups = head_groups(d, static_cast<int64_t>(n_pages), bytes);
  for (int64_t g = 0; g < groups; ++g) {
    const Arena::Mark group_mark = ctx.arena.mark();
    const auto first = static_cast<int>(d.heads * g / groups);
    const int count = static_cast<int>(d.heads * (g + 1) / groups) - first;
    KvRef expanded{{count, static_cast<int>(kh), d.v}, {}, nullptr};
    expanded.pages = ctx.empty({static_cast<int64_t>(n_pages), expanded.layout.page_floats()}).f32();
    for (size_t begin = 0; begin < n_pages; begin += kPagesAtOnce) {
      const Arena::Mark rows_mark = ctx.arena.mark();
      const size_t end = std::min(n_pages, begin + kPagesAtOnce);
      const auto [k, v] = mla_expand(ctx, latents(ctx, seen, begin, end, kv, d), k_b, v_b, d, {first, count});
      int32_t row = 0;
      for (size_t i = begin; i < end; row += seen.rows[i++]) stored[i] = {row, seen.rows[i], 0, &table[i]};
      expanded.spans = stored.subspan(begin, end - begin);
      store_kv(ctx, k, v, expanded);
      ctx.arena.release(rows_mark);
    }
    expanded.spans = asked;
    attend(ctx, q.columns(first * kh, count * kh), count, scale, expanded,
           out.columns(int64_t{first} * d.v, int64_t{count} * d.v));
    ctx.arena.release(group_mark);
  }
  ctx.arena.release(mark);
}

}  // namespace ponder::ops
