#include "ponder/tasks/puzzle/marks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "ponder/base/error.h"

namespace ponder::tasks::puzzle {

Answer find_answer(std::span<const int32_t> completion) {
  Answer a;
  const auto end = std::find(completion.begin(), completion.end(), int32_t{kEnd});
  a.complete = end != completion.end();
  a.body = completion.first(static_cast<size_t>(end - completion.begin()));
  a.search = !a.body.empty() && a.body.front() == kThink;
  if (!a.complete) return a;
  const auto close = std::find(a.body.rbegin(), a.body.rend(), int32_t{kEndThink});
  if (close != a.body.rend()) {
    a.answer = a.body.last(static_cast<size_t>(close - a.body.rbegin()));
  } else if (!a.search) {
    a.answer = a.body;
  }
  return a;
}

void check_mixture(const TaskConfig& c) {
  const auto check = [&](const char* field, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
      throw_error(Exit::data, "task {}: {} = {}: {} to {} are possible", c.name, field, value, low, high);
    }
  };
  check("held_out_share", c.held_out_share, 0, 0.9);
  check("direct_share", c.direct_share, 0, 1);
  check("giveup_share", c.giveup_share, 0, 1);
  check("mean_leaves", c.mean_leaves, 1, 1e6);
}

int64_t draw_budget(const TaskConfig& config, CounterRng& rng) {
  if (rng.uniform() >= config.giveup_share) return INT64_MAX;
  int64_t budget = 1;
  while (rng.uniform() > 1.0 / config.mean_leaves) ++budget;
  return budget;
}

std::string parse_numbers(std::string_view line, std::vector<int64_t>& numbers, int64_t& target) {
  constexpr size_t kLongest = 200, kMost = 16;
  if (line.size() > kLongest)
    return fmt::format("the line has {} characters, at most {} make sense here", line.size(), kLongest);
  numbers.clear();
  bool arrow = false, have_target = false;
  for (size_t i = 0; i < line.size();) {
    const char c = line[i];
    if (c == ' ' || c == '\t' || c == ',' || c == '\r' || c == '\n') {
      ++i;
    } else if (line.substr(i, 2) == "->" || c == '=') {
      if (arrow) return "there is more than one ->";
      arrow = true;
      i += c == '=' ? 1 : 2;
    } else if (c >= '0' && c <= '9') {
      int64_t value = 0;
      const auto [end, error] = std::from_chars(line.data() + i, line.data() + line.size(), value);
      if (error != std::errc()) return "a number is too large";
      i = static_cast<size_t>(end - line.data());
      if (!arrow) {
        if (numbers.size() == kMost) return fmt::format("there are more than {} numbers", kMost);
        numbers.push_back(value);
      } else if (have_target) {
        return "there is more than one target after the ->";
      } else {
        target = value;
        have_target = true;
      }
    } else {
      // The character is quoted only where it is one byte of plain text.
      return c > ' ' && c < 0x7f ? fmt::format("'{}' is neither a whole number nor ->", c)
                                 : std::string("there is a character that is neither a whole number nor ->");
    }
  }
  if (numbers.empty() && !have_target) return "the line is empty";
  if (!arrow) return "there is no -> before the target";
  if (!have_target) return "there is no target after the ->";
  return "";
}

std::string numbers_text(const Problem& problem) {
  return fmt::format("{} -> {}", fmt::join(problem.numbers, " "), problem.target);
}

}  // namespace ponder::tasks::puzzle
