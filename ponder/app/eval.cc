// Evaluation, as a stage of a recipe and of any model: `ponder eval MODEL`.
#include "ponder/app/commands.h"
#include "ponder/app/evaluator.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/base/error.h"
#include "ponder/base/log.h"

namespace ponder::app {

bool eval_stage(Run& run) {
  StageRecipe& recipe = run.recipe();
  if (!run.model && !run.checkpoint && recipe.model.path.empty())
    throw_error(Exit::data, "stage {}: nothing to evaluate; set [model] path", recipe.name);
  prepare_task(run);
  prepare_model(run, run.task->tokenizer().vocab_size());
  run.next_offset = run.offset + 1;
  run.checkpoint.reset();
  const Evaluator evaluator(recipe, *run.task);
  if (evaluator.empty())
    throw_error(Exit::data, "stage {}: [eval] problems = 0 leaves nothing to evaluate", recipe.name);
  const auto engine = make_engine(*run.model, *run.machine.backend, *run.task, evaluator.most_answers(),
                                  recipe.max_completion_length());
  run.log->event("stage", run.offset,
                 {{"name", recipe.name}, {"type", "eval"}, {"index", fmt::format("{}", run.stage)}, {"steps", "0"}});
  const double start = seconds_now();
  EvalOutcome outcome;
  try {
    outcome = evaluate_stage(run, evaluator, *engine, run.offset, true, true);
  } catch (const Error& stopped) {
    if (stopped.code() != Exit::resumable) throw;
    return false;
  }
  std::vector<Metric>& row = outcome.metrics;
  put(row, "stage", static_cast<double>(run.stage));
  put(row, "stage_step", 0);
  run.log->metrics(run.offset, row, 0);
  log_info("{}: {}", recipe.name, outcome.line);
  run.log->event("stage_end", run.offset,
                 {{"name", recipe.name},
                  {"seconds", fmt::format("{:.3f}", seconds_now() - start)},
                  {"tokens", fmt::format("{}", engine->stats().sampled)},
                  {"flops", fmt::format("{:.6g}", engine->stats().flops)},
                  {"finished", "true"}});
  return true;
}

namespace {

// What a recipe could say of the evaluation of a model that has its task with it.
struct ModelEval {
  struct Run {
    uint64_t seed = RunSection().seed;
    int threads = 0;
    template <class V>
    void fields(V& v) {
      v.field("seed", seed, {.help = "of everything random"});
      v.field("threads", threads, {.help = "0: all cores", .min = 0, .max = 4096});
    }
  } run;
  EvalSection eval;

  template <class V>
  void fields(V& v) {
    struct Eval {
      EvalSection& eval;
      void fields(V& w) { eval.fields(w, true); }
    } shown{eval};
    v.section("run", run, "");
    v.section("eval", shown, "");
  }
};

}  // namespace

int eval_command(const Arguments& args) {
  const std::string& what = args.positional[0];
  const bool recipe_named = what.ends_with(".toml");
  check_subject(args, what, recipe_named, {"problems", "samples", "temperature", "split", "puzzles"},
                {"resume", "max-steps", "run-name", "output-dir", "allow-recipe-change"});
  if (recipe_named) return run_recipe(args, "eval");

  Recipe overrides;
  overrides.read_environment();
  for (const std::string& set : args.all("set")) overrides.set(set);
  ModelEval meant;
  const Origins origins = overrides.bind(meant);
  StageRecipe recipe("eval");
  recipe.eval = meant.eval;
  recipe.run.seed = meant.run.seed, recipe.run.threads = meant.run.threads;
  recipe.eval.problems = args.integer("problems", recipe.eval.problems, 1, 1 << 20);
  recipe.eval.samples = args.integer("samples", recipe.eval.samples, 1, 1024);
  recipe.eval.temperature = args.number("temperature", recipe.eval.temperature, 0, 100);
  recipe.eval.eval_puzzles = args.text("puzzles", recipe.eval.eval_puzzles);
  recipe.eval.split = args.text("split", recipe.eval.split);
  if (recipe.eval.split != "held_out" && recipe.eval.split != "train")
    throw_error(Exit::usage, "--split {}: held_out and train exist", recipe.eval.split);
  recipe.run.seed = static_cast<uint64_t>(args.integer("seed", static_cast<int64_t>(recipe.run.seed), 0, INT64_MAX));
  recipe.finish();

  Machine machine(args.has("threads") ? args.threads() : recipe.run.threads);
  const LoadedModel loaded = load_any_model(what, machine);
  if (!loaded.task)
    throw_error(Exit::data,
                "{}: it has no task.toml, so there is nothing to ask it; eval reads miniatures only in this version",
                loaded.path);
  if (origins.at("eval.max_completion_length").source == "default")  // the longest text of the task
    recipe.eval.max_completion_length =
        std::max<int64_t>(recipe.eval.max_completion_length, loaded.task->max_text_tokens() - 5);
  const Evaluator evaluator(recipe, *loaded.task);
  if (evaluator.empty()) throw_error(Exit::usage, "eval.problems = 0 leaves nothing to evaluate");
  install_stop_signals();
  const auto engine = make_engine(*loaded.model, *machine.backend, *loaded.task, evaluator.most_answers(),
                                  recipe.max_completion_length());
  const Evaluation e = evaluator.run(*engine, {.may_stop = true});
  if (args.json()) {
    fmt::print("{}", lm_eval_json(std::string(loaded.task->name()), e.metrics, evaluator.problem_count()));
  } else {
    for (const auto& [name, value] : e.metrics) fmt::print("{:<36} {:.4f}\n", name, value);
    log_info("{}", e.line);
  }
  return 0;
}

}  // namespace ponder::app
