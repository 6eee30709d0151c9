// Game of 24: make the target from four numbers from 1..13, repetition allowed, with + - * / and fractions in between.
//
// The model is trained on targets 1..60 other than 24 and on 85% of the sets of numbers; held out are the other sets
// with every target, and the target 24 with every set (the classic 1,362 puzzles: game24_puzzles, or a file of them).
//
// Tokens (159 for numbers to 13): the marks, 1..99, denominators _2.._13 (8/3 is `8 _3`), the target in two tokens,
// tens =0x..=6x and units =x0..=x9, so that 24 is made of parts that were trained, and the given numbers #1..#13.
//
//   direct  <bos> #6 #4 #1 #1 =2x =x4   ( ( 6 * 4 ) * 1 ) * 1 <end>
//   search  <bos> #10 #9 #7 #3 =2x =x3 <think>
//             10 + 9 = 19 : 19 7 3              a first move, then the three numbers left, falling
//               19 + 7 = 26 : 26 3              a second move, then the two numbers left
//                 * 78 high + 29 high - 23 yes  last moves, results falling
//           </think> ( ( 10 + 9 ) + 7 ) - 3 <end>
//
// One `back` undoes one move: it stands before every second move but the first, two of them before every first move but
// the first. Since results fall, the first `low` ends a node: whatever follows is lower still. That, the numbers
// written out after each move, and last moves without operands make a whole first move cost about 180 tokens; the limit
// is 400. So a search must begin near a solution: it starts at a random first move of those from which it comes through
// within the limit, and goes on in the fixed order, cyclically. The order is systematic, the start is what intuition
// can learn.
//
// Moves of (x, y), larger first: x + y, x - y if > 0, x * y, x / y if y > 1 divides x; up to 99. Only where no such
// moves reach the target are all quotients x / y and y / x with denominators up to 13 moves too. Pairs (1,2) (1,3)
// (2,3) .. of the falling list; a move that repeats an earlier one is skipped. A give-up stops after a budget of
// rejected results (geometric) from a first move drawn uniformly, with `stop` and its last expression.
#pragma once

#include "ponder/tasks/task.h"

namespace ponder::tasks {

class Game24 final : public Task {
 public:
  static constexpr int kMaxNumber = 99;  // of what is written in a search
  static constexpr int kMaxDenominator = 13;
  static constexpr int kMaxGiven = 13;
  static constexpr int kMaxTarget = 60;

  explicit Game24(const TaskConfig& config = {});

  std::string_view name() const override { return "game24"; }
  const TaskConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::span<const std::string_view> modes() const override;
  int max_text_tokens() const override { return config_.max_text_tokens; }
  int64_t problem_count(Split split) const override;
  Problem problem(Split split, int64_t index) const override;
  ParsedLine parse_line(std::string_view line) const override;
  std::string admit(Problem& problem) const override;
  std::vector<int32_t> prompt(const Problem& problem) const override;
  Grade grade(const Problem& problem, std::span<const int32_t> completion) const override;
  // Of a problem that the search tree does not reach (1 in 100 with target 24): PONDER_CHECK. problem(split, i) are
  // reached.
  std::vector<int32_t> trace(const Problem& problem, CounterRng& rng) const override;

  // Whether the search tree reaches the target, without and with fractions.
  bool reached(const Problem& problem, bool fractions) const;

 private:
  struct Entry {
    uint16_t set;
    uint8_t target;
  };
  struct Set {
    std::array<int64_t, 4> numbers;  // falling
    uint64_t whole, fractional;      // bit t: target t is reached by whole moves; by all
  };
  const Set& set_of(const Problem& problem) const;
  void count_errors(const Problem& problem, std::span<const int32_t> body, Diagnostics& d) const;

  TaskConfig config_;
  std::unique_ptr<text::WordLevel> tokenizer_;
  std::vector<Set> sets_;
  std::vector<uint16_t> set_index_;  // by the four numbers
  std::vector<Entry> problems_[2];   // by Split
};

// Every multiset of four numbers from 1..numbers_to that makes the target exactly, by any moves (zero, negative numbers
// and any fraction in between): 1,362 for 13 and 24. In ascending order.
std::vector<Problem> game24_puzzles(int numbers_to = 13, int64_t target = 24);
bool game24_solvable(std::span<const int64_t> numbers, int64_t target);

}  // namespace ponder::tasks
