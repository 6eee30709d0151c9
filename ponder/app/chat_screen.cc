#include "ponder/app/chat_screen.h"

#include <termios.h>
#include <unistd.h>

#include <cstdio>

#include "ponder/app/machine.h"
#include "ponder/base/log.h"

namespace ponder::app {

std::string dimmed(const std::string& text) { return stderr_has_color() ? "\x1b[2m" + text + "\x1b[0m" : text; }

Screen::Screen(bool folded)
    : folded_(folded), terminal_(isatty(STDOUT_FILENO)), color_(terminal_ && stderr_has_color()) {}

void Screen::show(const AnswerText::Delta& d) {
  const bool thinking = d.part == AnswerText::State::reasoning;
  if (thinking && folded_) return;
  clear_count();
  std::string_view text = d.text;
  if (thinking != dim_) {
    if (color_) std::fputs(thinking ? "\x1b[2m" : "\x1b[0m", stdout);
    if (!thinking && begun_) std::fputs("\n\n", stdout);
    dim_ = thinking;
    begun_ = false;
  }
  if (!begun_) text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
  if (text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  begun_ = true;
}

void Screen::fold(bool folded) {
  if (folded == folded_) return;
  folded_ = folded;
  clear_count();
  if (folded && dim_) {
    std::fputs(color_ ? " ...\x1b[0m\n" : " ...\n", stdout);
    dim_ = begun_ = false;
  }
  std::fflush(stdout);
}

void Screen::count(int64_t tokens) {
  if (!folded_ || !terminal_ || tokens == 0 || begun_) return;
  std::fprintf(stdout, "\r%sthinking: %lld tokens%s", color_ ? "\x1b[2m" : "", static_cast<long long>(tokens),
               color_ ? "\x1b[0m" : "");
  std::fflush(stdout);
  counting_ = true;
}

void Screen::clear_count() {
  if (!counting_) return;
  std::fputs("\r\x1b[K", stdout);
  counting_ = false;
}

void Screen::end() {
  clear_count();
  if (dim_ && color_) std::fputs("\x1b[0m", stdout);
  std::fputs("\n", stdout);
  std::fflush(stdout);
  dim_ = begun_ = false;
}

namespace {

termios g_before;

void restore_terminal() { tcsetattr(STDIN_FILENO, TCSANOW, &g_before); }

}  // namespace

Keys::Keys() : active_(isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &g_before) == 0) {
  if (!active_) return;
  termios raw = g_before;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  raw.c_cc[VMIN] = 0, raw.c_cc[VTIME] = 0;
  set_last_words(restore_terminal);
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

Keys::~Keys() {
  if (!active_) return;
  restore_terminal();
  set_last_words(nullptr);
}

std::string Keys::typed() {
  char text[256];
  const ssize_t n = active_ ? read(STDIN_FILENO, text, sizeof text) : 0;
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
}

}  // namespace ponder::app
