// What a set of graded answers adds up to: the same numbers for an evaluation and for the rollouts of a training step.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ponder/tasks/task.h"

namespace ponder::tasks {

// One answer: what was sampled and what it was worth.
struct Sample {
  std::vector<int32_t> completion;
  Grade grade;
};

// Name and value, in a fixed order; names are the metric tags of docs/formats.md.
using Metrics = std::vector<std::pair<std::string, double>>;

// Sums over answers. Add every answer, then read.
class Summary {
 public:
  explicit Summary(std::span<const std::string_view> modes);
  // `tokens`: sampled tokens, the end token included.
  void add(const Grade& grade, int64_t tokens);

  int64_t answers() const { return answers_; }
  double accuracy() const { return share(right_); }
  double mean_length() const { return share(tokens_); }
  double mode_share(std::string_view mode) const;
  double mode_success(std::string_view mode) const;  // right among the answers of this mode; 0 if there are none
  const Diagnostics& diagnostics() const { return sums_; }
  double rejected_leaves() const { return share(sums_.rejected); }  // per answer
  double gives_up() const { return share(gave_up_); }               // share of answers
  double truncated() const { return share(truncated_); }
  double wrong_arithmetic() const;  // of equations
  double copy_errors() const;       // of leaves
  double wrong_checks() const;      // of leaves

  // accuracy-free part of what is reported, without a prefix: grade/*, mode/*, completions/*, search/*, errors/*.
  Metrics metrics() const;

 private:
  double share(int64_t n) const { return answers_ ? static_cast<double>(n) / static_cast<double>(answers_) : 0.0; }
  struct Mode {
    std::string_view name;
    int64_t answers = 0, right = 0;
  };
  const Mode& mode(std::string_view name) const;

  std::vector<Mode> modes_;
  int64_t answers_ = 0, right_ = 0, wrong_ = 0, unknown_ = 0, tokens_ = 0, shortest_ = 0, longest_ = 0;
  int64_t gave_up_ = 0, truncated_ = 0, malformed_ = 0, claimed_ = 0;
  Diagnostics sums_;  // its flags stay unused: they are counted above
};

struct Prompt {
  std::vector<int32_t> ids;
  uint64_t index;  // of the answer in this evaluation: what the sampler's random numbers are keyed by
};
// One completion per prompt, in order.
using Generate = std::function<std::vector<std::vector<int32_t>>(std::span<const Prompt>)>;

struct EvalItem {
  Problem problem;
  std::vector<Sample> samples;
};

struct EvalResult {
  std::vector<EvalItem> items;
  Summary summary;
  double accuracy = 0;        // mean over problems of the mean over samples: pass@1, avg@n
  double standard_error = 0;  // over problems, as lm-eval: sqrt(variance (n - 1) of their means / n); NaN for one
  int samples = 0;            // per problem

  // accuracy, accuracy_stderr, pass@k for k = 1, 2, 4, 8 .. samples, cons@n, then the summary's.
  Metrics metrics() const;
};

// `samples` answers to each problem. Generate is called once for each `batch` prompts (0: once for all).
EvalResult evaluate(const Task& task, std::span<const Problem> problems, int samples, const Generate& generate,
                    size_t batch = 0);

// Probability that at least one of k of the n answers drawn is right, c of the n being right: unbiased (Chen et al.
// 2021, eq. 1). 1 if fewer than k are wrong. k <= n.
double pass_at_k(int n, int c, int k);
// Whether the most frequent answer is right: grouped by Grade::answer, ties to the first seen, "" has no vote.
bool majority_right(std::span<const Sample> samples);

}  // namespace ponder::tasks
