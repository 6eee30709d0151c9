// What all training has in common: the loop over steps with its rows of metrics, evaluations, samples, guards,
// checkpoints, and the way back from them. pretrain.cc and rl.cc say what a step is.
//
// Steps of a run are counted through its stages: stage i begins at `offset`, its step 0 (before any update) being a step
// of the run of its own; so every row, sample and checkpoint of a run has one number.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ponder/app/machine.h"
#include "ponder/app/memory_plan.h"
#include "ponder/app/recipe.h"
#include "ponder/base/run_log.h"
#include "ponder/tasks/task.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {

// Sets a metric, once.
void put(std::vector<Metric>& metrics, std::string_view name, double value);
double get(const std::vector<Metric>& metrics, std::string_view name);  // NaN: not there

struct StepOutcome {
  std::vector<Metric> metrics;
  int64_t tokens = 0;
  double flops = 0;
  bool skipped = false;  // something was not finite, nothing was changed
  std::string offender;
};

struct EvalOutcome {
  std::vector<Metric> metrics;
  std::string line;        // for people; empty: nothing was evaluated
  std::string score_name;  // what BEST goes by
  double score = 0;        // higher is better
};

class Training {
 public:
  virtual ~Training() = default;
  virtual int64_t steps() const = 0;
  virtual StepOutcome step(int64_t step) = 0;
  // Whether a checkpoint after so many steps holds all that the next step needs.
  virtual bool can_save(int64_t) const { return true; }
  // `step`: of the run. `edge`: the first or the last evaluation of the stage.
  virtual EvalOutcome evaluate(int64_t step, bool edge) = 0;
  virtual void write_samples(int64_t /*step*/) {}
  virtual train::AdamW& optimizer() = 0;
  virtual model::Model* reference() { return nullptr; }
  // The metrics of a row that people see: heading and tag.
  virtual std::vector<std::pair<std::string, std::string>> columns() const = 0;
  // Goes through the largest step once, without effect, so that memory is what it will be; adds what it knows.
  virtual void plan_memory(MemoryPlan& plan) = 0;
};

// What the stages of a run share and hand on.
struct Run {
  Machine& machine;
  Plan& plan;
  RunDir dir;
  std::unique_ptr<RunLog> log;
  std::string command_line;  // what resumes it
  double peak_flops = 0;     // of this machine

  std::unique_ptr<tasks::Task> task;
  std::unique_ptr<model::Model> model;
  size_t stage = 0;                        // index
  int64_t offset = 0;                      // step of the run at which the stage begins,
  int64_t next_offset = 1;                 // and the one after it
  std::map<std::string, double> counters;  // tokens, flops, seconds, best, ...: part of every checkpoint
  std::optional<std::string> checkpoint;   // to go on from, for the stage in which it was written
  train::CheckpointState resumed;

  StageRecipe& recipe() { return plan.stage[stage]; }
};

// Runs the stage to its end (true), or to a stop signal, with a checkpoint (false).
bool run_stage(Run& run, Training& training);

// One stage each: makes task, model and training, and runs it.
bool pretrain_stage(Run& run);
bool rl_stage(Run& run);
bool eval_stage(Run& run);

// The stage's model: what the stage before left, `[model] path`, the checkpoint to resume from, or a new one.
void prepare_model(Run& run, int vocab_size);
// Makes the task of the stage's recipe (or the one that came with [model] path), or keeps that of the stage before if the
// recipe says nothing else. The same after a resume as without.
void prepare_task(Run& run);

// A recipe from start, or from where it stopped, to end: what pipeline, pretrain, rl and eval do. Returns the exit code.
class Arguments;
int run_recipe(const Arguments& args, const std::string& type);

}  // namespace ponder::app
