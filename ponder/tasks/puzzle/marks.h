// The words that every puzzle's texts share, at the same ids, and the counts taken from them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/tasks/task.h"

namespace ponder::tasks::puzzle {

// Ids are positions in this list.
inline constexpr std::array<std::string_view, 18> kMarks = {"<pad>", "<bos>", "<end>", ":",   "<think>", "</think>",
                                                            "(",     ")",     "+",     "-",   "*",       "/",
                                                            "=",     "low",   "high",  "yes", "back",    "stop"};
enum Mark : int32_t {
  kPad,
  kBos,
  kEnd,
  kColon,
  kThink,
  kEndThink,
  kOpen,
  kClose,
  kPlus,
  kMinus,
  kTimes,
  kDivide,
  kEquals,
  kLow,
  kHigh,
  kYes,
  kBack,
  kStop
};
inline constexpr std::array<int32_t, 3> kSpecials = {kPad, kBos, kEnd};
inline constexpr std::array<std::string_view, 2> kModes = {"search", "guess"};

inline constexpr bool is_operator(int32_t id) { return id >= kPlus && id <= kDivide; }
inline constexpr char operator_char(int32_t id) { return "+-*/"[id - kPlus]; }
inline constexpr int32_t operator_mark(char op) {
  return op == '+' ? kPlus : op == '-' ? kMinus : op == '*' ? kTimes : kDivide;
}

// The part of a completion that is the answer: after the last </think>; all of it if there is none and it does not
// begin with <think>; up to <end>. `complete` is false without <end>: then nothing is an answer.
struct Answer {
  bool complete = false, search = false;
  std::span<const int32_t> body;    // the completion up to <end>
  std::span<const int32_t> answer;  // empty if a search never closes its thinking
};
Answer find_answer(std::span<const int32_t> completion);

// Throws Error (data) for shares that are none.
void check_mixture(const TaskConfig& config);
// How many rejected leaves a search may see before it gives up: mostly without limit, else geometric.
int64_t draw_budget(const TaskConfig& config, CounterRng& rng);

// "3 7 12 -> 33", also with commas, and with = for the arrow. Returns "" or what is wrong.
std::string parse_numbers(std::string_view line, std::vector<int64_t>& numbers, int64_t& target);
// "12 10 4 -> 13"
std::string numbers_text(const Problem& problem);

}  // namespace ponder::tasks::puzzle
