// Tokens in, tokens and log-probs out: continuous batching over paged keys and values.
//
// The scheduler knows no prefill and no decode. A sequence has `computed` tokens in its pages and `length` tokens in all;
// every step hands out a budget of rows to let the first catch up with the second, and samples where it has. Answers to
// one prompt share its pages. When pages run out the youngest sequence gives its own back and is recomputed later, with
// the same bits. MTP drafts only lengthen `length` for the time of one step. No strings here: stop words are the
// caller's, who cancels.
//
// A token is a function of (weights, its prefix, its seed, its position): the same alone, in any batch, after preemption,
// with or without drafts (docs/numerics.md).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ponder/engine/kv_cache.h"
#include "ponder/model/model.h"

namespace ponder::engine {

struct Sampling {
  float temperature = 1.f;  // 0: greedy
  float top_p = 1.f, min_p = 0.f;
  int32_t top_k = 0;  // 0: off

  // What changes logits before the draw; recorded log-probs are those of the unchanged ones. First the repetition penalty
  // (Keskar et al. 2019: z / p where z > 0, else z * p) of every token in prompt and answer, then OpenAI's penalties of
  // tokens in the answer (- frequency * count - presence), then the bias.
  float repetition_penalty = 1.f, frequency_penalty = 0.f, presence_penalty = 0.f;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t min_tokens = 0;  // no stop token before the answer has so many

  bool adjusts() const {
    return repetition_penalty != 1.f || frequency_penalty != 0.f || presence_penalty != 0.f || !logit_bias.empty() ||
           min_tokens > 0;
  }
};

struct Request {
  std::vector<int32_t> prompt;        // at least one token
  std::vector<uint64_t> seeds = {0};  // one answer for each
  Sampling sampling;
  int max_new_tokens = 512;
  std::vector<int32_t> stop_tokens;  // the answer ends with (and includes) the first of these
  int answered = 0;                  // so many tokens at the prompt's end were generated: a continuation
};

enum class Finish : uint8_t { running, stop, length, cancelled };

// One new token of one answer.
struct Event {
  int64_t request;
  int32_t answer;  // index into Request::seeds
  int32_t token;
  float logp;     // under softmax(logits / T), before top-k, top-p, min-p
  float entropy;  // of that distribution
  Finish finish;
};

struct EngineConfig {
  int64_t pages = 0;        // of 64 positions; 0: enough for max_sequences of max_position_embeddings / 4 (at least 64)
  int max_sequences = 512;  // computed at once
  int max_step_rows = 512;  // rows of one forward pass; a longer prompt is computed in pieces
  bool share_prefixes = true;
  // Full pages of answers are remembered as well as those of prompts (chat: the next turn begins with them). Otherwise an
  // answer's pages are the first to be used again, while they are still in the processor's cache.
  bool remember_answers = false;
  kernels::Activations activations = kernels::Activations::f32;  // of products with stored weights
  bool draft = false;  // propose a second token by the model's first MTP module
};

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
  ~Engine();

  // Throws Error (data) if the request can never fit.
  int64_t add(Request request);
  // One forward pass. The events stay valid until the next call. No work left: empty.
  std::span<const Event> step();
  // All answers of a request, or one that has a token already.
  void cancel(int64_t request, int32_t answer = -1);
  bool idle() const;
  const EngineStats& stats() const { return stats_; }
  const KvCache& cache() const { return cache_; }
  // Bytes that the engine holds: pages and the scratch of its steps.
  size_t bytes() const;

 private:
  struct Sequence;
  struct Sampled {
    Sequence* sequence;
    int32_t row;    // of the batch
    int32_t draft;  // which token after `length` it decides (0: the next)
  };

  void admit();
  bool reserve_pages(Sequence& s, int64_t positions);
  bool make_room(const Sequence& keep);
  void drop_pages(Sequence& s);
  void fork(const Sequence& leader, Sequence& s);
  void accept(Sequence& s, int32_t token, float logp, float entropy);
  uint64_t page_hash(const Sequence& s, int64_t page, uint64_t previous) const;
  void remember_pages(Sequence& s);
  void plan_step();
  struct Drawn {
    Tensor tokens, logp, entropy;
  };
  Drawn sample(ops::Ctx& ctx, const Tensor& h);
  void adjust(const Sampled& q, float* logits);
  void draft_tokens(ops::Ctx& ctx, const Tensor& h);
  void finish_step();

  const model::Model& model_;
  const kernels::Backend& backend_;
  EngineConfig config_;
  KvCache cache_;
  model::KvPool pool_;
  bool by_token_;
  Arena arena_;
  uint64_t version_ = 0;
  int64_t next_request_ = 0;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::vector<std::unique_ptr<Sequence>> spare_;    // finished ones, kept for their memory
  EngineStats stats_;

  // Scratch of a step.
  struct Work {
    Sequence* sequence;
    int32_t row, count;  // its rows in this batch
    int64_t position;    // of the first of them
    bool prompt;         // these are tokens of a prompt, and the model's form is MlaForm::by_token
  };
  std::vector<Work> work_;
  std::vector<Sampled> sampled_;
  std::vector<int32_t> tokens_, positions_, rows_;
  std::vector<kernels::Span> spans_;  // in the order of work_
  size_t prompt_spans_ = 0;
  std::vector<kernels::SampleRow> sample_rows_;
  std::vector<int32_t> counts_;  // of tokens in a sequence that is being penalised; zero in between
  std::vector<Event> events_;
};

}  // namespace ponder::engine
