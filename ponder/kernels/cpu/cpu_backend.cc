#include "ponder/kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "ponder/kernels/cpu/gemm.h"
#include "ponder/kernels/cpu/weight.h"
#include "ponder/kernels/cpu/weight_pack.h"
#include "ponder/kernels/ref/choose.h"

namespace ponder::kernels::cpu {
namespace {

// A task below this many simple operations costs more to hand out than to do (some microseconds).
constexpr int64_t kMinWork = 16384;
// Tasks per thread: enough for late ones to even out, few enough to be cheap.
constexpr int64_t kTasksPerThread = 4;
// Attention's tasks are shared among threads if there are so many floats of keys and values (below, three steps in place of
// one cost more than idle threads do) and the longest thread would have so much more than its part.
constexpr int64_t kSplitFloats = 1500000;
constexpr double kUneven = 1.15;

}  // namespace

CpuBackend::CpuBackend(ThreadPool& pool, Isa isa)
    : RefBackend(pool),
      isa_(isa),
      pointwise_(pointwise_kernels(isa)),
      loss_(loss_kernels(isa)),
      attention_(attention_kernels(isa)),
      thread_memory_(static_cast<size_t>(pool.size())) {}

std::string CpuBackend::name() const { return std::string("cpu/") + isa_name(isa_); }

template <class F>
void CpuBackend::split(int64_t n, int64_t work, F&& f, int64_t multiple) const {
  if (n <= 0) return;
  const int64_t units = (n + multiple - 1) / multiple;
  const int64_t by_work = (kMinWork - 1) / std::max<int64_t>(1, work * multiple) + 1,
                by_threads = units / (kTasksPerThread * pool_.size());
  const int64_t grain = std::max(by_work, by_threads) * multiple;
  if (pool_.size() == 1 || grain >= n)
    f(int64_t{0}, n, 0);
  else
    pool_.run_ranges(n, grain, f);
}

int64_t CpuBackend::packed_size(int64_t n, int64_t k) const { return cpu::packed_size(n, k); }

void CpuBackend::pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) const noexcept {
  cpu::pack_nt(b, ldb, n, k, packed);
}

void CpuBackend::gemm(const Gemm& a) const noexcept { cpu::gemm(a, pool_, isa_); }

size_t CpuBackend::packed_weight_bytes(BlockType type, int64_t n, int64_t k) const {
  return cpu::packed_weight_bytes(type, n, k);
}

void CpuBackend::pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) const noexcept {
  cpu::pack_weights(w, order, packed);
}

size_t CpuBackend::weight_gemm_scratch(const WeightGemm& a) const { return cpu::weight_gemm_scratch(a, pool_); }

void CpuBackend::weight_gemm(const WeightGemm& a) const noexcept { cpu::weight_gemm(a, pool_, isa_); }

void CpuBackend::embed_stored(const EmbedStored& a) const noexcept {
  split(a.rows, 4 * a.table.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) dequantize_row(a.table, a.ids[r], a.y + r * a.ldy);
  });
}

void CpuBackend::rms_norm(const RmsNorm& a) const noexcept {
  split(a.rows, 2 * a.d, [&](int64_t begin, int64_t end, int) { pointwise_.rms_norm(a, begin, end); });
}

void CpuBackend::rms_norm_grad(const RmsNormGrad& a) const noexcept {
  split(
      a.rows, 4 * a.d, [&](int64_t begin, int64_t end, int) { pointwise_.rms_norm_grad(a, begin, end); },
      a.dw ? kDotBlock : 1);
  if (a.dw) pointwise_.add_blocks(a.scratch, (a.rows + kDotBlock - 1) / kDotBlock, a.d, a.dw);
}

void CpuBackend::rope(const Rope& a) const noexcept {
  split(a.rows, 2 * a.heads * a.rotary, [&](int64_t begin, int64_t end, int) { pointwise_.rope(a, begin, end); });
}

void CpuBackend::swiglu(const SwiGlu& a) const noexcept {
  split(a.rows, 8 * a.f, [&](int64_t begin, int64_t end, int) { pointwise_.swiglu(a, begin, end); });
}

void CpuBackend::swiglu_grad(const SwiGluGrad& a) const noexcept {
  split(a.rows, 12 * a.f, [&](int64_t begin, int64_t end, int) { pointwise_.swiglu_grad(a, begin, end); });
}

void CpuBackend::add(const Add& a) const noexcept {
  split(a.rows, a.d, [&](int64_t begin, int64_t end, int) { pointwise_.add(a, begin, end); });
}

void CpuBackend::embed(const Embed& a) const noexcept {
  split(a.rows, a.d, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(a.table + a.ids[r] * a.d, a.d, a.y + r * a.ldy);
  });
}

void CpuBackend::embed_grad(const EmbedGrad& a) const noexcept {
  // By columns, since any two rows may name the same id; a cache line each at least.
  split(
      a.d, a.rows, [&](int64_t begin, int64_t end, int) { pointwise_.embed_grad(a, begin, end); }, kLanes);
}

void CpuBackend::gather_rows(const GatherRows& a) const noexcept {
  split(a.rows, a.d, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(a.x + a.index[r] * a.ldx, a.d, a.y + r * a.ldy);
  });
}

void CpuBackend::scatter_rows(const ScatterRows& a) const noexcept {
  split(a.rows, a.d, [&](int64_t begin, int64_t end, int) { pointwise_.scatter_rows(a, begin, end); });
}

void CpuBackend::column_sum(const ColumnSum& a) const noexcept {
  split(
      a.rows, a.d, [&](int64_t begin, int64_t end, int) { pointwise_.column_sum(a, begin, end); }, kDotBlock);
  pointwise_.add_blocks(a.scratch, (a.rows + kDotBlock - 1) / kDotBlock, a.d, a.y);
}

void CpuBackend::store_kv(const StoreKv& a) const noexcept {
  pieces_.clear();  // of spans, each on one page
  int64_t rows = 0;
  for (const Span& s : a.spans) {
    rows += s.count;
    for (int32_t i = 0; i < s.count;) {
      const int32_t n = std::min(kPageSize - (s.position + i) % kPageSize, s.count - i);
      pieces_.push_back({s.row + i, n, s.position + i, s.pages});
      i += n;
    }
  }
  if (rows == 0) return;
  StoreKv pieces = a;
  pieces.spans = pieces_;
  const auto n = static_cast<int64_t>(pieces_.size());
  split(n, (rows + n - 1) / n * a.layout.kv_heads * (a.layout.dk + a.layout.dv) * 4,
        [&](int64_t begin, int64_t end, int) { attention_.store_kv(pieces, begin, end); });
}

void CpuBackend::attention(const Attention& a) const noexcept {
  // Tasks are (span, kv head, kAttentionRows rows), counted in that order.
  const int64_t group = a.heads / a.layout.kv_heads;
  const auto tiles = [&](const Span& s) { return (s.count * group + kAttentionRows - 1) / kAttentionRows; };
  first_task_.clear();
  int64_t tasks = 0, keys = 0;
  for (const Span& span : a.spans) {
    first_task_.push_back(tasks);
    tasks += tiles(span) * a.layout.kv_heads;
    keys += (span.position + span.count) * tiles(span) * a.layout.kv_heads;
  }
  first_task_.push_back(tasks);
  if (tasks == 0) return;
  const auto for_tasks = [&](int64_t begin, int64_t end, auto&& f) {
    auto s =
        static_cast<size_t>(std::upper_bound(first_task_.begin(), first_task_.end(), begin) - first_task_.begin() - 1);
    for (int64_t task = begin; task < end; ++task) {
      while (first_task_[s + 1] <= task) ++s;
      const Span& span = a.spans[s];
      const int64_t in_span = task - first_task_[s], row = in_span % tiles(span) * kAttentionRows;
      f(SplitBlock{&a, &span, in_span / tiles(span), row, std::min<int64_t>(row + kAttentionRows, span.count * group),
                   nullptr});
    }
  };
  if (tasks < kTasksPerThread * pool_.size() && keys * (a.layout.dk + a.layout.dv) >= kSplitFloats) {
    blocks_.clear();
    for_tasks(0, tasks, [&](const SplitBlock& b) { blocks_.push_back(b); });
    if (uneven(blocks_)) return split_attention();
  }
  const int64_t rows_per_task = std::min<int64_t>(kAttentionRows, a.spans[0].count * group);
  const int64_t work = keys / tasks * rows_per_task * (a.layout.dk + a.layout.dv) / 8 + 1;
  split(tasks, work, [&](int64_t begin, int64_t end, int) {
    for_tasks(begin, end, [&](const SplitBlock& b) { attention_.attention(a, *b.span, b.kv_head, b.begin, b.end); });
  });
}

// Whether threads would wait for others that have longer tasks, or more of them.
bool CpuBackend::uneven(std::span<const SplitBlock> blocks) const {
  busy_.assign(static_cast<size_t>(pool_.size()), 0);
  int64_t all = 0;
  for (const SplitBlock& b : blocks) {
    const int64_t work = (b.span->position + b.span->count) * (b.end - b.begin);
    *std::min_element(busy_.begin(), busy_.end()) += work;
    all += work;
  }
  const int64_t longest = *std::max_element(busy_.begin(), busy_.end());
  return static_cast<double>(longest * pool_.size()) > kUneven * static_cast<double>(all);
}

// Few tasks with many keys, as when one long text is continued: all threads share each task.
void CpuBackend::split_attention() const {
  const auto pages_of = [](const SplitBlock& b) {
    const int64_t group = b.attention->heads / b.attention->layout.kv_heads;
    return (b.span->position + (b.end - 1) / group) / kPageSize + 1;
  };
  int64_t floats = 0;
  for (const SplitBlock& b : blocks_) floats += attention_.split_floats(b.end - b.begin, pages_of(b));
  if (const size_t bytes = static_cast<size_t>(floats) * sizeof(float); scores_.bytes() < bytes)
    scores_ = Buffer(2 * bytes);
  float* memory = scores_.f32();
  for (SplitBlock& b : blocks_) {
    b.memory = memory;
    memory += attention_.split_floats(b.end - b.begin, pages_of(b));
  }
  const auto n = static_cast<int64_t>(blocks_.size());
  const int64_t parts = std::max<int64_t>(1, kTasksPerThread * pool_.size() / n);
  const auto for_parts = [&](int64_t multiple, const auto& size, auto kernel) {
    pool_.run(n * parts, [&](int64_t task, int) {
      const SplitBlock& b = blocks_[static_cast<size_t>(task / parts)];
      const int64_t units = (size(b) + multiple - 1) / multiple, part = task % parts;
      const int64_t begin = units * part / parts * multiple,
                    end = std::min(units * (part + 1) / parts * multiple, size(b));
      if (begin < end) kernel(b, begin, end);
    });
  };
  for_parts(1, pages_of, attention_.split_scores);
  for_parts(1, pages_of, attention_.split_exps);
  for_parts(
      kLanes, [](const SplitBlock& b) -> int64_t { return b.attention->layout.dv; }, attention_.split_values);
}

void CpuBackend::attention_grad(const AttentionGrad& a) const noexcept {
  int64_t longest = 0;
  for (const Span& s : a.spans) longest = std::max<int64_t>(longest, s.count);
  const size_t bytes = static_cast<size_t>(attention_.grad_scratch(a, longest)) * sizeof(float);
  for (Buffer& b : thread_memory_)
    if (b.bytes() < bytes) b = Buffer(bytes);
  // A task is a span and kv head: its keys' gradients are sums over its queries, in order.
  const int64_t spans = static_cast<int64_t>(a.spans.size());
  pool_.run(spans * a.layout.kv_heads, [&](int64_t task, int thread) {
    const Span& span = a.spans[static_cast<size_t>(task / a.layout.kv_heads)];
    attention_.attention_grad(a, span, task % a.layout.kv_heads, thread_memory_[static_cast<size_t>(thread)].f32());
  });
}

void CpuBackend::route(const Route& a) const noexcept {
  split(a.rows, 8 * a.experts, [&](int64_t begin, int64_t end, int) {
    loss_.scores(a, begin, end);
    choose_experts(a, begin, end);
  });
}

void CpuBackend::route_grad(const RouteGrad& a) const noexcept {
  split(a.rows, 16 * a.experts, [&](int64_t begin, int64_t end, int) {
    RouteGrad part = a;
    part.rows = end - begin;
    part.scores += begin * a.experts;
    part.index += begin * a.top_k;
    part.gates += begin * a.top_k;
    part.dgates += begin * a.top_k;
    part.dlogits += begin * a.experts;
    RefBackend::route_grad(part);
  });
}

void CpuBackend::combine(const Combine& a) const noexcept {
  split(a.rows, a.d * (a.top_k + 1), [&](int64_t begin, int64_t end, int) { pointwise_.combine(a, begin, end); });
}

void CpuBackend::combine_grad(const CombineGrad& a) const noexcept {
  split(a.rows, a.d * a.top_k * 2, [&](int64_t begin, int64_t end, int) { pointwise_.combine_grad(a, begin, end); });
}

void CpuBackend::log_prob(const LogProb& a) const noexcept {
  split(a.rows, 8 * a.vocab, [&](int64_t begin, int64_t end, int) { loss_.log_prob(a, begin, end); });
}

void CpuBackend::log_prob_grad(const LogProbGrad& a) const noexcept {
  split(a.rows, 8 * a.vocab, [&](int64_t begin, int64_t end, int) { loss_.log_prob_grad(a, begin, end); });
}

void CpuBackend::sample(const Sample& a) const noexcept {
  split(a.rows, 32 * a.vocab, [&](int64_t begin, int64_t end, int thread) {
    loss_.sample(a, begin, end, a.scratch ? a.scratch + thread * 2 * a.vocab : nullptr);
  });
}

void CpuBackend::adamw(const AdamW& a) const noexcept {
  split(
      a.n, 4, [&](int64_t begin, int64_t end, int) { pointwise_.adamw(a, begin, end); }, kLanes);
}

void CpuBackend::sum_squares(const SumSquares& a) const noexcept {
  const int64_t chunks = (a.n + 4095) / 4096;
  split(chunks, 4096, [&](int64_t begin, int64_t end, int) { pointwise_.sum_squares(a, begin, end); });
  double total = 0;
  for (int64_t i = 0; i < chunks; ++i) total += a.scratch[i];
  *a.out = total;
}

}  // namespace ponder::kernels::cpu
