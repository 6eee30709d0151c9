#include "ponder/app/machine.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/tensor/tensor.h"

namespace ponder::app {
namespace {

constexpr int kChains = 12;  // more than latency (4) x pipes (2)
constexpr int64_t kSteps = 200'000;
constexpr double kMeasuringSeconds = 0.05;  // of which the best round counts

// Chains of s = s * a + b in registers. The compiler may contract here: nothing but the speed is of interest.
#if defined(__clang__)
#define PONDER_MAY_CONTRACT
#else
#define PONDER_MAY_CONTRACT , gnu::optimize("fp-contract=fast")
#endif
template <class Vector>
[[gnu::always_inline]] inline float fma_chains() {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
  Vector s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{}, s8{}, s9{}, s10{}, s11{};
  const Vector a = s0 + 0.999f, b = s0 + 1e-3f;
  for (int64_t i = 0; i < kSteps; ++i) {
    s0 = s0 * a + b, s1 = s1 * a + b, s2 = s2 * a + b, s3 = s3 * a + b, s4 = s4 * a + b, s5 = s5 * a + b;
    s6 = s6 * a + b, s7 = s7 * a + b, s8 = s8 * a + b, s9 = s9 * a + b, s10 = s10 * a + b, s11 = s11 * a + b;
    // Keeps twelve equal chains apart, which the compiler would otherwise make one.
    asm volatile("" : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5));
    asm volatile("" : "+v"(s6), "+v"(s7), "+v"(s8), "+v"(s9), "+v"(s10), "+v"(s11));
  }
  return (s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)[0];
}

#if defined(__x86_64__)
typedef float Vector16 __attribute__((vector_size(64)));
typedef float Vector8 __attribute__((vector_size(32)));
[[gnu::target("avx512f") PONDER_MAY_CONTRACT]] float chains_avx512() { return fma_chains<Vector16>(); }
[[gnu::target("avx2,fma") PONDER_MAY_CONTRACT]] float chains_avx2() { return fma_chains<Vector8>(); }

int64_t thread_nanoseconds() {  // that this thread has had a core
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}
#endif

typedef uint64_t Word8 __attribute__((vector_size(32)));

// A line "NAME:  N kB" of a file of /proc, in bytes; 0: none.
int64_t kilobytes_of(const char* path, const char* name) {
  std::FILE* f = std::fopen(path, "r");
  if (!f) return 0;
  char line[256];
  long long found = 0;
  const size_t length = std::strlen(name);
  while (!found && std::fgets(line, sizeof line, f))
    if (std::strncmp(line, name, length) == 0 && line[length] == ':') found = std::atoll(line + length + 1);
  std::fclose(f);
  return found * 1024;
}

std::atomic<int> g_signals{0};
std::atomic<bool> g_end{false}, g_terminal_changed{false};
std::atomic<int> g_wake{-1};  // an eventfd: a signal may reach any thread, and has to end the waiting of one

std::atomic<void (*)()> g_last_words{nullptr};

void wake() {
  const int error = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(g_wake, &one, sizeof one);
  errno = error;
}

void on_signal(int signal) {
  if (signal != SIGINT) g_end = true;
  // A terminal that is closed says so beside other signals: not a second wish.
  const bool second = signal != SIGHUP && g_signals.fetch_add(1) > 0;
  wake();
  if (!second) return;
  if (void (*const last_words)() = g_last_words.load()) last_words();
  _exit(static_cast<int>(Exit::interrupted));
}

void on_terminal_change(int) {
  g_terminal_changed = true;
  wake();
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

Machine::Machine(int threads) : pool(threads), backend(kernels::make_best_backend(pool)) {}

double measure_fma_peak(ThreadPool& pool) {
#if defined(__x86_64__)
  const auto isas = kernels::cpu_isas();
  const bool wide = !isas.empty() && isas[0] == "avx512";
  if (isas.empty()) return 0;
  std::atomic<float> sink{0};
  const int64_t tasks = 4 * pool.size();
  const int cores = std::min(pool.size(), ThreadPool::available_cores());
  const double flops = 2.0 * kChains * (wide ? 16 : 8) * static_cast<double>(kSteps * tasks);
  double best = 0;
  for (const double begin = seconds_now(); best == 0 || seconds_now() - begin < kMeasuringSeconds;) {
    std::atomic<int64_t> nanoseconds{0};
    pool.run(tasks, [&](int64_t, int) {
      const int64_t start = thread_nanoseconds();
      sink.store(wide ? chains_avx512() : chains_avx2(), std::memory_order_relaxed);
      nanoseconds += thread_nanoseconds() - start;
    });
    best = std::max(best, flops / (1e-9 * static_cast<double>(nanoseconds)) * cores);
  }
  return best;
#else
  return 0;
#endif
}

double measure_read_bandwidth(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{256} << 20, kPiece = size_t{1} << 20;
  const Buffer buffer(kBytes);  // on huge pages
  auto* bytes = static_cast<std::byte*>(buffer.data());
  const auto pieces = static_cast<int64_t>(kBytes / kPiece);
  pool.run(pieces, [&](int64_t i, int) { std::memset(bytes + static_cast<size_t>(i) * kPiece, 1, kPiece); });
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (const double begin = seconds_now(); best == 0 || seconds_now() - begin < kMeasuringSeconds;) {
    const double start = seconds_now();
    pool.run(pieces, [&](int64_t i, int) {
      const auto* p = reinterpret_cast<const Word8*>(bytes + static_cast<size_t>(i) * kPiece);
      Word8 a{}, b{}, c{}, d{};
      for (size_t j = 0; j < kPiece / sizeof(Word8); j += 4) a ^= p[j], b ^= p[j + 1], c ^= p[j + 2], d ^= p[j + 3];
      a ^= b, c ^= d, a ^= c;
      sink.fetch_xor(a[0] ^ a[1] ^ a[2] ^ a[3], std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(kBytes) / (seconds_now() - start));
  }
  return best;
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

void reset_peak_rss() {
  if (std::FILE* f = std::fopen("/proc/self/clear_refs", "w")) {  // 5: the high-water mark (proc(5))
    std::fputs("5", f);
    std::fclose(f);
  }
}

int64_t current_rss_bytes() {
  long pages = 0;
  if (std::FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    std::fclose(f);
  }
  return int64_t{pages} * sysconf(_SC_PAGESIZE);
}

int64_t anonymous_rss_bytes() { return kilobytes_of("/proc/self/status", "RssAnon"); }

namespace {

int64_t physical_memory_bytes() { return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE); }

}  // namespace

std::optional<MemoryLimit> memory_limit_in_force() {
  std::optional<MemoryLimit> least;
  for (MemoryLimit& limit : memory_limits())
    if (limit.bytes < physical_memory_bytes() && (!least || limit.left < least->left)) least = std::move(limit);
  return least;
}

int64_t available_memory_bytes() {
  int64_t bytes = kilobytes_of("/proc/meminfo", "MemAvailable");
  if (bytes == 0) bytes = physical_memory_bytes();
  for (const MemoryLimit& limit : memory_limits()) bytes = std::min(bytes, limit.left);
  return bytes;
}

int64_t memory_bytes() {
  int64_t bytes = physical_memory_bytes();
  for (const MemoryLimit& limit : memory_limits()) bytes = std::min(bytes, limit.bytes);
  return bytes;
}

std::string system_file(const std::string& path) {
  try {
    return path_exists(path) ? read_file(path, size_t{4} << 20) : "";
  } catch (const Error&) {
    return "";
  }
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void install_stop_signals() {
  if (g_wake < 0) g_wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) handle(signal, on_signal);
}

void survive_lost_readers() { handle(SIGPIPE, SIG_IGN); }

void install_terminal_signals() {
  install_stop_signals();
  struct sigaction before {};
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) handle(SIGHUP, on_signal);  // nohup
  for (const int signal : {SIGWINCH, SIGCONT}) handle(signal, on_terminal_change);
}

bool stop_requested() { return g_end || g_signals.load() > 0; }
bool end_requested() { return g_end; }
void clear_stop_request() {
  if (!g_end) g_signals = 0;
}

Wake wait_for_input(int fd) {
  for (;;) {
    if (stop_requested()) return Wake::stop;
    if (g_terminal_changed.exchange(false)) return Wake::terminal;
    pollfd both[] = {{fd, POLLIN, 0}, {g_wake, POLLIN, 0}};
    if (poll(both, 2, -1) < 0 && errno != EINTR) return Wake::input;  // reading will say what is wrong
    uint64_t signals;
    if (both[1].revents && ::read(g_wake, &signals, sizeof signals) > 0) continue;
    if (both[0].revents) return Wake::input;
  }
}

bool input_ready(int fd) {
  pollfd one{fd, POLLIN, 0};
  return poll(&one, 1, 0) != 0;
}

void set_last_words(void (*f)()) { g_last_words.store(f); }

}  // namespace ponder::app
