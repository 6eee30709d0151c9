// Who computes which rows in the next step, and on which pages.
//
// The scheduler knows no prefill and no decode. A sequence has `computed` tokens in its pages and `length` tokens in all;
// every step hands out a budget of rows to let the first catch up with the second. Answers to one prompt share its pages:
// the first of them, their leader, computes the prompt, the others follow. When pages run out the youngest sequence gives
// its own back and is recomputed later, with the same bits, but for what it finds in the pages of others. A step that fails
// (memory) leaves all as it was: the next one does the same work.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "ponder/engine/kv_cache.h"
#include "ponder/engine/sequence.h"
#include "ponder/model/kv.h"

namespace ponder::engine {

// The lists behind a model::Batch. Cleared, not freed, from step to step.
struct Rows {
  std::vector<int32_t> tokens, positions;
  std::vector<kernels::Span> spans;
  size_t prompt_spans = 0;

  void clear() { tokens.clear(), positions.clear(), spans.clear(), prompt_spans = 0; }
  model::Batch batch(const model::KvPool& pool) const { return {tokens, positions, spans, &pool, prompt_spans}; }
};

// What a sequence computes in a step.
struct Work {
  Sequence* sequence;
  int32_t row, count;  // its rows in the batch
  int64_t position;    // of the first of them
  bool prompt;         // these are tokens of a prompt, and the model's form is MlaForm::by_token
};

class Scheduler {
 public:
  // `by_token`: MlaForm::by_token, where tokens of prompts are computed in another way than generated ones.
  Scheduler(const EngineConfig& config, const model::KvPool& pool, bool by_token);

  void add(const Request& request, int64_t id);
  void cancel(int64_t request, int32_t answer);  // answer < 0: all of them
  bool idle() const { return waiting_.empty() && running_.empty(); }

  // A step, from begin to end. First, what was cancelled leaves (an event each), pages of older weights are given up, and
  // what waits comes in as far as there is room.
  void begin_step(uint64_t version, std::vector<Event>& events);
  // Hands out rows, the oldest sequences first; rows of prompts stand before the others. One span for each piece of work.
  std::span<const Work> plan(Rows& rows);
  // The leader's prompt is complete: its followers have it, too, when the step ends. Those that may go on, which is all of
  // them unless pages are missing.
  std::span<Sequence* const> fork_followers(Sequence& leader);
  // Followers get their copies, full pages are remembered, finished sequences leave.
  void end_step();

  const KvCache& cache() const { return cache_; }
  int64_t preempted() const { return preempted_; }
  int64_t shared_tokens() const { return shared_tokens_; }

 private:
  std::unique_ptr<Sequence> new_sequence();
  void admit();
  void find_prefix(Sequence& s);
  bool reserve_pages(Sequence& s, int64_t positions);
  bool make_room(const Sequence& keep);
  void drop_pages(Sequence& s);
  void fork(const Sequence& leader, Sequence& s);
  uint64_t page_hash(const Sequence& s, int64_t page, uint64_t previous) const;
  void remember_pages(Sequence& s);
  void release_followers(Sequence& leader);
  void take_out_finished();

  const EngineConfig config_;
  const model::KvPool& pool_;
  const bool by_token_;
  KvCache cache_;
  uint64_t version_ = 0;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::vector<std::unique_ptr<Sequence>> spare_;    // finished ones, kept for their memory
  std::vector<Work> work_;                          // of this step
  std::vector<Sequence*> forked_;
  struct PageCopy {
    int32_t from, to;
  };
  std::vector<PageCopy> copies_;  // to be made at the end of the step
  int64_t preempted_ = 0, shared_tokens_ = 0;
};

}  // namespace ponder::engine
