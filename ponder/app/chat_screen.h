// What chat shows while an answer comes, and the keys that are heard meanwhile.
#pragma once

#include <string>

#include "ponder/app/answers.h"

namespace ponder::app {

std::string dimmed(const std::string& text);  // for stderr, where that has colour

// Answers go to stdout, thinking too where it is shown; everything else to stderr. Thinking is dimmed. Folded thinking
// is one line that counts.
class Screen {
 public:
  explicit Screen(bool folded);
  void show(const AnswerText::Delta& d);
  void fold(bool folded);
  bool folded() const { return folded_; }
  void count(int64_t thinking_tokens);  // so far
  void end();

 private:
  void clear_count();

  bool folded_, terminal_, color_;
  bool dim_ = false, begun_ = false, counting_ = false;
};

// While it lives, keys are heard without Enter and without echo, if stdin is a terminal. Ctrl+C stays a signal; the
// terminal is given back even when a second one ends the process at once.
class Keys {
 public:
  Keys();
  ~Keys();
  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;
  // What was typed since the last call.
  std::string typed();

 private:
  bool active_;
};

}  // namespace ponder::app
