#include "ponder/app/guards.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ponder/app/stage.h"

namespace ponder::app {
namespace {

constexpr size_t kWindow = 20;  // steps that a median or a comparison looks back

}  // namespace

void Guards::raise(const char* name, bool sign, std::string text, std::vector<std::string>& out) {
  if (!sign) {
    raised_.erase(name);
  } else if (raised_.insert(name).second) {
    out.push_back(std::move(text));
  }
}

std::vector<std::string> Guards::step(const std::vector<Metric>& row) {
  std::vector<std::string> out;
  const double norm = get(row, "grad_norm");
  if (!std::isnan(norm)) {
    if (grad_norms_.size() == kWindow) {
      std::vector<double> sorted(grad_norms_.begin(), grad_norms_.end());
      std::nth_element(sorted.begin(), sorted.begin() + kWindow / 2, sorted.end());
      const double median = sorted[kWindow / 2];
      raise("grad_norm", median > 0 && norm > 10 * median,
            fmt::format("grad_norm {:.3g} is over ten times its median {:.3g} of the last {} rows", norm, median,
                        kWindow),
            out);
      grad_norms_.pop_front();
    }
    grad_norms_.push_back(norm);
  }
  const double uniform = get(row, "frac_reward_zero_std");
  if (std::isnan(uniform)) return out;  // the rest is about reinforcement learning

  uniform_steps_ = uniform > 0.9 ? uniform_steps_ + 1 : 0;
  raise(
      "uniform", uniform_steps_ >= 10,
      fmt::format(
          "in {:.0f}% of the groups all answers have one reward, for {} steps: the problems are too {} (reward {:.2f})",
          100 * uniform, uniform_steps_, get(row, "reward") < 0.5 ? "hard" : "easy", get(row, "reward")),
      out);
  const double clipped = get(row, "completions/clipped_ratio");
  raise("clipped", clipped > 0.5,
        fmt::format(
            "{:.0f}% of the answers reach max_completion_length: the limit is too low, or the model goes in circles",
            100 * clipped),
        out);
  const double length = get(row, "completions/mean_length");
  lengths_.push_back(length);
  if (lengths_.size() > kWindow) lengths_.pop_front();
  raise("length", length > 3 * lengths_.front(),
        fmt::format("the mean length went from {:.0f} to {:.0f} within {} steps", lengths_.front(), length,
                    lengths_.size()),
        out);
  const double entropy = get(row, "entropy");
  if (first_entropy_ == 0) first_entropy_ = entropy;
  raise("entropy", entropy < 0.1 * first_entropy_,
        fmt::format("entropy {:.3g} is under a tenth of the first step's {:.3g}: little is left to explore", entropy,
                    first_entropy_),
        out);
  raise("unknown", get(row, "grade/unknown") > 0.05,
        fmt::format("{:.0f}% of the answers could not be graded: look at the data or the verifier",
                    100 * get(row, "grade/unknown")),
        out);
  reward_sum_ += get(row, "reward");
  ++reward_steps_;
  return out;
}

std::vector<std::string> Guards::evaluation(double held_out_accuracy) {
  std::vector<std::string> out;
  if (reward_steps_ == 0) return out;
  evaluations_.emplace_back(reward_sum_ / reward_steps_, held_out_accuracy);
  reward_sum_ = 0, reward_steps_ = 0;
  const size_t n = evaluations_.size();
  bool apart = n >= 4;
  for (size_t i = n - 3; apart && i < n; ++i)
    apart = evaluations_[i].first > evaluations_[i - 1].first && evaluations_[i].second < evaluations_[i - 1].second;
  raise("apart", apart,
        "the training reward has risen and the held-out accuracy fallen over three evaluations: memorised problems, or "
        "a reward "
        "that can be had without solving them; read the best-rewarded samples",
        out);
  return out;
}

}  // namespace ponder::app
