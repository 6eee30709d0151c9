// The fast backend: cuts every kernel into tasks by outputs and runs them on the pool, with the functions compiled for
// one instruction set (kernels.h, gemm.h). Equal to ref/ in every bit.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ponder/kernels/cpu/isa.h"
#include "ponder/kernels/cpu/kernels.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/tensor/tensor.h"

namespace ponder::kernels::cpu {

// dispatch (integers, one pass) is the one that ref/ does as well as anybody.
class CpuBackend final : public RefBackend {
 public:
  CpuBackend(ThreadPool& pool, Isa isa);
  std::string name() const override;

  int64_t packed_size(int64_t n, int64_t k) const override;
  void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) const noexcept override;

  void gemm(const Gemm&) const noexcept override;
  size_t packed_weight_bytes(BlockType type, int64_t n, int64_t k) const override;
  void pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) const noexcept override;
  size_t weight_gemm_scratch(const WeightGemm&) const override;
  void weight_gemm(const WeightGemm&) const noexcept override;
  void embed_stored(const EmbedStored&) const noexcept override;
  void rms_norm(const RmsNorm&) const noexcept override;
  void rms_norm_grad(const RmsNormGrad&) const noexcept override;
  void rope(const Rope&) const noexcept override;
  void swiglu(const SwiGlu&) const noexcept override;
  void swiglu_grad(const SwiGluGrad&) const noexcept override;
  void add(const Add&) const noexcept override;
  void embed(const Embed&) const noexcept override;
  void embed_grad(const EmbedGrad&) const noexcept override;
  void gather_rows(const GatherRows&) const noexcept override;
  void scatter_rows(const ScatterRows&) const noexcept override;
  void column_sum(const ColumnSum&) const noexcept override;
  void store_kv(const StoreKv&) const noexcept override;
  void attention(const Attention&) const noexcept override;
  void attention_grad(const AttentionGrad&) const noexcept override;
  void route(const Route&) const noexcept override;
  void route_grad(const RouteGrad&) const noexcept override;
  void combine(const Combine&) const noexcept override;
  void combine_grad(const CombineGrad&) const noexcept override;
  void log_prob(const LogProb&) const noexcept override;
  void log_prob_grad(const LogProbGrad&) const noexcept override;
  void sample(const Sample&) const noexcept override;
  void adamw(const AdamW&) const noexcept override;
  void sum_squares(const SumSquares&) const noexcept override;

 private:
  // f(begin, end, thread) over [0, n), `work` simple operations each, in multiples of `multiple`.
  template <class F>
  void split(int64_t n, int64_t work, F&& f, int64_t multiple = 1) const;

  bool uneven(std::span<const SplitBlock> blocks) const;
  void split_attention() const;

  Isa isa_;
  const PointwiseKernels& pointwise_;
  const LossKernels& loss_;
  const AttentionKernels& attention_;
  // Memory that kernels need beside their arguments; grows while a program warms up.
  mutable std::vector<int64_t> first_task_;    // attention: the first task of each span
  mutable std::vector<Span> pieces_;           // store_kv
  mutable std::vector<SplitBlock> blocks_;     // attention: tasks that are shared,
  mutable std::vector<int64_t> busy_;          // what each thread would do if they were not,
  mutable Buffer scores_;                      // and their memory
  mutable std::vector<Buffer> thread_memory_;  // attention_grad
};

}  // namespace ponder::kernels::cpu
