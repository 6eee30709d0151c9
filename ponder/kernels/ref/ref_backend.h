// The definition of every kernel of backend.h in scalar loops, on the calling thread. Made to be read and to be
// compared with; also what runs on a CPU without fused multiply-add, and what the fast backend inherits where it has no
// better.
#pragma once

#include <string>

#include "ponder/kernels/backend.h"

namespace ponder::kernels {

class RefBackend : public Backend {
 public:
  explicit RefBackend(ThreadPool& pool) : Backend(pool) {}
  std::string name() const override { return "ref"; }

  int64_t packed_size(int64_t n, int64_t k) const override;
  void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) const noexcept override;

  void gemm(const Gemm&) const noexcept override;
  bool multiplies(BlockType type) const override;
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
  void dispatch(const Dispatch&) const noexcept override;
  void combine(const Combine&) const noexcept override;
  void combine_grad(const CombineGrad&) const noexcept override;
  void log_prob(const LogProb&) const noexcept override;
  void log_prob_grad(const LogProbGrad&) const noexcept override;
  void sample(const Sample&) const noexcept override;
  void adamw(const AdamW&) const noexcept override;
  void sum_squares(const SumSquares&) const noexcept override;
};

}  // namespace ponder::kernels
