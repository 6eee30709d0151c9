#include "ponder/tasks/puzzle/countdown.h"

#include <algorithm>
#include <array>

#include "ponder/base/error.h"
#include "ponder/tasks/puzzle/expression.h"
#include "ponder/tasks/puzzle/marks.h"

namespace ponder::tasks {
namespace {

using namespace puzzle;  // the marks

constexpr int kCap = Countdown::kMaxNumber;

std::vector<Countdown::Move> moves(int x, int y) {
  if (x < y) std::swap(x, y);
  std::vector<Countdown::Move> out;
  if (x + y <= kCap) out.push_back({x, y, x + y, '+'});
  if (x > y) out.push_back({x, y, x - y, '-'});
  if (x * y <= kCap) out.push_back({x, y, x * y, '*'});
  if (y > 1 && x % y == 0) out.push_back({x, y, x / y, '/'});
  return out;
}

// n1 > n2 > n3
std::vector<Countdown::Node> build_tree(const std::array<int, 3>& n) {
  std::vector<Countdown::Node> out;
  constexpr int kPairs[3][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}};
  for (const auto& [i, j, k] : kPairs) {
    for (const auto& move : moves(n[static_cast<size_t>(i)], n[static_cast<size_t>(j)])) {
      auto leaves = moves(move.value, n[static_cast<size_t>(k)]);
      if (!leaves.empty()) out.push_back({move, std::move(leaves)});
    }
  }
  return out;
}

std::vector<std::string> vocabulary(int numbers_to) {
  std::vector<std::string> words(kMarks.begin(), kMarks.end());
  for (int i = 1; i <= kCap; ++i) words.push_back(fmt::format("{}", i));
  for (int i = 1; i <= kCap; ++i) words.push_back(fmt::format("={}", i));
  for (int i = 1; i <= numbers_to; ++i) words.push_back(fmt::format("#{}", i));
  return words;
}

}  // namespace

Countdown::Countdown(const TaskConfig& config) : config_(config) {
  config_.name = name();
  if (config_.numbers_to == 0) config_.numbers_to = 12;
  if (config_.mean_leaves == 0) config_.mean_leaves = 4;
  const int hi = config_.numbers_to;
  if (hi < 3 || hi > kCap) throw_error(Exit::data, "task countdown: numbers_to = {}: 3 to {} are possible", hi, kCap);
  check_mixture(config_);

  tokenizer_ = std::make_unique<text::WordLevel>(vocabulary(hi), kSpecials);
  first_number_ = tokenizer_->id("1") - 1;
  first_target_ = tokenizer_->id("=1") - 1;
  first_given_ = tokenizer_->id("#1") - 1;

  // The sets in ascending order, shuffled once; the first share is held out with all its targets.
  std::vector<std::array<int, 3>> sets;
  for (int a = 1; a <= hi; ++a) {
    for (int b = a + 1; b <= hi; ++b) {
      for (int c = b + 1; c <= hi; ++c) sets.push_back({c, b, a});
    }
  }
  CounterRng rng(config_.split_seed, Stream::split, 0);
  rng.shuffle(sets);
  sets_[1] = static_cast<int64_t>(static_cast<double>(sets.size()) * config_.held_out_share);
  sets_[0] = static_cast<int64_t>(sets.size()) - sets_[1];

  const auto base = static_cast<size_t>(hi) + 1;
  trees_.resize(base * base * base);
  for (size_t i = 0; i < sets.size(); ++i) {
    const std::vector<int64_t> numbers(sets[i].begin(), sets[i].end());
    auto& tree = trees_[set_index(numbers)] = build_tree(sets[i]);
    std::array<bool, kCap + 1> reached{};
    for (const auto& node : tree) {
      for (const auto& leaf : node.leaves) reached[static_cast<size_t>(leaf.value)] = true;
    }
    auto& problems = problems_[i < static_cast<size_t>(sets_[1]) ? 1 : 0];
    for (int t = 1; t <= kCap; ++t) {
      if (!reached[static_cast<size_t>(t)]) continue;
      Problem p;
      p.numbers = numbers;
      p.target = t;
      p.text = numbers_text(p);
      p.id = fmt::format("{}-{}-{}-{}", numbers[0], numbers[1], numbers[2], t);
      problems.push_back(std::move(p));
    }
  }
}

std::span<const std::string_view> Countdown::modes() const { return kModes; }

int64_t Countdown::problem_count(Split split) const {
  return static_cast<int64_t>(problems_[static_cast<size_t>(split)].size());
}

int64_t Countdown::set_count(Split split) const { return sets_[static_cast<size_t>(split)]; }

Problem Countdown::problem(Split split, int64_t index) const {
  const auto& problems = problems_[static_cast<size_t>(split)];
  PONDER_CHECK(index >= 0 && index < problem_count(split), "problem {} of {}", index, problems.size());
  return problems[static_cast<size_t>(index)];
}

std::string Countdown::admit(Problem& p) const {
  const auto allowed = [&](const std::string& what) {
    return fmt::format(
        "{}; allowed are three different whole numbers from 1 to {} and a target from 1 to {}, such as 3 7 12 -> 33",
        what, config_.numbers_to, kCap);
  };
  if (p.numbers.size() != 3)
    return allowed(fmt::format("{} number{} given", p.numbers.size(), p.numbers.size() == 1 ? "" : "s"));
  for (const int64_t n : p.numbers) {
    if (n < 1 || n > config_.numbers_to) return allowed(fmt::format("the number {} is out of range", n));
  }
  if (p.target < 1 || p.target > kCap) return allowed(fmt::format("the target {} is out of range", p.target));
  std::sort(p.numbers.rbegin(), p.numbers.rend());
  for (size_t i = 0; i < 2; ++i) {
    if (p.numbers[i] == p.numbers[i + 1]) return allowed(fmt::format("the number {} occurs twice", p.numbers[i]));
  }
  p.text = numbers_text(p);
  if (p.id.empty()) p.id = fmt::format("{}-{}-{}-{}", p.numbers[0], p.numbers[1], p.numbers[2], p.target);
  return "";
}

ParsedLine Countdown::parse_line(std::string_view line) const {
  ParsedLine out;
  Problem p;
  out.error = parse_numbers(line, p.numbers, p.target);
  if (!out.error.empty()) {
    out.error +=
        fmt::format("; write three different numbers from 1 to {}, an arrow and a target, such as 3 7 12 -> 33",
                    config_.numbers_to);
    return out;
  }
  out.error = admit(p);
  if (!out.error.empty()) return out;
  const auto& nodes = tree(p);
  const bool solvable = std::any_of(nodes.begin(), nodes.end(), [&](const Node& node) {
    return std::any_of(node.leaves.begin(), node.leaves.end(),
                       [&](const Move& leaf) { return leaf.value == p.target; });
  });
  if (!solvable) out.note = fmt::format("no two steps lead from these numbers to {}", p.target);
  out.problem = std::move(p);
  return out;
}

size_t Countdown::set_index(std::span<const int64_t> numbers) const {
  const auto base = static_cast<size_t>(config_.numbers_to) + 1;
  return (static_cast<size_t>(numbers[0]) * base + static_cast<size_t>(numbers[1])) * base +
         static_cast<size_t>(numbers[2]);
}

const std::vector<Countdown::Node>& Countdown::tree(const Problem& p) const {
  PONDER_CHECK(p.numbers.size() == 3 && p.numbers[0] <= config_.numbers_to && p.numbers[0] > p.numbers[1] &&
                   p.numbers[1] > p.numbers[2] && p.numbers[2] >= 1,
               "problem \"{}\" was never admitted", p.text);
  return trees_[set_index(p.numbers)];
}

std::vector<int32_t> Countdown::prompt(const Problem& p) const {
  PONDER_CHECK(!tree(p).empty() && p.target >= 1 && p.target <= kCap, "problem \"{}\" was never admitted", p.text);
  std::vector<int32_t> out = {kBos};
  for (const int64_t n : p.numbers) out.push_back(first_given_ + static_cast<int32_t>(n));
  out.push_back(first_target_ + static_cast<int32_t>(p.target));
  return out;
}

void Countdown::put_move(std::vector<int32_t>& out, const Move& m) const {
  out.insert(out.end(), {number_token(m.x), operator_mark(m.op), number_token(m.y), kEquals, number_token(m.value)});
}

// The node in brackets, first where its value is the leaf's first operand.
void Countdown::put_expression(std::vector<int32_t>& out, const Node& node, const Move& leaf) const {
  const Move& m = node.move;
  const bool node_first = leaf.x == m.value;
  if (!node_first) out.insert(out.end(), {number_token(leaf.x), operator_mark(leaf.op)});
  out.insert(out.end(), {kOpen, number_token(m.x), operator_mark(m.op), number_token(m.y), kClose});
  if (node_first) out.insert(out.end(), {operator_mark(leaf.op), number_token(leaf.y)});
}

std::vector<int32_t> Countdown::trace(const Problem& p, CounterRng& rng) const {
  const auto& nodes = tree(p);
  std::vector<int32_t> out = prompt(p);
  out.reserve(128);
  if (rng.uniform() < config_.direct_share) {
    std::vector<std::pair<const Node*, const Move*>> solutions;
    for (const Node& node : nodes) {
      for (const Move& leaf : node.leaves) {
        if (leaf.value == p.target) solutions.emplace_back(&node, &leaf);
      }
    }
    PONDER_CHECK(!solutions.empty(), "problem \"{}\" has no solution", p.text);
    const auto& [node, leaf] = solutions[rng.below(solutions.size())];
    put_expression(out, *node, *leaf);
    out.push_back(kEnd);
    return out;
  }
  int64_t budget = draw_budget(config_, rng);
  const auto finish = [&](const Node& node, const Move& leaf, Mark last) {
    out.insert(out.end(), {last, kEndThink});
    put_expression(out, node, leaf);
    out.push_back(kEnd);
  };
  const size_t start = rng.below(nodes.size());
  out.push_back(kThink);
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[(start + i) % nodes.size()];
    if (i > 0) out.push_back(kBack);
    put_move(out, node.move);
    for (const Move& leaf : node.leaves) {
      put_move(out, leaf);
      if (leaf.value == p.target) return finish(node, leaf, kYes), out;
      out.push_back(leaf.value < p.target ? kLow : kHigh);
      if (--budget == 0) return finish(node, leaf, kStop), out;
    }
  }
  PONDER_CHECK(false, "problem \"{}\" has no solution", p.text);
  return out;
}

Grade Countdown::grade(const Problem& p, std::span<const int32_t> completion) const {
  Grade g;
  Diagnostics& d = g.diagnostics;
  if (p.numbers.size() != 3) {
    g.verdict = Grade::Verdict::unknown;
    g.mode = kModes[1];
    g.reason = "not a problem of this task";
    return g;
  }
  const Answer parts = find_answer(completion);
  g.mode = kModes[parts.search ? 0 : 1];
  d.truncated = !parts.complete;

  // 0 for what is no plain number: numbers begin at 1.
  const auto number = [&](int32_t id) {
    return id > first_number_ && id <= first_number_ + kCap ? id - first_number_ : 0;
  };
  const int target = static_cast<int>(p.target);
  if (parts.search) {
    const auto w = parts.body;
    Move node;  // the last equation without a check
    for (size_t i = 1; i < w.size(); ++i) {
      const int before = number(w[i - 1]);
      if (w[i] == kLow || w[i] == kHigh) {
        ++d.rejected;
        d.missed_yes += before == target;
      } else if (w[i] == kYes) {
        d.claimed = true;
        ++d.checks;
        d.false_yes += before != target;
      } else if (w[i] == kStop) {
        d.gave_up = true;
      }
      if (w[i] != kEquals || i < 3 || i + 1 >= w.size() || !is_operator(w[i - 2])) continue;
      const int x = number(w[i - 3]), y = before, value = number(w[i + 1]);
      if (x == 0 || y == 0 || value == 0) continue;
      ++d.equations;
      const auto exact = apply({x, 1}, operator_char(w[i - 2]), {y, 1});
      d.wrong_arithmetic += exact != Rational{value, 1};
      const int32_t check = i + 2 < w.size() ? w[i + 2] : int32_t{kPad};
      if (check != kLow && check != kHigh && check != kYes) {
        node = {x, y, value, '='};
        continue;
      }
      ++d.leaves;
      std::array<int64_t, 4> used = {node.x, node.y, x, y},
                             have = {p.numbers[0], p.numbers[1], p.numbers[2], node.value};
      std::sort(used.begin(), used.end());
      std::sort(have.begin(), have.end());
      d.copy_errors += used != have;
      d.wrong_checks += check != (value < target ? kLow : value > target ? kHigh : kYes);
    }
    d.checks += d.rejected;
  }

  if (!parts.complete) {
    g.reason = "no end within the limit";
    return g;
  }
  // ( a op b ) op c   or   c op ( a op b )
  const auto a = parts.answer;
  const bool node_first = a.size() == 7 && a[0] == kOpen && a[4] == kClose;
  const bool node_last = a.size() == 7 && a[2] == kOpen && a[6] == kClose;
  const size_t in = node_first ? 1 : 3, op = node_first ? 5 : 1, out = node_first ? 6 : 0;
  if (!(node_first || node_last) || !number(a[in]) || !is_operator(a[in + 1]) || !number(a[in + 2]) ||
      !is_operator(a[op]) || !number(a[out])) {
    d.malformed = true;
    g.reason = parts.search && a.empty() ? "the thinking does not lead to an answer"
                                         : "the answer is not ( a op b ) op c or c op ( a op b )";
    return g;
  }
  const int x = number(a[in]), y = number(a[in + 2]), c = number(a[out]);
  const Rational inner = *apply({x, 1}, operator_char(a[in + 1]), {y, 1});
  const auto value =
      node_first ? apply(inner, operator_char(a[op]), {c, 1}) : apply({c, 1}, operator_char(a[op]), inner);
  std::array<int64_t, 3> used = {x, y, c};
  std::sort(used.rbegin(), used.rend());
  const bool fits = std::equal(used.begin(), used.end(), p.numbers.begin(), p.numbers.end());
  if (!value) {
    g.reason = "division by zero";
    return g;
  }
  const std::string shown = to_string(*value);
  if (!fits) {
    g.reason = fmt::format("uses {} {} {}, not the numbers given", used[0], used[1], used[2]);
    g.answer = shown + " from other numbers";
  } else {
    g.answer = shown;
    const bool right = *value == Rational{p.target, 1};
    g.verdict = right ? Grade::Verdict::right : Grade::Verdict::wrong;
    g.reason = right ? "right" : fmt::format("makes {}, not {}", shown, p.target);
  }
  return g;
}

}  // namespace ponder::tasks
