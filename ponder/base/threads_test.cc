#include "ponder/base/threads.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace ponder {
namespace {

class Threads : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Threads, testing::Values(1, 2, 7));

TEST_P(Threads, EveryTaskOnceAndThreadNumbersInRange) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.size(), GetParam());
  for (const int64_t tasks : {0, 1, 2, 6, 7, 8, 100, 1000}) {
    std::vector<int> runs(static_cast<size_t>(tasks));
    std::vector<std::atomic<int>> busy(static_cast<size_t>(pool.size()));
    std::atomic<bool> wrong = false;
    pool.run(tasks, [&](int64_t task, int thread) {
      if (thread < 0 || thread >= pool.size() || busy[static_cast<size_t>(thread)]++ != 0) wrong = true;
      ++runs[static_cast<size_t>(task)];
      --busy[static_cast<size_t>(thread)];
    });
    EXPECT_FALSE(wrong);
    for (const int n : runs) ASSERT_EQ(n, 1);
  }
}

TEST_P(Threads, ManyTinyJobsSeeWhatTheOneBeforeWrote) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(16, 1);
  const int jobs = 1000;
  for (int job = 0; job < jobs; ++job) {
    // Each task reads its neighbour of the last job; a lost or overlapping job would show.
    std::vector<int64_t> next(values.size());
    pool.run(static_cast<int64_t>(values.size()), [&](int64_t task, int) {
      const size_t i = static_cast<size_t>(task);
      next[i] = values[(i + 1) % values.size()] + 1;
    });
    values = next;
  }
  for (const int64_t v : values) EXPECT_EQ(v, jobs + 1);
}

TEST_P(Threads, RangesCoverAndSum) {
  ThreadPool pool(GetParam());
  for (const int64_t n : {0, 1, 63, 64, 65, 1000})
    for (const int64_t grain : {0, 1, 7, 64, 5000}) {
      std::vector<int64_t> sums(static_cast<size_t>(n) + 1);
      pool.run_ranges(n, grain, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(begin)] += i;
      });
      int64_t sum = 0;
      for (const int64_t s : sums) sum += s;
      EXPECT_EQ(sum, n * (n - 1) / 2);
    }
}

TEST_P(Threads, WakesAfterSleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // past the spinning
    std::atomic<int> sum = 0;
    pool.run(10, [&](int64_t task, int) { sum += static_cast<int>(task); });
    EXPECT_EQ(sum, 45);
  }
}

TEST(ThreadPool, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(3);
  EXPECT_GE(ThreadPool::available_cores(), 1);
  EXPECT_EQ(ThreadPool().size(), ThreadPool::available_cores());
}

}  // namespace
}  // namespace ponder
