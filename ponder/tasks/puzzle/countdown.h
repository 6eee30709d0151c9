// Countdown with three numbers: the task on which a model of 0.3M parameters learns to search (R1-Zero in miniature).
//
// A problem is a set of three different numbers from 1..numbers_to and a target from 1..60 that some leaf of its search
// tree reaches. moves(x, y) of two numbers, larger first, are, in this order, x + y if <= 60, x - y if > 0, x * y if <=
// 60, x / y if y > 1 divides x. The nodes of a set n1 > n2 > n3 are the moves of (n1, n2), (n1, n3), (n2, n3), each
// with a value s and one number k left over; its leaves are moves(s, k). Nodes without leaves are dropped.
//
// Tokens (150 for numbers to 12): the marks, 1..60, the targets =1..=60, the given numbers #1..#12. Targets and given
// numbers have tokens of their own so that the first layer can find them by content.
//
//   direct    <bos> #9 #7 #6 =51   ( 7 * 6 ) + 9 <end>
//   search    <bos> #12 #10 #4 =13 <think> 12 + 4 = 16 16 + 10 = 26 high 16 - 10 = 6 low back 12 - 4 = 8 ... 10 + 3 =
//   13 yes
//             </think> 10 + ( 12 / 4 ) <end>
//   give-up   ... 7 - 6 = 1 low stop </think> ( 9 - 2 ) - 6 <end>
//
// A search walks the nodes in their order, cyclically, from a random first one. With a budget it may stop after that
// many rejected leaves and answer, wrongly, with the last. Every direct answer is right.
#pragma once

#include "ponder/tasks/task.h"

namespace ponder::tasks {

class Countdown final : public Task {
 public:
  static constexpr int kMaxNumber = 60;  // of plain numbers and of targets

  struct Move {
    int x = 0, y = 0, value = 0;
    char op = '+';
  };
  struct Node {
    Move move;
    std::vector<Move> leaves;
  };

  explicit Countdown(const TaskConfig& config = {});

  std::string_view name() const override { return "countdown"; }
  const TaskConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::span<const std::string_view> modes() const override;
  int max_text_tokens() const override { return 245; }
  int64_t problem_count(Split split) const override;
  Problem problem(Split split, int64_t index) const override;
  ParsedLine parse_line(std::string_view line) const override;
  std::string admit(Problem& problem) const override;
  std::vector<int32_t> prompt(const Problem& problem) const override;
  Grade grade(const Problem& problem, std::span<const int32_t> completion) const override;
  std::vector<int32_t> trace(const Problem& problem, CounterRng& rng) const override;

  // The search tree of an admitted problem's set.
  const std::vector<Node>& tree(const Problem& problem) const;
  int64_t set_count(Split split) const;

 private:
  size_t set_index(std::span<const int64_t> numbers) const;
  int32_t number_token(int64_t n) const { return first_number_ + static_cast<int32_t>(n); }
  void put_move(std::vector<int32_t>& out, const Move& m) const;
  void put_expression(std::vector<int32_t>& out, const Node& node, const Move& leaf) const;

  TaskConfig config_;
  std::unique_ptr<text::WordLevel> tokenizer_;
  int32_t first_number_, first_target_, first_given_;  // number n has the id first + n
  std::vector<std::vector<Node>> trees_;               // by set_index
  std::vector<Problem> problems_[2];                   // by Split
  int64_t sets_[2] = {0, 0};
};

}  // namespace ponder::tasks
