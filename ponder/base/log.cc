#include "ponder/base/log.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/utf8.h"

namespace ponder {
namespace {

// What is on the terminal and where copies go. One for the process, as stderr is.
struct Screen {
  std::mutex mutex;
  bool quiet = false;
  std::string status;  // the status line as shown, "" if none
  std::unique_ptr<AppendFile> file;

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(STDERR_FILENO, bytes.data(), bytes.size());
      if (n <= 0) return;  // nobody reads; nothing better to do
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
};

Screen& screen() {
  static Screen* const s = new Screen;  // outlives every static object that may still log
  return *s;
}

constexpr std::string_view kClearLine = "\r\x1b[K";

// What fits into one row of the terminal: a line that wraps could not be cleared again.
std::string_view one_row(std::string_view text) {
  winsize size{};
  const size_t columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  size_t at = 0;
  for (size_t column = 0; column < columns && at < text.size(); ++column)
    at += std::max<size_t>(1, utf8_char_bytes(text.substr(at)));
  return text.substr(0, at);
}

}  // namespace

bool stderr_is_terminal() {
  static const bool terminal = ::isatty(STDERR_FILENO) != 0;
  return terminal;
}

bool stderr_has_color() {
  static const bool color = [] {
    const char* no = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return stderr_is_terminal() && !(no && *no) && !(term && std::string_view(term) == "dumb");
  }();
  return color;
}

void log_line(LogLevel level, std::string_view text) {
  Screen& s = screen();
  std::lock_guard lock(s.mutex);
  if (!s.quiet || level != LogLevel::info) {
    std::string line;
    if (!s.status.empty()) line += kClearLine;
    if (level == LogLevel::warn) line += stderr_has_color() ? "\x1b[33mwarning:\x1b[0m " : "warning: ";
    if (level == LogLevel::error) line += stderr_has_color() ? "\x1b[31merror:\x1b[0m " : "error: ";
    line.append(text).push_back('\n');
    line += s.status;
    s.write(line);
  }
  if (s.file) {
    std::string line;
    const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    JsonWriter(line)
        .begin_object()
        .key("time")
        .raw(fmt::format("{:.3f}", now))
        .member("level", level == LogLevel::info   ? "info"
                         : level == LogLevel::warn ? "warn"
                                                   : "error")
        .member("text", text)
        .end_object();
    try {
      s.file->append_line(line);
    } catch (const Error&) {
      // The line is on the screen; a log must not end a run.
    }
  }
}

void set_log_quiet(bool quiet) {
  std::lock_guard lock(screen().mutex);
  screen().quiet = quiet;
}

void set_log_file(const std::string& path) {
  auto file = path.empty() ? nullptr : std::make_unique<AppendFile>(path);
  std::lock_guard lock(screen().mutex);
  screen().file = std::move(file);
}

// --- Progress --------------------------------------------------------------------------------------------------------

Progress::Progress(std::string stage) : stage_(std::move(stage)), start_(Clock::now()) {}

Progress::~Progress() {
  Screen& s = screen();
  std::lock_guard lock(s.mutex);
  if (!s.status.empty()) s.write(kClearLine);
  s.status.clear();
}

std::string Progress::format(const Line& line) {
  std::string out = fmt::format("{}  {}", line.stage, format_grouped(line.state.step));
  if (line.state.total > 0) out += fmt::format("/{}", format_grouped(line.state.total));
  if (line.steps_per_s >= 1)
    out += fmt::format("  {:.1f} steps/s", line.steps_per_s);
  else if (line.steps_per_s > 0)
    out += fmt::format("  {}/step", format_duration(1 / line.steps_per_s));
  if (line.steps_per_s > 0 && line.state.total > line.state.step)
    out += fmt::format("  {} left",
                       format_duration(static_cast<double>(line.state.total - line.state.step) / line.steps_per_s));
  if (line.checkpoint_age_s >= 0) out += fmt::format("  checkpoint {} ago", format_duration(line.checkpoint_age_s));
  if (!line.state.detail.empty()) out += fmt::format("  {}", line.state.detail);
  return out;
}

void Progress::update(const State& state) {
  if (!stderr_is_terminal()) return;
  const Clock::time_point now = Clock::now();
  if (first_step_ < 0) {
    first_step_ = state.step;
    start_ = now;
  }
  if (shown_ != Clock::time_point{} && now - shown_ < std::chrono::seconds(1)) return;
  shown_ = now;
  const auto seconds_since = [&](Clock::time_point t) { return std::chrono::duration<double>(now - t).count(); };
  const double elapsed = seconds_since(start_);
  const std::string text =
      format({.stage = stage_,
              .state = state,
              .steps_per_s = elapsed > 0 ? static_cast<double>(state.step - first_step_) / elapsed : 0,
              .checkpoint_age_s = checkpoint_ == Clock::time_point{} ? -1 : seconds_since(checkpoint_)});
  Screen& s = screen();
  std::lock_guard lock(s.mutex);
  if (s.quiet) return;
  s.status = one_row(text);
  s.write(fmt::format("{}{}", kClearLine, s.status));
}

// --- Words for numbers -----------------------------------------------------------------------------------------------

std::string format_duration(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 1e9) return "for ever";
  const int64_t s = std::llround(seconds);
  if (s < 3600) return fmt::format("{}m {:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h {:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d {:02}h", s / 86400, s / 3600 % 24);
}

std::string format_count(double n) {
  if (!std::isfinite(n)) return "?";
  if (n < 0) return fmt::format("-{}", format_count(-n));
  if (n < 999.5) return n == std::floor(n) || n >= 99.95 ? fmt::format("{:.0f}", n) : fmt::format("{:.3g}", n);
  static constexpr char kUnits[] = {'k', 'M', 'G', 'T', 'P', 'E'};
  size_t unit = 0;
  for (n /= 1000; n >= 999.5 && unit + 1 < std::size(kUnits); ++unit) n /= 1000;
  const int digits = n < 9.995 ? 2 : n < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", n, digits, kUnits[unit]);
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double x = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; x >= 1023.95; ++unit) x /= 1024;
  return fmt::format("{:.1f} {}", x, kUnits[unit]);
}

std::string format_grouped(int64_t n) {
  const std::string digits = fmt::format("{}", n);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;
    if (left % 3 == 0 && i > 0 && digits[i - 1] != '-') out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string sparkline(std::span<const double> values, size_t width) {
  static constexpr const char* kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  width = std::min(width, values.size());
  std::vector<double> cells;
  for (size_t cell = 0; cell < width; ++cell) {
    double sum = 0;
    int n = 0;
    for (size_t i = cell * values.size() / width; i < (cell + 1) * values.size() / width; ++i)
      if (std::isfinite(values[i])) sum += values[i], ++n;
    cells.push_back(n ? sum / n : NAN);
  }
  double low = INFINITY, high = -INFINITY;
  for (const double x : cells)
    if (!std::isnan(x)) low = std::min(low, x), high = std::max(high, x);
  std::string out;
  for (const double x : cells) {
    if (std::isnan(x))
      out += " ";
    else
      out += kBars[high > low ? std::min(7, static_cast<int>((x - low) / (high - low) * 8)) : 3];
  }
  return out;
}

}  // namespace ponder
