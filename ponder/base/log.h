// Lines for people, on stderr; data goes to stdout and never through here.
//
// Safe from any thread. Colour only on a terminal and without NO_COLOR. A run adds a copy as JSON lines (log.jsonl).
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ponder {

enum class LogLevel { info, warn, error };

void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

void set_log_quiet(bool quiet);              // --quiet: warnings and errors only
void set_log_file(const std::string& path);  // a copy as JSON lines; "" stops it
bool stderr_is_terminal();
bool stderr_has_color();

// The status line of a long job, on a terminal only: rewritten at most once a second, and out of the way while log
// lines are written. Without a terminal it prints nothing.
class Progress {
 public:
  struct State {
    int64_t step = 0, total = 0;  // total 0: unknown
    std::string detail;           // "1.2k tok/s, loss 2.31"
  };

  explicit Progress(std::string stage);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(const State& state);
  void checkpoint_written() { checkpoint_ = std::chrono::steady_clock::now(); }

  // The line itself: "rl  120/1,000  3.2 steps/s  4m 35s left  checkpoint 32 s ago  detail".
  struct Line {
    std::string_view stage;
    State state;
    double steps_per_s = 0;
    double checkpoint_age_s = -1;  // negative: there is none
  };
  static std::string format(const Line& line);

 private:
  using Clock = std::chrono::steady_clock;
  std::string stage_;
  Clock::time_point start_, shown_{}, checkpoint_{};
  int64_t first_step_ = -1;
};

std::string format_duration(double seconds);  // "850 ms" "12.3 s" "4m 35s" "3h 05m" "2d 04h"
std::string format_count(double n);           // "950" "12.3k" "1.50M" "671G"
std::string format_bytes(uint64_t bytes);     // "512 B" "1.5 GiB"
std::string format_grouped(int64_t n);        // "1,234,567"
// One character a value, lowest to highest; more than `width` values are averaged in equal parts. NaN is a blank.
std::string sparkline(std::span<const double> values, size_t width = 40);

}  // namespace ponder
