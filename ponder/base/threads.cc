#include "ponder/base/threads.h"

#include <sched.h>

namespace ponder {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 50 us: longer than the gap between two kernels, short enough not to starve a neighbour.
constexpr int kSpins = 2000;

}  // namespace

int ThreadPool::available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  const unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = available_cores();
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    state_.fetch_add(uint64_t{1} << 32);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::take_tasks(int thread) {
  for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) call_(ctx_, i, thread);
}

void ThreadPool::run_erased(int64_t tasks, Call call, void* ctx) {
  if (workers_.empty() || tasks == 1) {
    for (int64_t i = 0; i < tasks; ++i) call(ctx, i, 0);
    return;
  }
  if (tasks <= 0) return;
  call_ = call;
  ctx_ = ctx;
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  // seq_cst: pairs with a worker that raises sleeping_ and then looks at state_ once more
  const uint64_t epoch = (state_.load(std::memory_order_relaxed) >> 32) + 1;
  state_.store(epoch << 32 | kOpen);
  if (sleeping_.load() > 0) {
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  take_tasks(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (state_.load(std::memory_order_acquire) & kInside) != 0;)
    if (++spins > kSpins)
      std::this_thread::yield();
    else
      relax();
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;  // epoch
  for (;;) {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (int spins = 0; state >> 32 == seen; state = state_.load(std::memory_order_acquire)) {
      if (++spins < kSpins) {
        relax();
        continue;
      }
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return stop_ || state_.load() >> 32 != seen; });
      sleeping_.fetch_sub(1);
      if (stop_) return;
      spins = 0;
    }
    seen = state >> 32;
    bool inside = false;
    while (!inside && (state & kOpen) && state >> 32 == seen)
      inside = state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire);
    if (!inside) continue;
    take_tasks(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace ponder
