// A pool of threads for kernels: `run(tasks, f)` calls f(task, thread) once for every task 0 .. tasks-1 and returns
// when all are done. The caller works too (it is thread 0).
//
// Which thread takes a task is left to chance (an atomic counter), so a busy neighbour delays one task, not half of the
// work. It can never matter for a result: a task is a set of *outputs* fixed by shapes alone, and `thread` only picks
// scratch memory (docs/numerics.md). Workers spin for a few microseconds between calls and then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace ponder {

class ThreadPool {
 public:
  // threads <= 0: as many as the affinity mask of the process allows.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // f(int64_t task, int thread). Not re-entrant, and only one thread may call it. f must not throw.
  template <class F>
  void run(int64_t tasks, F&& f) {
    using Fn = std::remove_reference_t<F>;
    run_erased(
        tasks, [](void* ctx, int64_t task, int thread) { (*static_cast<Fn*>(ctx))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

  // f(int64_t begin, int64_t end, int thread) over [0, n) in pieces of `grain`.
  template <class F>
  void run_ranges(int64_t n, int64_t grain, F&& f) {
    if (n <= 0) return;
    grain = grain < 1 ? 1 : grain;
    run((n + grain - 1) / grain, [&](int64_t task, int thread) {
      const int64_t begin = task * grain;
      f(begin, begin + grain < n ? begin + grain : n, thread);
    });
  }

  static int available_cores();

 private:
  using Call = void (*)(void*, int64_t, int);
  void run_erased(int64_t tasks, Call call, void* ctx);
  void work(int thread);
  void take_tasks(int thread);

  // epoch (high 32 bits) | open (bit 31) | workers inside the job (low 31 bits). A worker enters a job only while it is
  // open, so the caller waits for those who took part and never for one that the system has not scheduled.
  static constexpr uint64_t kOpen = uint64_t{1} << 31, kInside = kOpen - 1;

  std::vector<std::thread> workers_;
  // The job in progress: written while nobody is inside, read after entering.
  Call call_ = nullptr;
  void* ctx_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  bool stop_ = false;  // guarded by mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace ponder
