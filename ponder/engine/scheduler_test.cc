// The scheduler without a model: a step "computes" its rows by counting them, and every answer is a row of sevens.
#include "ponder/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ponder::engine {
namespace {

Request request(int prompt, int answers = 1, int max_new_tokens = 8) {
  Request r;
  for (int i = 0; i < prompt; ++i) r.prompt.push_back(i % 50);
  r.seeds.assign(static_cast<size_t>(answers), 0);
  r.max_new_tokens = max_new_tokens;
  return r;
}

class SchedulerTest : public testing::Test {
 protected:
  void start(const EngineConfig& config) {
    pool_ = std::make_unique<model::KvPool>(kernels::PageLayout{1, 1, 1}, 1, config.pages);
    scheduler_ = std::make_unique<Scheduler>(config, *pool_, false);
  }
  // Which answers computed how many rows.
  struct Done {
    int64_t request;
    int32_t answer, count;
    bool operator==(const Done&) const = default;
  };
  std::vector<Done> step(uint64_t version = 1) {
    events_.clear();
    scheduler_->begin_step(version, events_);
    std::vector<Done> done;
    for (const Work& w : scheduler_->plan(rows_)) {
      EXPECT_EQ(w.position, w.sequence->computed);
      done.push_back({w.sequence->request, w.sequence->answer, w.count});
      w.sequence->computed += w.count;
      if (!w.sequence->complete()) continue;
      draw(*w.sequence);
      for (Sequence* f : scheduler_->fork_followers(*w.sequence)) draw(*f);
    }
    EXPECT_EQ(rows_.tokens.size(), rows_.positions.size());
    EXPECT_EQ(rows_.spans.size(), done.size());
    scheduler_->end_step();
    return done;
  }
  int64_t pages() const { return scheduler_->cache().in_use(); }

  std::unique_ptr<model::KvPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  Rows rows_;
  std::vector<Event> events_;
  int64_t drawn_ = 0;

 private:
  void draw(Sequence& s) {
    s.tokens.push_back(7);
    ++drawn_;
    if (s.length() >= s.max_length) s.finish = Finish::length;
  }
};

TEST_F(SchedulerTest, TheOldestGetRowsFirstAndLongPromptsComeInPieces) {
  start({.pages = 10, .max_step_rows = 130});
  scheduler_->add(request(100), 0);
  scheduler_->add(request(90), 1);
  scheduler_->add(request(30), 2);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 100}, {1, 0, 30}}));
  EXPECT_EQ(drawn_, 1);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 1}, {1, 0, 60}, {2, 0, 30}}));
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 1}, {1, 0, 1}, {2, 0, 1}}));
  while (!scheduler_->idle()) step();
  EXPECT_EQ(drawn_, 3 * 8);
  EXPECT_EQ(pages(), 0);
}

TEST_F(SchedulerTest, TemperaturesTooSmallToDivideByAreGreedy) {
  start({.pages = 10});
  for (const float t : {1e-39f, 1e-6f, 0.5f}) {
    Request r = request(5);
    r.sampling.temperature = t;
    scheduler_->add(r, 0);
  }
  scheduler_->begin_step(1, events_);
  std::vector<float> used;
  for (const Work& w : scheduler_->plan(rows_)) used.push_back(w.sequence->sampling.temperature);
  EXPECT_EQ(used, (std::vector<float>{0, 0, 0.5f}));
}

TEST_F(SchedulerTest, NoMoreThanMaxSequencesAtOnce) {
  start({.pages = 10, .max_sequences = 2, .max_step_rows = 100});
  for (int i = 0; i < 3; ++i) scheduler_->add(request(5, 1, 2), i);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 5}, {1, 0, 5}}));
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 1}, {1, 0, 1}}));
  EXPECT_EQ(step(), (std::vector<Done>{{2, 0, 5}}));
}

TEST_F(SchedulerTest, FollowersShareTheLeadersPages) {
  start({.pages = 20, .max_step_rows = 200});
  scheduler_->add(request(130, 4), 0);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 130}}));
  EXPECT_EQ(drawn_, 4);       // all four have their first token
  EXPECT_EQ(pages(), 2 + 4);  // two full pages together, the third each
  EXPECT_EQ(scheduler_->shared_tokens(), 3 * 130);
  EXPECT_EQ(step().size(), 4u);
}

// MTP modules write their keys of a prompt after the followers have their pages.
TEST_F(SchedulerTest, FollowersGetAllThatTheStepWrites) {
  start({.pages = 20});
  scheduler_->add(request(70, 3), 0);
  scheduler_->begin_step(1, events_);
  const Work leader = scheduler_->plan(rows_)[0];
  leader.sequence->computed += leader.count;
  const std::span<Sequence* const> followers = scheduler_->fork_followers(*leader.sequence);
  ASSERT_EQ(followers.size(), 2u);
  const auto page = [&](const Sequence& s) { return pool_->layer(0) + s.pages.at(1) * pool_->layout().page_floats(); };
  page(*leader.sequence)[0] = 42;
  scheduler_->end_step();
  for (const Sequence* f : followers) {
    EXPECT_NE(page(*f), page(*leader.sequence));
    EXPECT_EQ(page(*f)[0], 42);
  }
}

TEST_F(SchedulerTest, WithoutSharingEveryAnswerComputesThePrompt) {
  start({.pages = 20, .max_step_rows = 1000, .share_prefixes = false});
  scheduler_->add(request(130, 3), 0);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 130}, {0, 1, 130}, {0, 2, 130}}));
  EXPECT_EQ(pages(), 9);
}

TEST_F(SchedulerTest, ALaterRequestFindsFullPagesOfTheSameWeights) {
  start({.pages = 20, .max_step_rows = 1000});
  scheduler_->add(request(130, 1, 1), 0);
  step();
  scheduler_->add(request(130, 1, 1), 1);
  EXPECT_EQ(step(), (std::vector<Done>{{1, 0, 2}}));  // 128 tokens were found
  scheduler_->add(request(130, 1, 1), 2);
  EXPECT_EQ(step(2), (std::vector<Done>{{2, 0, 130}}));  // other weights
}

TEST_F(SchedulerTest, NewWeightsComputeWhatIsUnderWayAnew) {
  start({.pages = 20, .max_step_rows = 1000});
  scheduler_->add(request(70, 1, 8), 0);
  EXPECT_EQ(step(1), (std::vector<Done>{{0, 0, 70}}));
  EXPECT_EQ(step(1), (std::vector<Done>{{0, 0, 1}}));
  EXPECT_EQ(step(2), (std::vector<Done>{{0, 0, 72}}));
}

TEST_F(SchedulerTest, TheYoungestGivesItsPagesBackAndIsComputedAgain) {
  start({.pages = 3, .max_step_rows = 1000, .share_prefixes = false});
  scheduler_->add(request(62, 1, 20), 0);
  scheduler_->add(request(64, 1, 20), 1);  // needs its second page first
  while (!scheduler_->idle()) {
    step();
    ASSERT_LE(pages(), 3);
  }
  EXPECT_EQ(drawn_, 2 * 20);
  EXPECT_GT(scheduler_->preempted(), 0);
  EXPECT_EQ(pages(), 0);
}

// Two that do not fit together must not take each other's pages in turn.
TEST_F(SchedulerTest, TheOldestComesToItsEnd) {
  start({.pages = 20, .max_sequences = 16, .max_step_rows = 512, .share_prefixes = false});
  scheduler_->add(request(600, 1, 500), 0);
  scheduler_->add(request(700, 1, 20), 1);
  for (int i = 2; i < 8; ++i) scheduler_->add(request(120, 1, 200), i);
  int64_t rows = 0;
  while (!scheduler_->idle())
    for (const Done& d : step()) rows += d.count;
  EXPECT_EQ(drawn_, 500 + 20 + 6 * 200);
  EXPECT_LT(rows, 2 * (1100 + 720 + 6 * 320));  // of about 3,700 that one after the other needs
  EXPECT_EQ(pages(), 0);
}

TEST_F(SchedulerTest, PreemptedAnswersFindTheirPromptAgain) {
  start({.pages = 20, .max_sequences = 16, .max_step_rows = 1024});
  scheduler_->add(request(640, 16, 150), 0);
  int64_t rows = 0;
  while (!scheduler_->idle())
    for (const Done& d : step()) rows += d.count;
  EXPECT_EQ(drawn_, 16 * 150);
  EXPECT_GT(scheduler_->preempted(), 0);
  EXPECT_LT(rows, 2 * (640 + 16 * 150));
  EXPECT_EQ(pages(), 0);
}

// A step that ends early (memory) is made again by the next one, whatever it had done.
TEST_F(SchedulerTest, AFailedStepIsMadeAgain) {
  start({.pages = 20});
  scheduler_->add(request(70, 3), 0);
  scheduler_->add(request(30, 1), 1);
  scheduler_->begin_step(1, events_);
  for (const Work& w : scheduler_->plan(rows_)) {
    w.sequence->computed += w.count;
    scheduler_->fork_followers(*w.sequence);
  }
  scheduler_->begin_step(1, events_);
  for (const Work& w : scheduler_->plan(rows_)) {
    EXPECT_EQ(w.position, w.sequence->prompt - 1);
    EXPECT_EQ(w.count, 1);
  }
  scheduler_->end_step();
}

// Leaders whose prompt is not complete, running and waiting, several at once.
TEST_F(SchedulerTest, CancelledBeforeThePromptIsComputed) {
  start({.pages = 40, .max_sequences = 5, .max_step_rows = 64});
  for (int i = 0; i < 3; ++i) scheduler_->add(request(200, 3), i);
  EXPECT_EQ(step(), (std::vector<Done>{{0, 0, 64}}));
  for (int i = 0; i < 3; ++i) scheduler_->cancel(i, -1);
  EXPECT_TRUE(step().empty());
  EXPECT_EQ(events_.size(), 9u);
  for (const Event& e : events_) EXPECT_EQ(e.finish, Finish::cancelled);
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(pages(), 0);
}

TEST_F(SchedulerTest, FollowersOutliveALeaderThatIsCancelled) {
  for (const int max_sequences : {1, 2, 3}) {  // the followers wait, one of them runs, both run
    start({.pages = 40, .max_sequences = max_sequences, .max_step_rows = 64});
    drawn_ = 0;
    scheduler_->add(request(100, 3, 5), 0);
    step();
    scheduler_->cancel(0, 0);
    step();
    EXPECT_EQ(events_.size(), 1u);
    while (!scheduler_->idle()) step();
    EXPECT_EQ(drawn_, 2 * 5);
    EXPECT_EQ(pages(), 0);
  }
  start({.pages = 40, .max_sequences = 1, .max_step_rows = 64});
  drawn_ = 0;
  scheduler_->add(request(10, 1, 5), 0);
  scheduler_->add(request(100, 3, 5), 1);
  step();
  scheduler_->cancel(1, 0);  // a leader that was never let in
  while (!scheduler_->idle()) step();
  EXPECT_EQ(drawn_, 3 * 5);
}

}  // namespace
}  // namespace ponder::engine
