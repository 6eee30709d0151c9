#include "ponder/tasks/puzzle/expression.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <numeric>

namespace ponder::tasks::puzzle {
namespace {

constexpr size_t kMaxBytes = 4096, kMaxDepth = 64, kMaxNumbers = 64;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// + - * / and how else people write them; 0 bytes: none stands here.
struct Operator {
  char op = 0;
  size_t bytes = 0;
};
Operator operator_at(std::string_view s) {
  static constexpr std::pair<std::string_view, char> kSigns[] = {
      {"+", '+'}, {"-", '-'}, {"*", '*'}, {"/", '/'}, {"\xC3\x97", '*'}, {"\xC3\xB7", '/'}, {"\xE2\x88\x92", '-'}};
  for (const auto& [sign, op] : kSigns) {
    if (s.starts_with(sign)) return {op, sign.size()};
  }
  return {};
}

int rank(char op) { return op == '(' ? 0 : op == '+' || op == '-' ? 1 : 2; }

}  // namespace

std::optional<Rational> apply(Rational x, char op, Rational y) {
  Rational r;
  bool overflow = false;
  if (op == '*') {
    overflow = __builtin_mul_overflow(x.p, y.p, &r.p) || __builtin_mul_overflow(x.q, y.q, &r.q);
  } else if (op == '/') {
    if (y.p == 0) return std::nullopt;
    overflow = __builtin_mul_overflow(x.p, y.q, &r.p) || __builtin_mul_overflow(x.q, y.p, &r.q);
  } else {
    int64_t a = 0, b = 0;
    overflow = __builtin_mul_overflow(x.p, y.q, &a) || __builtin_mul_overflow(y.p, x.q, &b) ||
               __builtin_mul_overflow(x.q, y.q, &r.q) ||
               (op == '+' ? __builtin_add_overflow(a, b, &r.p) : __builtin_sub_overflow(a, b, &r.p));
  }
  // The most negative integer has no absolute value: it counts as too large.
  if (overflow || r.p == INT64_MIN || r.q == INT64_MIN) return std::nullopt;
  if (r.q < 0) r = {-r.p, -r.q};
  const int64_t common = std::gcd(r.p, r.q);
  return Rational{r.p / common, r.q / common};
}

int compare(Rational x, Rational y) {
  const __int128 a = static_cast<__int128>(x.p) * y.q, b = static_cast<__int128>(y.p) * x.q;
  return (a > b) - (a < b);
}

std::string to_string(Rational x) { return x.q == 1 ? fmt::format("{}", x.p) : fmt::format("{}/{}", x.p, x.q); }

// Two stacks (Dijkstra's shunting yard). After an error in a value the text is still read to its end, so that
// well_formed and numbers are complete.
Expression evaluate_expression(std::string_view text) {
  Expression out;
  std::vector<std::optional<Rational>> values;
  std::vector<char> operators;
  size_t depth = 0;
  const auto fail = [&](size_t at, std::string what) {
    out.value.reset();
    out.error = std::move(what);
    out.position = at;
    return out;
  };
  const auto reduce = [&](size_t at) {
    const auto y = values.back();
    values.pop_back();
    auto& x = values.back();
    if (x && y) {
      const bool by_zero = operators.back() == '/' && y->p == 0;
      x = apply(*x, operators.back(), *y);
      if (!x && out.error.empty()) {
        out.error = by_zero ? "division by zero" : "a value is too large";
        out.position = at;
      }
    } else {
      x.reset();
    }
    operators.pop_back();
  };
  if (text.size() > kMaxBytes) return fail(kMaxBytes, fmt::format("longer than {} bytes", kMaxBytes));
  bool want_value = true;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (is_space(c)) {
      ++i;
    } else if (c >= '0' && c <= '9') {
      if (!want_value) return fail(i, "a number where an operator should stand");
      int64_t n = 0;
      const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), n);
      if (error != std::errc()) return fail(i, "a number is too large");
      if (out.numbers.size() == kMaxNumbers) return fail(i, fmt::format("more than {} numbers", kMaxNumbers));
      out.numbers.push_back(n);
      values.push_back(Rational{n, 1});
      want_value = false;
      i = static_cast<size_t>(end - text.data());
    } else if (c == '(') {
      if (!want_value) return fail(i, "a bracket where an operator should stand");
      if (++depth > kMaxDepth) return fail(i, fmt::format("nested more than {} deep", kMaxDepth));
      operators.push_back('(');
      ++i;
    } else if (c == ')') {
      if (want_value) return fail(i, "a closing bracket where a number should stand");
      if (depth == 0) return fail(i, "a closing bracket that nothing opened");
      while (operators.back() != '(') reduce(i);
      operators.pop_back();
      --depth;
      ++i;
    } else if (const Operator o = operator_at(text.substr(i)); o.bytes > 0) {
      if (want_value) return fail(i, "an operator where a number should stand");
      while (!operators.empty() && rank(operators.back()) >= rank(o.op)) reduce(i);
      operators.push_back(o.op);
      want_value = true;
      i += o.bytes;
    } else {
      return fail(i, "a character that is no part of arithmetic");
    }
  }
  if (want_value)
    return fail(text.size(), out.numbers.empty() ? "there is no expression" : "a number is missing at the end");
  if (depth > 0) return fail(text.size(), "a bracket is not closed");
  while (!operators.empty()) reduce(text.size());
  out.well_formed = true;
  out.value = values.back();
  return out;
}

Grade grade_expression(std::string_view text, std::span<const int64_t> numbers, int64_t target) {
  Grade g;
  const size_t equals = text.find('=');
  const Expression e = evaluate_expression(text.substr(0, equals));
  if (!e.well_formed) {
    g.diagnostics.malformed = true;
    g.reason = fmt::format("not an expression: {} (at {})", e.error, e.position);
    return g;
  }
  if (!e.value) {
    g.reason = e.error;
    return g;
  }
  std::vector<int64_t> used = e.numbers, given(numbers.begin(), numbers.end());
  std::sort(used.begin(), used.end());
  std::sort(given.begin(), given.end());
  const std::string shown = to_string(*e.value);
  if (used != given) {
    g.reason = fmt::format("uses {}, not the numbers given", fmt::join(used, " "));
    g.answer = shown + " from other numbers";
    return g;
  }
  g.answer = shown;
  if (*e.value != Rational{target, 1}) {
    g.reason = fmt::format("makes {}, not {}", shown, target);
  } else if (equals != std::string_view::npos && evaluate_expression(text.substr(equals + 1)).value != e.value) {
    g.reason = "what stands after the = is not the target";
  } else {
    g.verdict = Grade::Verdict::right;
    g.reason = "right";
  }
  return g;
}

}  // namespace ponder::tasks::puzzle
