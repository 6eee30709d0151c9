#include "ponder/tasks/puzzle/game24.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "ponder/base/error.h"
#include "ponder/tasks/puzzle/expression.h"
#include "ponder/tasks/puzzle/marks.h"

namespace ponder::tasks {
namespace {

using namespace puzzle;  // the marks, Rational

constexpr int kCap = Game24::kMaxNumber;
// n has the id kFirst + n
constexpr int32_t kFirstNumber = static_cast<int32_t>(kMarks.size()) - 1;
constexpr int32_t kFirstDenominator = kFirstNumber + kCap - 1;
constexpr int32_t kFirstTens = kFirstDenominator + Game24::kMaxDenominator + 1;
constexpr int32_t kFirstUnits = kFirstTens + Game24::kMaxTarget / 10 + 1;
constexpr int32_t kFirstGiven = kFirstUnits + 10 - 1;

std::vector<std::string> vocabulary(int numbers_to) {
  std::vector<std::string> words(kMarks.begin(), kMarks.end());
  for (int i = 1; i <= kCap; ++i) words.push_back(fmt::format("{}", i));
  for (int i = 2; i <= Game24::kMaxDenominator; ++i) words.push_back(fmt::format("_{}", i));
  for (int i = 0; i <= Game24::kMaxTarget / 10; ++i) words.push_back(fmt::format("={}x", i));
  for (int i = 0; i <= 9; ++i) words.push_back(fmt::format("=x{}", i));
  for (int i = 1; i <= numbers_to; ++i) words.push_back(fmt::format("#{}", i));
  return words;
}

// A number in play and how it was made. Its expression is a tree in a pool: the four given numbers, then one entry a
// move.
struct Item {
  Rational value;
  int8_t left = -1, right = -1;  // pool entries, -1 for a given number
  char op = 0;
};
struct Pool {
  std::array<Item, 7> items;
  int size = 0;
  int8_t add(const Item& item) {
    items[static_cast<size_t>(size)] = item;
    return static_cast<int8_t>(size++);
  }
  const Item& operator[](int8_t i) const { return items[static_cast<size_t>(i)]; }
};

// Numbers in play, falling.
struct Hand {
  std::array<int8_t, 4> at{};
  int size = 0;
};

struct Move {
  int i, j;  // positions in the hand; the larger first, but for y / x
  char op;
  Rational value;
};
struct Moves {
  std::array<Move, 36> list;
  int size = 0;
  const Move* begin() const { return list.data(); }
  const Move* end() const { return list.data() + size; }
};

bool writable(Rational v) { return v.p >= 1 && v.p <= kCap && v.q <= Game24::kMaxDenominator; }

Moves moves(const Pool& pool, const Hand& hand, bool fractions) {
  Moves out;
  const auto value = [&](int i) { return pool[hand.at[static_cast<size_t>(i)]].value; };
  const auto put = [&](int i, int j, char op, Rational v) {
    if (!writable(v)) return;
    const bool repeats = std::any_of(out.begin(), out.end(), [&](const Move& m) {
      return m.op == op && value(m.i) == value(i) && value(m.j) == value(j);
    });
    if (!repeats) out.list[static_cast<size_t>(out.size++)] = {i, j, op, v};
  };
  for (int i = 0; i < hand.size; ++i) {
    for (int j = i + 1; j < hand.size; ++j) {
      const Rational x = value(i), y = value(j);
      if (x.q == 1 && y.q == 1) {
        put(i, j, '+', {x.p + y.p, 1});
        put(i, j, '-', {x.p - y.p, 1});
        put(i, j, '*', {x.p * y.p, 1});
        if (!fractions) {
          if (y.p > 1 && x.p % y.p == 0) put(i, j, '/', {x.p / y.p, 1});
          continue;
        }
      } else {
        // Numerators to 99 and denominators to 13: nothing overflows, and no value here is 0.
        for (const char op : {'+', '-', '*'}) put(i, j, op, *apply(x, op, y));
      }
      if (y != Rational{1, 1}) put(i, j, '/', *apply(x, '/', y));
      if (x != y && x != Rational{1, 1}) put(j, i, '/', *apply(y, '/', x));
    }
  }
  return out;
}

// The last moves: results falling, each once.
Moves last_moves(const Pool& pool, const Hand& hand, bool fractions) {
  Moves out = moves(pool, hand, fractions);
  Move* const begin = out.list.data();
  std::stable_sort(begin, begin + out.size, [](const Move& a, const Move& b) { return compare(a.value, b.value) > 0; });
  out.size = static_cast<int>(
      std::unique(begin, begin + out.size, [](const Move& a, const Move& b) { return a.value == b.value; }) - begin);
  return out;
}

// The hand after a move, whose result is entered in the pool.
Hand play(Pool& pool, const Hand& hand, const Move& m) {
  const int8_t made = pool.add({m.value, hand.at[static_cast<size_t>(m.i)], hand.at[static_cast<size_t>(m.j)], m.op});
  Hand out;
  bool placed = false;
  for (int k = 0; k < hand.size; ++k) {
    if (k == m.i || k == m.j) continue;
    const int8_t item = hand.at[static_cast<size_t>(k)];
    if (!placed && compare(m.value, pool[item].value) >= 0) {
      out.at[static_cast<size_t>(out.size++)] = made;
      placed = true;
    }
    out.at[static_cast<size_t>(out.size++)] = item;
  }
  if (!placed) out.at[static_cast<size_t>(out.size++)] = made;
  return out;
}

Hand deal(Pool& pool, std::span<const int64_t> falling) {
  Hand hand;
  for (const int64_t n : falling) hand.at[static_cast<size_t>(hand.size++)] = pool.add({.value = {n, 1}});
  return hand;
}

using Tokens = std::vector<int32_t>;

void put_value(Tokens& out, Rational v) {
  out.push_back(kFirstNumber + static_cast<int32_t>(v.p));
  if (v.q > 1) out.push_back(kFirstDenominator + static_cast<int32_t>(v.q));
}

void put_move(Tokens& out, const Pool& pool, const Hand& hand, const Move& m) {
  put_value(out, pool[hand.at[static_cast<size_t>(m.i)]].value);
  out.push_back(operator_mark(m.op));
  put_value(out, pool[hand.at[static_cast<size_t>(m.j)]].value);
  out.push_back(kEquals);
  put_value(out, m.value);
}

void put_hand(Tokens& out, const Pool& pool, const Hand& hand) {
  out.push_back(kColon);
  for (int k = 0; k < hand.size; ++k) put_value(out, pool[hand.at[static_cast<size_t>(k)]].value);
}

// Depth is at most 3. Brackets around everything but numbers and the whole.
void put_expression(Tokens& out, const Pool& pool, int8_t at, bool whole) {
  const Item& item = pool[at];
  if (item.left < 0) return put_value(out, item.value);
  if (!whole) out.push_back(kOpen);
  put_expression(out, pool, item.left, false);
  out.push_back(operator_mark(item.op));
  put_expression(out, pool, item.right, false);
  if (!whole) out.push_back(kClose);
}

enum class End { exhausted, found, gave_up };

// Everything below one first move, up to the target or the budget's end; then `pool`'s last entry is the last result.
End walk_first(Tokens& out, Pool& pool, const Hand& hand, const Move& first, Rational target, bool fractions,
               int64_t& budget) {
  put_move(out, pool, hand, first);
  const Hand three = play(pool, hand, first);
  put_hand(out, pool, three);
  const int size = pool.size;
  bool next = false;
  for (const Move& second : moves(pool, three, fractions)) {
    pool.size = size;
    if (next) out.push_back(kBack);
    next = true;
    put_move(out, pool, three, second);
    const Hand two = play(pool, three, second);
    put_hand(out, pool, two);
    for (const Move& last : last_moves(pool, two, fractions)) {
      out.push_back(operator_mark(last.op));
      put_value(out, last.value);
      const int order = compare(last.value, target);
      out.push_back(order < 0 ? kLow : order > 0 ? kHigh : kYes);
      const bool stop = order != 0 && --budget == 0;
      if (order == 0 || stop) {
        play(pool, two, last);
        return stop ? End::gave_up : End::found;
      }
      if (order < 0) break;
    }
  }
  return End::exhausted;
}

// Calls f(target) for every whole result of the tree, f(pool) after the last move.
template <class F>
void for_each_result(std::span<const int64_t> falling, bool fractions, F&& f) {
  Pool pool;
  const Hand four = deal(pool, falling);
  for (const Move& first : moves(pool, four, fractions)) {
    pool.size = 4;
    const Hand three = play(pool, four, first);
    for (const Move& second : moves(pool, three, fractions)) {
      pool.size = 5;
      const Hand two = play(pool, three, second);
      for (const Move& last : last_moves(pool, two, fractions)) {
        if (last.value.q != 1) continue;
        pool.size = 6;
        f(pool, two, last);
      }
    }
  }
}

uint64_t reach(std::span<const int64_t> falling, bool fractions) {
  uint64_t out = 0;
  for_each_result(falling, fractions, [&](const Pool&, const Hand&, const Move& last) {
    if (last.value.p <= Game24::kMaxTarget) out |= uint64_t{1} << last.value.p;
  });
  return out;
}

// By any moves. Numerators and denominators stay below 13^4 x 4^4: no reduction is needed.
bool solve(std::array<std::pair<int64_t, int64_t>, 4>& v, size_t n, int64_t target) {
  if (n == 1) return v[0].second != 0 && v[0].first == target * v[0].second;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      const auto [a, b] = v[i];
      const auto [c, d] = v[j];
      const auto last = v[n - 1];
      v[j] = last;
      const std::pair<int64_t, int64_t> results[] = {{a * d + c * b, b * d}, {a * d - c * b, b * d},
                                                     {c * b - a * d, b * d}, {a * c, b * d},
                                                     {a * d, b * c},         {c * b, d * a}};
      for (const auto& r : results) {
        if (r.second == 0) continue;
        v[i] = r;
        if (solve(v, n - 1, target)) return true;
      }
      v[i] = {a, b};
      v[n - 1] = last;
      v[j] = {c, d};
    }
  }
  return false;
}

size_t numbers_key(std::span<const int64_t> n) {
  constexpr size_t base = Game24::kMaxGiven + 1;
  return ((static_cast<size_t>(n[0]) * base + static_cast<size_t>(n[1])) * base + static_cast<size_t>(n[2])) * base +
         static_cast<size_t>(n[3]);
}

Problem make_problem(std::span<const int64_t> numbers, int64_t target) {
  Problem p;
  p.numbers.assign(numbers.begin(), numbers.end());
  p.target = target;
  p.text = numbers_text(p);
  p.id = fmt::format("{}-{}", fmt::join(p.numbers, "-"), target);
  return p;
}

}  // namespace

Game24::Game24(const TaskConfig& config) : config_(config) {
  config_.name = name();
  if (config_.numbers_to == 0) config_.numbers_to = kMaxGiven;
  if (config_.mean_leaves == 0) config_.mean_leaves = 12;
  const int hi = config_.numbers_to;
  if (hi < 4 || hi > kMaxGiven)
    throw_error(Exit::data, "task game24: numbers_to = {}: 4 to {} are possible", hi, kMaxGiven);
  if (config_.max_text_tokens < 64)
    throw_error(Exit::data, "task game24: max_text_tokens = {}: at least 64", config_.max_text_tokens);
  check_mixture(config_);
  tokenizer_ = std::make_unique<text::WordLevel>(vocabulary(hi), kSpecials);
  PONDER_CHECK(tokenizer_->id("#1") == kFirstGiven + 1 && tokenizer_->id("_2") == kFirstDenominator + 2,
               "the vocabulary's order");

  set_index_.assign(numbers_key(std::array<int64_t, 4>{kMaxGiven, kMaxGiven, kMaxGiven, kMaxGiven}) + 1, 0);
  std::array<int64_t, 4> n{};
  for (n[3] = 1; n[3] <= hi; ++n[3]) {
    for (n[2] = n[3]; n[2] <= hi; ++n[2]) {
      for (n[1] = n[2]; n[1] <= hi; ++n[1]) {
        for (n[0] = n[1]; n[0] <= hi; ++n[0]) {
          set_index_[numbers_key(n)] = static_cast<uint16_t>(sets_.size());
          const uint64_t whole = reach(n, false);
          sets_.push_back({n, whole, config_.fractions ? whole | reach(n, true) : whole});
        }
      }
    }
  }
  std::vector<uint16_t> order(sets_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint16_t>(i);
  CounterRng rng(config_.split_seed, Stream::split, 1);
  rng.shuffle(order);
  const auto held_out = static_cast<size_t>(static_cast<double>(order.size()) * config_.held_out_share);
  for (size_t i = 0; i < order.size(); ++i) {
    for (int t = 1; t <= kMaxTarget; ++t) {
      if (!(sets_[order[i]].fractional >> t & 1)) continue;
      if (i < held_out) {
        problems_[1].push_back({order[i], static_cast<uint8_t>(t)});
      } else if (t != config_.held_out_target) {
        problems_[0].push_back({order[i], static_cast<uint8_t>(t)});
      }
    }
  }
}

std::span<const std::string_view> Game24::modes() const { return kModes; }

int64_t Game24::problem_count(Split split) const {
  return static_cast<int64_t>(problems_[static_cast<size_t>(split)].size());
}

Problem Game24::problem(Split split, int64_t index) const {
  PONDER_CHECK(index >= 0 && index < problem_count(split), "problem {} of {}", index, problem_count(split));
  const Entry& e = problems_[static_cast<size_t>(split)][static_cast<size_t>(index)];
  return make_problem(sets_[e.set].numbers, e.target);
}

std::string Game24::admit(Problem& p) const {
  const auto allowed = [&](const std::string& what) {
    return fmt::format(
        "{}; allowed are four whole numbers from 1 to {} and a target from 1 to {}, such as 1 4 6 6 -> 24", what,
        config_.numbers_to, kMaxTarget);
  };
  if (p.numbers.size() != 4)
    return allowed(fmt::format("{} number{} given", p.numbers.size(), p.numbers.size() == 1 ? "" : "s"));
  for (const int64_t n : p.numbers) {
    if (n < 1 || n > config_.numbers_to) return allowed(fmt::format("the number {} is out of range", n));
  }
  if (p.target < 1 || p.target > kMaxTarget) return allowed(fmt::format("the target {} is out of range", p.target));
  std::sort(p.numbers.rbegin(), p.numbers.rend());
  p.text = numbers_text(p);
  if (p.id.empty()) p.id = make_problem(p.numbers, p.target).id;
  return "";
}

ParsedLine Game24::parse_line(std::string_view line) const {
  ParsedLine out;
  Problem p;
  out.error = parse_numbers(line, p.numbers, p.target);
  if (!out.error.empty()) {
    out.error += fmt::format("; write four numbers from 1 to {}, an arrow and a target, such as 1 4 6 6 -> 24",
                             config_.numbers_to);
    return out;
  }
  out.error = admit(p);
  if (!out.error.empty()) return out;
  if (!game24_solvable(p.numbers, p.target))
    out.note = fmt::format("there is no way from these numbers to {}", p.target);
  out.problem = std::move(p);
  return out;
}

const Game24::Set& Game24::set_of(const Problem& p) const {
  PONDER_CHECK(p.numbers.size() == 4 && p.numbers[0] <= config_.numbers_to && p.numbers[3] >= 1 &&
                   std::is_sorted(p.numbers.rbegin(), p.numbers.rend()) && p.target >= 1 && p.target <= kMaxTarget,
               "problem \"{}\" was never admitted", p.text);
  return sets_[set_index_[numbers_key(p.numbers)]];
}

bool Game24::reached(const Problem& p, bool fractions) const {
  const Set& set = set_of(p);
  return (fractions ? set.fractional : set.whole) >> p.target & 1;
}

std::vector<int32_t> Game24::prompt(const Problem& p) const {
  set_of(p);
  Tokens out = {kBos};
  for (const int64_t n : p.numbers) out.push_back(kFirstGiven + static_cast<int32_t>(n));
  out.push_back(kFirstTens + static_cast<int32_t>(p.target / 10));
  out.push_back(kFirstUnits + static_cast<int32_t>(p.target % 10));
  return out;
}

std::vector<int32_t> Game24::trace(const Problem& p, CounterRng& rng) const {
  const bool fractions = !reached(p, false);
  PONDER_CHECK(reached(p, fractions), "the search tree of \"{}\" does not reach the target", p.text);
  Tokens out = prompt(p);
  const Rational target{p.target, 1};
  const auto direct = [&] {
    // One of the solutions, uniformly: the k-th replaces the choice with probability 1/k.
    uint64_t seen = 0;
    Tokens chosen;
    for_each_result(p.numbers, fractions, [&](const Pool& pool, const Hand& two, const Move& last) {
      if (last.value != target || rng.below(++seen) != 0) return;
      Pool whole = pool;
      play(whole, two, last);
      chosen.clear();
      put_expression(chosen, whole, static_cast<int8_t>(whole.size - 1), true);
    });
    out.insert(out.end(), chosen.begin(), chosen.end());
    out.push_back(kEnd);
    return out;
  };
  if (rng.uniform() < config_.direct_share) return direct();

  Pool pool;
  const Hand four = deal(pool, p.numbers);
  const Moves firsts = moves(pool, four, fractions);
  const auto count = static_cast<size_t>(firsts.size);
  int64_t budget = draw_budget(config_, rng);
  const bool bounded = budget != INT64_MAX;
  const auto limit = static_cast<size_t>(config_.max_text_tokens);
  // What closes a search: a mark, </think>, seven numbers and operators, at most three pairs of brackets less one,
  // <end>.
  constexpr size_t kTail = 2 + 7 + 4 + 1;
  const auto finish = [&](Tokens& to, Mark last) {
    if (last == kStop) to.push_back(kStop);
    to.push_back(kEndThink);
    put_expression(to, pool, static_cast<int8_t>(pool.size - 1), true);
    to.push_back(kEnd);
  };

  size_t start = rng.below(count);
  if (!bounded) {
    // Where does a search come through within the limit? Each first move's walk is measured once.
    std::vector<std::pair<size_t, bool>> walks(count);  // tokens, found
    Tokens scratch;
    for (size_t i = 0; i < count; ++i) {
      scratch.clear();
      pool.size = 4;
      const End end = walk_first(scratch, pool, four, firsts.list[i], target, fractions, budget);
      walks[i] = {scratch.size(), end == End::found};
    }
    std::vector<size_t> fitting;
    for (size_t s = 0; s < count; ++s) {
      size_t length = out.size() + 1 + kTail;
      for (size_t k = 0; k < count && length <= limit; ++k) {
        const auto& [tokens, found] = walks[(s + k) % count];
        length += tokens + (k > 0 ? 2 : 0);
        if (found) {
          if (length <= limit) fitting.push_back(s);
          break;
        }
      }
    }
    if (fitting.empty()) return direct();  // the tree is too wide for any search that fits
    start = fitting[rng.below(fitting.size())];
  }
  out.push_back(kThink);
  for (size_t k = 0; k < count; ++k) {
    if (k > 0) out.insert(out.end(), {kBack, kBack});
    pool.size = 4;
    const End end = walk_first(out, pool, four, firsts.list[(start + k) % count], target, fractions, budget);
    if (end == End::found) return finish(out, kYes), out;
    if (end == End::gave_up) return finish(out, kStop), out;
    if (out.size() > limit) return out;  // dropped from the corpus
  }
  PONDER_CHECK(false, "the search tree of \"{}\" does not reach the target", p.text);
  return out;
}

// Follows a search as far as it makes sense: the numbers in play are those written last.
void Game24::count_errors(const Problem& p, std::span<const int32_t> w, Diagnostics& d) const {
  const Rational target{p.target, 1};
  struct Level {
    std::vector<Rational> hand;
    bool wrong;  // it does not follow from the level above, or that one does not
  };
  std::vector<Level> levels(1);
  for (const int64_t n : p.numbers) levels[0].hand.push_back({n, 1});
  levels[0].wrong = false;

  // The value whose tokens begin at i, which moves behind it.
  const auto read = [&](size_t& i) -> std::optional<Rational> {
    if (i >= w.size() || w[i] <= kFirstNumber || w[i] > kFirstNumber + kCap) return std::nullopt;
    const int64_t number = w[i++] - kFirstNumber;
    if (i >= w.size() || w[i] <= kFirstDenominator + 1 || w[i] > kFirstDenominator + kMaxDenominator)
      return Rational{number, 1};
    // `4 _2` is not how 2 is written: it stays 4/2 and equals nothing.
    return Rational{number, w[i++] - kFirstDenominator};
  };
  const auto take = [](std::vector<Rational>& hand, Rational v) {
    const auto it = std::find(hand.begin(), hand.end(), v);
    if (it == hand.end()) return false;
    hand.erase(it);
    return true;
  };
  for (size_t i = 1; i < w.size();) {
    if (w[i] == kBack) {
      if (levels.size() > 1) levels.pop_back();
      ++i;
      continue;
    }
    if (w[i] == kEndThink) break;
    // A last move: op result check. Its operands are the two numbers in play.
    if (is_operator(w[i])) {
      size_t next = i + 1;
      const auto result = read(next);
      if (result && next < w.size() && (w[next] == kLow || w[next] == kHigh || w[next] == kYes)) {
        ++d.equations;
        ++d.leaves;
        const Level& level = levels.back();
        const bool two = level.hand.size() == 2;
        if (two) {
          const char op = operator_char(w[i]);
          const Rational x = level.hand[0], y = level.hand[1];
          d.wrong_arithmetic += apply(x, op, y) != result && apply(y, op, x) != result;
        } else {
          ++d.wrong_arithmetic;
        }
        d.copy_errors += !two || level.wrong;
        const int order = compare(*result, target);
        d.wrong_checks += w[next] != (order < 0 ? kLow : order > 0 ? kHigh : kYes);
        d.false_yes += w[next] == kYes && order != 0;
        d.missed_yes += w[next] != kYes && order == 0;
        i = next + 1;
        continue;
      }
      ++i;
      continue;
    }
    // A move: x op y = s : the numbers left.
    size_t next = i;
    const auto x = read(next);
    if (!x) {
      ++i;
      continue;
    }
    const size_t op_at = next++;
    if (op_at >= w.size() || !is_operator(w[op_at])) {
      i = op_at;
      continue;
    }
    const auto y = read(next);
    const bool equation = y && next < w.size() && w[next] == kEquals;
    if (!equation) {
      i = op_at;  // perhaps a last move
      continue;
    }
    ++next;
    const auto s = read(next);
    if (!s) {
      i = next;
      continue;
    }
    ++d.equations;
    d.wrong_arithmetic += apply(*x, operator_char(w[op_at]), *y) != s;
    // A third move in a row can only mean that a `back` is missing.
    if (levels.size() > 2) levels.pop_back();
    std::vector<Rational> left = levels.back().hand;
    bool wrong = levels.back().wrong;
    const size_t expected = left.size() - 1;
    wrong = !take(left, *x) || !take(left, *y) || wrong;
    left.push_back(*s);
    std::vector<Rational> written;
    if (next < w.size() && w[next] == kColon) {
      ++next;
      while (written.size() < expected) {
        const auto v = read(next);
        if (!v) break;
        written.push_back(*v);
      }
    }
    wrong = wrong || !std::is_permutation(left.begin(), left.end(), written.begin(), written.end());
    levels.push_back({std::move(written), wrong});
    if (levels.back().hand.empty()) levels.back().hand = std::move(left);
    i = next;
  }
}

Grade Game24::grade(const Problem& p, std::span<const int32_t> completion) const {
  Grade g;
  const Answer parts = find_answer(completion);
  if (p.numbers.size() != 4) {
    g.verdict = Grade::Verdict::unknown;
    g.mode = kModes[1];
    g.reason = "not a problem of this task";
    return g;
  }
  if (!parts.complete) {
    g.reason = "no end within the limit";
  } else if (parts.search && parts.answer.empty()) {
    g.reason = "the thinking does not lead to an answer";
    g.diagnostics.malformed = true;
  } else {
    // Other tokens than numbers, operators and brackets become characters that are no arithmetic.
    std::string text;
    for (const int32_t id : parts.answer) {
      const bool plain = (id >= kOpen && id <= kDivide) || (id > kFirstNumber && id <= kFirstNumber + kCap);
      text += plain ? tokenizer_->token(id) : "?";
      text += ' ';
    }
    g = grade_expression(text, p.numbers, p.target);
  }
  g.mode = kModes[parts.search ? 0 : 1];
  g.diagnostics.truncated = !parts.complete;
  if (parts.search) {
    Diagnostics& d = g.diagnostics;
    for (const int32_t id : parts.body) {
      d.rejected += id == kLow || id == kHigh;
      d.claimed |= id == kYes;
      d.gave_up |= id == kStop;
      d.checks += id == kLow || id == kHigh || id == kYes;
    }
    count_errors(p, parts.body, d);
  }
  return g;
}

bool game24_solvable(std::span<const int64_t> numbers, int64_t target) {
  PONDER_CHECK(numbers.size() == 4, "{} numbers", numbers.size());
  std::array<std::pair<int64_t, int64_t>, 4> v;
  for (size_t i = 0; i < 4; ++i) v[i] = {numbers[i], 1};
  return solve(v, 4, target);
}

std::vector<Problem> game24_puzzles(int numbers_to, int64_t target) {
  std::vector<Problem> out;
  std::array<int64_t, 4> n{};
  for (n[3] = 1; n[3] <= numbers_to; ++n[3]) {
    for (n[2] = n[3]; n[2] <= numbers_to; ++n[2]) {
      for (n[1] = n[2]; n[1] <= numbers_to; ++n[1]) {
        for (n[0] = n[1]; n[0] <= numbers_to; ++n[0]) {
          if (game24_solvable(n, target)) out.push_back(make_problem(n, target));
        }
      }
    }
  }
  return out;
}

}  // namespace ponder::tasks
