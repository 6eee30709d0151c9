// Tokens in, tokens and log-probs out: continuous batching over paged keys and values.
//
// A step is one forward pass: the scheduler hands out rows, the model computes them, the sampler draws a token for every
// sequence that has caught up. MTP drafts only lengthen a sequence for the time of one step. No strings here: stop words
// are the caller's, who cancels.
//
// A token is a function of (weights, its prefix, its seed, its position): the same alone, in any batch, after preemption,
// with or without drafts (docs/numerics.md).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ponder/engine/request.h"
#include "ponder/engine/sampler.h"
#include "ponder/engine/scheduler.h"
#include "ponder/model/model.h"

namespace ponder::engine {

// Sequences side by side that are fastest for a model. A decode step reads all pages of all its sequences, so with small
// models a batch that fits into the last-level cache beats a larger one (measured on the V3 miniature, 384 answers of 135
// tokens on two threads: 210 GFLOP/s with 96 at a time, 120 with 384). Results do not depend on it.
int default_sequences(const model::Model& model);

struct EngineStats {
  int64_t steps = 0, rows = 0, sampled = 0, preempted = 0, shared_tokens = 0;
  int64_t drafted = 0, accepted = 0;
  double flops = 0;
};

class Engine {
 public:
  Engine(const model::Model& model, const kernels::Backend& backend, const EngineConfig& config);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Throws Error (data) if the request can never fit.
  int64_t add(const Request& request);
  // One forward pass. The events stay valid until the next call. No work left: empty.
  std::span<const Event> step();
  // All answers of a request, or one of them.
  void cancel(int64_t request, int32_t answer = -1) { scheduler_.cancel(request, answer); }
  bool idle() const { return scheduler_.idle(); }
  EngineStats stats() const;
  const KvCache& cache() const { return scheduler_.cache(); }
  // Bytes that the engine holds: pages and the scratch of its steps.
  size_t bytes() const { return pool_.bytes() + arena_.reserved(); }

 private:
  void decide(std::span<const Work> work);
  Tensor normed_rows(ops::Ctx& ctx, const Tensor& x);
  void accept_tokens(const Sampler::Drawn& drawn);
  void accept(Sequence& s, int32_t token, float logp, float entropy);
  void draft_tokens(ops::Ctx& ctx, std::span<const Work> work, const Tensor& h);

  const model::Model& model_;
  const kernels::Backend& backend_;
  EngineConfig config_;
  model::KvPool pool_;
  Scheduler scheduler_;
  Sampler sampler_;
  Arena arena_;
  int64_t next_request_ = 0;
  EngineStats stats_;

  // Scratch of a step.
  Rows rows_;
  std::vector<int32_t> gathered_;
  std::vector<Decision> decisions_;
  std::vector<Event> events_;
};

}  // namespace ponder::engine
