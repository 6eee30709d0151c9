// Reinforcement learning with verifiable rewards (GRPO).
#include <algorithm>

#include "ponder/app/commands.h"
#include "ponder/app/evaluator.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/app/wrapped_task.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/rl/step.h"
#include "ponder/tasks/jsonl.h"

namespace ponder::app {
namespace {

// A task whose training problems come from the user's file; all else is the task's own.
class WithPuzzles final : public WrappedTask {
 public:
  WithPuzzles(const tasks::Task& task, std::vector<tasks::Problem> problems)
      : WrappedTask(task), problems_(std::move(problems)) {}
  int64_t problem_count(tasks::Split split) const override {
    return split == tasks::Split::train ? static_cast<int64_t>(problems_.size()) : task_.problem_count(split);
  }
  tasks::Problem problem(tasks::Split split, int64_t index) const override {
    return split == tasks::Split::train ? problems_[static_cast<size_t>(index)] : task_.problem(split, index);
  }

 private:
  std::vector<tasks::Problem> problems_;
};

class Reinforcement final : public Training {
 public:
  explicit Reinforcement(Run& run) : run_(run), recipe_(run.recipe()), task_(run.task.get()) {
    if (!recipe_.rl.puzzles.empty()) {
      auto problems = tasks::read_puzzles(recipe_.rl.puzzles, *run.task);
      if (problems.empty()) throw_error(Exit::data, "{}: no problems in this file", recipe_.rl.puzzles);
      log_info("{}: {} problems from {}", recipe_.name, format_grouped(static_cast<int64_t>(problems.size())),
               recipe_.rl.puzzles);
      puzzles_ = std::make_unique<WithPuzzles>(*run.task, std::move(problems));
      task_ = puzzles_.get();
    }
    const rl::GrpoConfig& c = recipe_.rl.grpo;
    if (c.top_p < 1 || c.top_k > 0 || c.min_p.value_or(0) > 0 || c.repetition_penalty != 1)
      log_warn(
          "{}: top_p, top_k, min_p or repetition_penalty change the distribution that answers are sampled from, but "
          "not "
          "the one in the loss: what is learned is then not quite what was sampled",
          recipe_.name);
    if (recipe_.eval.problems > 0) evaluator_ = std::make_unique<Evaluator>(recipe_, *run.task);
    trainer_ = std::make_unique<train::Trainer>(*run.model, *run.machine.backend, recipe_.optim, steps());
    answers_ = c.num_generations * c.num_prompts_per_step * c.steps_per_generation;
    engine_ = make_engine(*run.model, *run.machine.backend, *run.task,
                          std::max(answers_, evaluator_ ? evaluator_->most_answers() : 0), c.max_completion_length);
    grpo_ = std::make_unique<rl::Grpo>(*trainer_, *engine_, *task_,
                                       rl::GrpoSetup{.grpo = c,
                                                     .train = recipe_.optim,
                                                     .rewards = recipe_.reward,
                                                     .fixed_problems = recipe_.rl.fixed_problems,
                                                     .seed = recipe_.run.seed,
                                                     .mismatch_path = run.dir.file("rollout-mismatch.txt")},
                                       *run.machine.backend);
  }

  int64_t steps() const override { return recipe_.run.max_steps; }

  StepOutcome step(int64_t step) override {
    report_ = grpo_->step(step);
    StepOutcome out{
        .metrics = report_.metrics,
        // Once for all the updates that learn from them.
        .tokens = grpo_->rollout_boundary(step) ? static_cast<int64_t>(get(report_.metrics, "num_tokens")) : 0,
        .flops = report_.flops,
        .skipped = report_.skipped,
        .offender = report_.offender};
    return out;
  }

  bool can_save(int64_t step) const override { return grpo_->rollout_boundary(step); }

  EvalOutcome evaluate(int64_t step, bool edge) override {
    return evaluator_ ? evaluate_stage(run_, *evaluator_, *engine_, step, edge) : EvalOutcome();
  }

  void write_samples(int64_t step) override {
    const rl::GrpoConfig& c = recipe_.rl.grpo;
    if (!report_.rollout) return;
    const text::Tokenizer& tokenizer = task_->tokenizer();
    const bool per_answer =
        report_.advantage.size() * std::max<size_t>(1, recipe_.reward.size()) == report_.reward.size();
    const size_t rewards = std::max<size_t>(1, recipe_.reward.size());
    size_t index = 0;
    int64_t shown = 0;
    for (const rl::Group& group : report_.rollout->groups) {
      for (size_t j = 0; j < group.answers.size(); ++j, ++index) {
        if (j >= 2 || shown >= c.num_completions_to_print) continue;  // two answers of a group: more groups are seen
        const rl::RolloutAnswer& a = group.answers[j];
        const std::string completion = tokenizer.decode(a.completion());
        std::string json;
        JsonWriter w(json);
        w.begin_object()
            .member("problem", group.problem.text)
            .member("prompt", tokenizer.decode(std::span(a.ids).first(static_cast<size_t>(a.prompt_length))));
        w.member("completion", completion).member("tokens", a.logp.size()).member("right", a.grade.right());
        w.member("mode", a.grade.mode)
            .member("reason", a.grade.reason)
            .member("truncated", a.truncated)
            .key("rewards")
            .begin_array();
        for (size_t f = 0; f < rewards; ++f) w.value(report_.reward[index * rewards + f]);
        w.end_array();
        if (per_answer) w.member("advantage", report_.advantage[index]);
        w.end_object();
        run_.log->sample(step, json);
        ++shown;
        if (!c.log_completions) continue;
        constexpr size_t kTail = 100;
        log_info("    {:<16} {}{}  [{}, reward {:g}{}]", group.problem.text, completion.size() > kTail ? "... " : "",
                 completion.size() > kTail ? completion.substr(completion.size() - kTail) : completion, a.grade.reason,
                 report_.reward[index * rewards],
                 per_answer ? fmt::format(", advantage {:+.2f}", report_.advantage[index]) : "");
      }
    }
  }

  train::AdamW& optimizer() override { return trainer_->optimizer(); }
  model::Model* reference() override { return grpo_->reference(); }

  std::vector<std::pair<std::string, std::string>> columns() const override {
    return {{"reward", "reward"},
            {"length", "completions/mean_length"},
            {"search", "mode/search/share"},
            {"rejected", "search/rejected_leaves"},
            {"signal", "rollout/share_informative_groups"},
            {"entropy", "entropy"},
            {"kl", "kl"},
            {"|g|", "grad_norm"},
            {"lr", "learning_rate"},
            {"s", "step_time"},
            {"of peak", "mfu"}};
  }

  void plan_memory(MemoryPlan& plan) override {
    const rl::GrpoConfig& c = recipe_.rl.grpo;
    const auto prompt = task_->prompt(task_->problem(tasks::Split::train, 0));
    std::vector<int32_t> ids = prompt;
    ids.resize(prompt.size() + static_cast<size_t>(c.max_completion_length), ids.back());
    const int64_t longest = static_cast<int64_t>(ids.size());
    const std::vector<train::Example> examples(
        static_cast<size_t>(std::clamp<int64_t>(recipe_.optim.micro_batch_tokens / longest, 1, answers_)),
        {ids, static_cast<int32_t>(prompt.size())});
    plan_training_memory(plan, *trainer_, examples,
                         {.temperature = static_cast<float>(c.temperature), .entropy = c.entropy_coef != 0});
    if (grpo_->reference())
      plan.add("reference model", static_cast<int64_t>(grpo_->reference()->params().value_bytes()), true);
    plan_engine_memory(plan, *engine_, *run_.model, *task_,
                       std::max(answers_, evaluator_ ? evaluator_->most_answers() : 0));
  }

 private:
  Run& run_;
  const StageRecipe& recipe_;
  const tasks::Task* task_;
  std::unique_ptr<WithPuzzles> puzzles_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<rl::Grpo> grpo_;
  int64_t answers_ = 0;
  rl::GrpoReport report_;
};

}  // namespace

bool rl_stage(Run& run) {
  prepare_task(run);
  prepare_model(run, run.task->tokenizer().vocab_size());
  Reinforcement training(run);
  return run_stage(run, training);
}

int rl_command(const Arguments& args) { return run_recipe(args, "rl"); }

}  // namespace ponder::app
