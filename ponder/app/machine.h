// What a command computes with: threads, the backend for this CPU, the stop signals, and what the machine can do.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ponder/app/memory_limit.h"
#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"

namespace ponder::app {

struct Machine {
  explicit Machine(int threads);  // <= 0: all cores that the process may use
  ThreadPool pool;
  std::unique_ptr<kernels::Backend> backend;
};

// FLOP/s of nothing but fused multiply-adds on all threads: what "share of peak" is measured against. Each thread is timed
// by its own clock, since a new process may have two of them on one core for a tenth of a second. Takes about 50 ms.
double measure_fma_peak(ThreadPool& pool);
// Bytes/s of nothing but reading memory, far more than caches hold, on huge pages, all threads. Takes about 100 ms.
double measure_read_bandwidth(ThreadPool& pool);

int64_t peak_rss_bytes();          // the most this process ever had in memory
void reset_peak_rss();             // from now on (where the system allows)
int64_t current_rss_bytes();       // 0 where the system does not say
int64_t anonymous_rss_bytes();     // without pages of mapped files, which the system takes back when it needs them
int64_t memory_bytes();            // of the machine, or what control groups allow of it
int64_t available_memory_bytes();  // what could be had now without swapping
// The control group that leaves this process least, if one allows less than the machine has.
std::optional<MemoryLimit> memory_limit_in_force();
// A small file of the system; "" where there is none, or none for us.
std::string system_file(const std::string& path);
double seconds_now();  // of a clock that only goes forward

// First SIGINT, SIGTERM or SIGUSR1: `stop_requested` is true, and the work in hand is finished in good order. A second
// one ends the process with 130 at once.
void install_stop_signals();
bool stop_requested();
// A run goes on, and stops in good order, when the program that reads its messages has ended (`2>&1 | tee log` with Ctrl+C).
void survive_lost_readers();
// chat: Ctrl+C ends the answer only, so it is forgotten after that; all else, SIGHUP too, ends the chat.
void install_terminal_signals();
void clear_stop_request();
bool end_requested();
// Waits until `fd` can be read, or a signal of these has come, or the terminal is another (its size, or after SIGCONT
// everything that was set in it).
enum class Wake { input, stop, terminal };
Wake wait_for_input(int fd);
bool input_ready(int fd);  // or at its end: reading would not wait
// What a second one does before it ends the process; must be safe in a signal handler. Null: nothing.
void set_last_words(void (*f)());

}  // namespace ponder::app
