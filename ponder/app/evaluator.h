// Evaluations of a run: the same problems and seeds for every checkpoint, results as metrics, items and lm-eval's files.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ponder/app/stage.h"
#include "ponder/base/run_log.h"
#include "ponder/engine/engine.h"
#include "ponder/tasks/evaluate.h"

namespace ponder::app {

// An engine whose pages hold `answers` sequences at once, each of a prompt of the task and `new_tokens`.
std::unique_ptr<engine::Engine> make_engine(const model::Model& model, const kernels::Backend& backend,
                                            const tasks::Task& task, int64_t answers, int64_t new_tokens,
                                            bool draft = false);

struct Evaluation {
  tasks::Metrics metrics;  // without prefix: accuracy, accuracy_stderr, greedy/accuracy, pass@8, mode/search/share, ...
  double accuracy = 0, standard_error = 0;
  std::string line;  // for people
};

struct EvalOptions {
  bool with_pass = true;  // also pass@k over pass_problems
  // A stop signal ends it with Error (resumable), and nothing of it is written; otherwise it is finished first.
  bool may_stop = false;
  // Of a run: every answer becomes a line of eval/samples_*.jsonl, the totals a results file.
  RunLog* log = nullptr;
  const RunDir* dir = nullptr;
  int64_t step = 0;  // the run's
  std::string stage;
};

class Evaluator {
 public:
  Evaluator(const StageRecipe& recipe, const tasks::Task& task);

  Evaluation run(engine::Engine& engine, const EvalOptions& options) const;

  bool empty() const { return problems_.empty(); }
  int64_t problem_count() const { return static_cast<int64_t>(problems_.size()); }
  // At most so many answers are wanted at once.
  int64_t most_answers() const;
  const std::string& tag() const { return tag_; }  // "eval/countdown"

 private:
  struct Kind;
  void write_items(const tasks::EvalResult& result, const char* kind, RunLog& log, const std::string& stamp,
                   int64_t step, const std::string& stage) const;

  const StageRecipe& recipe_;
  const tasks::Task& task_;
  std::string tag_;
  std::vector<tasks::Problem> problems_, pass_problems_;
};

// The evaluation of a stage at the run's step `step`, as its loop wants it: metrics with their prefix, BEST by accuracy.
EvalOutcome evaluate_stage(const Run& run, const Evaluator& evaluator, engine::Engine& engine, int64_t step,
                           bool with_pass, bool may_stop = false);

// lm-eval's file of results: results.{task}."metric,none" and "metric_stderr,none", configs, versions, n-shot, n-samples.
std::string lm_eval_json(const std::string& task, const tasks::Metrics& metrics, int64_t samples);

}  // namespace ponder::app
