#include "ponder/rl/reward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "ponder/base/error.h"
#include "ponder/base/rng.h"
#include "ponder/tasks/puzzle/expression.h"

namespace ponder::rl {
namespace {

constexpr double kNull = std::numeric_limits<double>::quiet_NaN();
constexpr std::string_view kThink = "<think>", kEndThink = "</think>", kAnswer = "<answer>", kEndAnswer = "</answer>";

int count(std::string_view text, std::string_view part) {
  int n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == text.npos; }

// What stands before and after the one occurrence of `mark`.
struct Cut {
  std::string_view before, after;
};
Cut cut(std::string_view text, std::string_view mark) {
  const size_t at = text.find(mark);
  return {text.substr(0, at), text.substr(at + mark.size())};
}

// "<think>" something "</think>" rest, each tag once; the rest, or nothing where the text is not of that form.
bool split_thinking(std::string_view text, std::string_view& rest) {
  if (!text.starts_with(kThink) || count(text, kThink) != 1 || count(text, kEndThink) != 1) return false;
  const Cut parts = cut(text.substr(kThink.size()), kEndThink);
  rest = parts.after;
  return !is_blank(parts.before);
}

// The part of an answer that states it: after the last </think>, in the last <answer>..</answer> if there is one.
// Thinking that never ends states nothing.
std::string_view stated_answer(std::string_view text) {
  if (const size_t at = text.rfind(kEndThink); at != text.npos) {
    text.remove_prefix(at + kEndThink.size());
  } else if (text.find(kThink) != text.npos) {
    return {};
  }
  if (const size_t at = text.rfind(kAnswer); at != text.npos) {
    text.remove_prefix(at + kAnswer.size());
    text = text.substr(0, text.find(kEndAnswer));
  }
  return text;
}

}  // namespace

// R1's format: thinking, then an answer, both not empty, and no other tag.
double format_reward(std::string_view text) {
  std::string_view rest;
  const bool tagged = count(text, kAnswer) || count(text, kEndAnswer);
  return split_thinking(text, rest) && !is_blank(rest) && !tagged ? 1 : 0;
}

// R1-Zero's format (R1, table 1): <think>..</think> <answer>..</answer>, nothing else around them.
double format_r1_zero_reward(std::string_view text) {
  std::string_view rest;
  if (!split_thinking(text, rest) || count(text, kAnswer) != 1 || count(text, kEndAnswer) != 1) return 0;
  const Cut opened = cut(rest, kAnswer);
  if (opened.before.size() == rest.size() || !is_blank(opened.before)) return 0;
  const Cut closed = cut(opened.after, kEndAnswer);
  return closed.before.size() < opened.after.size() && !is_blank(closed.before) && is_blank(closed.after) ? 1 : 0;
}

// A quarter for each tag that stands on its line exactly once.
double tag_count_reward(std::string_view text) {
  double sum = 0;
  for (std::string_view tag : {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"})
    sum += count(text, tag) == 1 ? 0.25 : 0;
  return sum;
}

// DAPO (Yu et al. 2025), (13): 0 up to max - cache, falling to -1 at max, -1 beyond.
double soft_overlong_reward(int64_t length, int64_t max_length, int64_t cache) {
  const int64_t free = max_length - cache;
  if (length <= free) return 0;
  return length <= max_length ? static_cast<double>(free - length) / static_cast<double>(cache) : -1;
}

// Yeo et al. 2025, (1): lo + (hi - lo) (1 + cos(pi min(L / max, 1))) / 2; among right answers the short one gets hi,
// among wrong ones it costs most.
double cosine_reward(bool right, int64_t length, const RewardConfig& c) {
  const double x = std::min(static_cast<double>(length) / static_cast<double>(c.max_length), 1.0);
  const double at_end = right ? c.min_value_correct : c.max_value_wrong;
  const double at_start = right ? c.max_value_correct : c.min_value_wrong;
  return at_end + (at_start - at_end) * (1 + std::cos(std::numbers::pi * x)) / 2;
}

// Yeo et al. 2025, appendix: max_penalty (1 - distinct n-grams / n-grams); 0 for answers shorter than n.
double repetition_reward(std::span<const int32_t> tokens, int64_t n, double max_penalty) {
  const int64_t grams = static_cast<int64_t>(tokens.size()) - n + 1;
  if (grams < 1) return 0;
  std::vector<int64_t> place(static_cast<size_t>(grams));
  std::iota(place.begin(), place.end(), 0);
  const auto gram = [&](int64_t p) { return tokens.subspan(static_cast<size_t>(p), static_cast<size_t>(n)); };
  std::sort(place.begin(), place.end(),
            [&](int64_t a, int64_t b) { return std::ranges::lexicographical_compare(gram(a), gram(b)); });
  int64_t distinct = 1;
  for (size_t i = 1; i < place.size(); ++i) distinct += !std::ranges::equal(gram(place[i - 1]), gram(place[i]));
  return max_penalty * (1 - static_cast<double>(distinct) / static_cast<double>(grams));
}

// Kimi k1.5, section 2.3.3: lambda = 0.5 - (L - Lmin) / (Lmax - Lmin); right: lambda, wrong: min(0, lambda).
std::vector<double> length_rewards(std::span<const uint8_t> right, std::span<const int64_t> lengths) {
  std::vector<double> out(lengths.size(), 0);
  if (lengths.empty()) return out;
  const auto [low, high] = std::ranges::minmax(lengths);
  if (low == high) return out;
  for (size_t i = 0; i < out.size(); ++i) {
    const double lambda = 0.5 - static_cast<double>(lengths[i] - low) / static_cast<double>(high - low);
    out[i] = right[i] ? lambda : std::min(0.0, lambda);
  }
  return out;
}

double countdown_reward(std::string_view text, const tasks::Problem& problem, double well_formed) {
  const tasks::Grade grade = tasks::puzzle::grade_expression(stated_answer(text), problem.numbers, problem.target);
  if (grade.right()) return 1;
  return grade.diagnostics.malformed ? 0 : well_formed;
}

double random_reward(uint64_t seed, uint64_t index) {
  return CounterRng(seed, Stream::reward, index).next_u32() & 1 ? 1 : 0;
}

std::vector<double> reward_values(const RewardConfig& config, std::span<const RewardInput> group,
                                  const RewardLimits& limits) {
  using Verdict = tasks::Grade::Verdict;
  RewardConfig c = config;
  if (c.max_length == 0) c.max_length = limits.max_completion_length;

  if (c.name == "length") {
    std::vector<uint8_t> right;
    std::vector<int64_t> lengths;
    for (const RewardInput& a : group) {
      right.push_back(a.verdict == Verdict::right);
      lengths.push_back(static_cast<int64_t>(a.tokens.size()));
    }
    return length_rewards(right, lengths);
  }

  const auto value = [&](const RewardInput& a) {
    const int64_t length = static_cast<int64_t>(a.tokens.size());
    const bool right = a.verdict == Verdict::right, known = a.verdict != Verdict::unknown;
    if (c.name == "accuracy") return !known ? kNull : right ? 1.0 : 0.0;
    if (c.name == "cosine") return known ? cosine_reward(right, length, c) : kNull;
    if (c.name == "countdown")
      return !a.problem || a.problem->numbers.empty() ? kNull
             : a.truncated                            ? 0.0  // what does not end states nothing
                                                      : countdown_reward(a.text, *a.problem, c.well_formed);
    if (c.name == "format") return c.frame == "r1_zero" ? format_r1_zero_reward(a.text) : format_reward(a.text);
    if (c.name == "tag_count") return tag_count_reward(a.text);
    if (c.name == "repetition_penalty") return repetition_reward(a.tokens, c.n_grams, c.max_penalty);
    if (c.name == "soft_overlong")
      return c.penalty_factor * soft_overlong_reward(length, c.max_length, c.soft_punish_cache);
    if (c.name == "random") return random_reward(limits.seed, a.index);
    throw_error(Exit::data, "[[reward]] name = \"{}\" is not a reward of this version", c.name);
  };
  std::vector<double> out;
  for (const RewardInput& a : group) out.push_back(value(a));
  return out;
}

}  // namespace ponder::rl
