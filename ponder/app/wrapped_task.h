// A task that is another one but for some of its answers: derive and override these.
#pragma once

#include "ponder/tasks/task.h"

namespace ponder::app {

class WrappedTask : public tasks::Task {
 public:
  explicit WrappedTask(const tasks::Task& task) : task_(task) {}
  std::string_view name() const override { return task_.name(); }
  const tasks::TaskConfig& config() const override { return task_.config(); }
  const text::Tokenizer& tokenizer() const override { return task_.tokenizer(); }
  std::span<const std::string_view> modes() const override { return task_.modes(); }
  int max_text_tokens() const override { return task_.max_text_tokens(); }
  int64_t problem_count(tasks::Split split) const override { return task_.problem_count(split); }
  tasks::Problem problem(tasks::Split split, int64_t index) const override { return task_.problem(split, index); }
  tasks::ParsedLine parse_line(std::string_view line) const override { return task_.parse_line(line); }
  std::string admit(tasks::Problem& problem) const override { return task_.admit(problem); }
  std::vector<int32_t> prompt(const tasks::Problem& problem) const override { return task_.prompt(problem); }
  tasks::Grade grade(const tasks::Problem& problem, std::span<const int32_t> completion) const override {
    return task_.grade(problem, completion);
  }
  std::vector<int32_t> trace(const tasks::Problem& problem, CounterRng& rng) const override {
    return task_.trace(problem, rng);
  }

 protected:
  const tasks::Task& task_;
};

}  // namespace ponder::app
