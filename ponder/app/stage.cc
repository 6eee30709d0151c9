#include "ponder/app/stage.h"

#include <algorithm>
#include <cmath>

#include "ponder/app/guards.h"
#include "ponder/app/model_source.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"

namespace ponder::app {
namespace {

// Means of the metrics since the last row.
class Window {
 public:
  void add(const StepOutcome& outcome, double seconds) {
    for (const auto& [name, value] : outcome.metrics) {
      const auto [at, fresh] = index_.try_emplace(name, sums_.size());
      if (fresh) sums_.push_back({name, 0, 0});
      sums_[at->second].sum += value;
      ++sums_[at->second].n;
    }
    tokens += outcome.tokens;
    flops += outcome.flops;
    seconds_ += seconds;
    ++steps;
  }
  std::vector<Metric> take(double peak_flops) {
    std::vector<Metric> row;
    for (const Sum& s : sums_) row.emplace_back(s.name, s.sum / s.n);
    if (steps > 0 && seconds_ > 0) {
      put(row, "step_time", seconds_ / static_cast<double>(steps));
      put(row, "tok_per_s", static_cast<double>(tokens) / seconds_);
      put(row, "flops", flops);
      if (peak_flops > 0) put(row, "mfu", flops / seconds_ / peak_flops);
    }
    *this = {};
    return row;
  }
  int64_t tokens = 0, steps = 0;
  double flops = 0;

 private:
  struct Sum {
    std::string name;
    double sum;
    int n;
  };
  std::vector<Sum> sums_;
  std::map<std::string, size_t> index_;
  double seconds_ = 0;
};

std::string shown_row(const std::string& stage, int64_t step, int64_t total, const Training& training,
                      const std::vector<Metric>& row) {
  std::string line = fmt::format("{} {}/{}", stage, step, total);
  for (const auto& [heading, tag] : training.columns())
    if (const double value = get(row, tag); !std::isnan(value)) line += fmt::format("  {} {:.4g}", heading, value);
  return line;
}

class StageLoop {
 public:
  StageLoop(Run& run, Training& training)
      : run_(run),
        training_(training),
        recipe_(run.recipe()),
        total_(training.steps()),
        store_(run.dir.path(), recipe_.run.save_total_limit),
        progress_(recipe_.name) {}

  bool run() {
    run_.next_offset = run_.offset + total_ + 1;
    int64_t first = 0;
    if (run_.checkpoint && run_.resumed.stage == recipe_.name) first = restore();
    run_.checkpoint.reset();
    MemoryPlan memory;
    training_.plan_memory(memory);
    memory.finish();
    log_info("memory that {} will take:", recipe_.name);
    for (const std::string& line : memory.lines()) log_info("{}", line);
    reset_peak_rss();
    run_.log->event("stage", run_.offset,
                    {{"name", recipe_.name},
                     {"type", recipe_.type},
                     {"index", fmt::format("{}", run_.stage)},
                     {"steps", fmt::format("{}", total_)},
                     {"params", fmt::format("{}", run_.model->params().count())},
                     {"active_params", fmt::format("{}", run_.model->active_params())}});
    if (first == 0)
      for (const char* counter : {"seconds", "tokens", "flops", "skipped", "skipped_in_row"})
        run_.counters[counter] = 0;
    begun_ = seconds_now() - run_.counters["seconds"];
    if (first == 0 && recipe_.eval.eval_on_start) {
      std::vector<Metric> row;
      evaluate(0, true, row);
      if (!row.empty()) write_row(0, row);
    }
    bool finished = true;
    for (int64_t done = first; done < total_ && finished;) finished = step(++done);
    for (const auto& [heading, course] : courses_)
      if (course.size() > 1)
        log_info("{:<10} {}  {:.4g} -> {:.4g}", heading, sparkline(course, 50), course.front(), course.back());
    count_seconds();
    const int64_t peak = peak_rss_bytes();
    log_info("{}: peak memory {}, planned {} ({:+.1f}%)", recipe_.name, format_bytes(static_cast<uint64_t>(peak)),
             format_bytes(static_cast<uint64_t>(memory.total())),
             100.0 * (static_cast<double>(peak) / static_cast<double>(memory.total()) - 1));
    run_.log->event("stage_end", run_.offset + total_,
                    {{"name", recipe_.name},
                     {"seconds", fmt::format("{:.3f}", run_.counters["seconds"])},
                     {"tokens", fmt::format("{:.0f}", run_.counters["tokens"])},
                     {"flops", fmt::format("{:.6g}", run_.counters["flops"])},
                     {"finished", finished ? "true" : "false"},
                     {"planned_bytes", fmt::format("{}", memory.total())},
                     {"peak_bytes", fmt::format("{}", peak)}});
    return finished;
  }

 private:
  // One step with all that follows it; false: stopped.
  bool step(int64_t done) {
    const double start = seconds_now();
    const StepOutcome outcome = training_.step(done - 1);
    window_.add(outcome, seconds_now() - start);
    run_.counters["tokens"] += static_cast<double>(outcome.tokens);
    run_.counters["flops"] += outcome.flops;
    progress_.update({done, total_,
                      fmt::format("{} tok/s", format_count(static_cast<double>(outcome.tokens) /
                                                           std::max(1e-9, seconds_now() - start)))});
    guard_numbers(done, outcome);

    const bool last = done == total_, stop = stop_requested();
    // Where it could be saved: BEST is what was evaluated. Before a stop, too: a run that goes on would not make up for it.
    eval_due_ = eval_due_ || done % recipe_.run.eval_steps == 0;
    const bool evaluates = last || (eval_due_ && training_.can_save(done));
    if (done % recipe_.run.logging_steps == 0 || evaluates || stop) {
      std::vector<Metric> row = window_.take(run_.peak_flops);
      if (run_.counters["skipped"] > 0) put(row, "skipped_steps", run_.counters["skipped"]);
      if (checkpoint_ms_ > 0) put(row, "ckpt_ms", std::exchange(checkpoint_ms_, 0));
      log_info("{}", shown_row(recipe_.name, done, total_, training_, row));
      for (const auto& [heading, tag] : training_.columns())
        if (const double x = get(row, tag); !std::isnan(x)) courses_[heading].push_back(x);
      for (const std::string& warning : guards_.step(row)) log_warn("{} {}: {}", recipe_.name, done, warning);
      if (evaluates) evaluate(done, last, row);
      write_row(done, row);
    }
    if (done % recipe_.run.sample_steps == 0 || done == 1 || last) training_.write_samples(run_.offset + done);
    save_due_ = save_due_ || done % recipe_.run.save_steps == 0 || last || stop || best_;
    if (save_due_ && (last || training_.can_save(done))) {
      save(done);
      if (stop) return false;
    }
    return true;
  }

  // All the time of the stage, evaluations and checkpoints included.
  void count_seconds() { run_.counters["seconds"] = seconds_now() - begun_; }

  void write_row(int64_t done, std::vector<Metric>& row) {
    put(row, "stage", static_cast<double>(run_.stage));
    put(row, "stage_step", static_cast<double>(done));
    put(row, "rss_bytes", static_cast<double>(current_rss_bytes()));
    run_.log->metrics(run_.offset + done, row, static_cast<int64_t>(run_.counters["tokens"]));
  }

  void evaluate(int64_t done, bool edge, std::vector<Metric>& row) {
    eval_due_ = false;
    const double start = seconds_now();
    const EvalOutcome result = training_.evaluate(run_.offset + done, edge);
    if (result.line.empty()) return;
    for (const auto& [name, value] : result.metrics) put(row, name, value);
    put(row, "time/eval", seconds_now() - start);
    log_info("{} {}/{}: {}", recipe_.name, done, total_, result.line);
    const std::string name = "best " + result.score_name;
    const auto best = run_.counters.find(name);
    if (std::isfinite(result.score) && (best == run_.counters.end() || result.score > best->second)) {
      run_.counters[name] = result.score;
      best_ = done > 0;  // before the first step the model is the last checkpoint's
    }
    if (result.score_name == "accuracy")
      for (const std::string& warning : guards_.evaluation(result.score))
        log_warn("{} {}: {}", recipe_.name, done, warning);
  }

  void guard_numbers(int64_t done, const StepOutcome& outcome) {
    if (!outcome.skipped) {
      run_.counters["skipped_in_row"] = 0;
      return;
    }
    ++run_.counters["skipped"];
    ++run_.counters["skipped_in_row"];
    log_warn("{} {}: {} is not finite; the step was skipped ({:.0f} so far)", recipe_.name, done, outcome.offender,
             run_.counters["skipped"]);
    if (run_.counters["skipped_in_row"] < 3) return;
    std::vector<Metric> row = window_.take(run_.peak_flops);
    put(row, "skipped_steps", run_.counters["skipped"]);
    write_row(done, row);
    throw_error(Exit::failure,
                "{}: three steps in a row with numbers that are not finite (step {}, {}); the last good "
                "checkpoint stands in {}. "
                "Try a lower learning_rate or a longer warm-up",
                recipe_.name, done, outcome.offender, run_.dir.path());
  }

  void save(int64_t done) {
    const double start = seconds_now();
    count_seconds();
    run_.counters["stage_done"] = done == total_;
    run_.counters["named_best"] = best_;
    train::CheckpointContents contents{.model = *run_.model,
                                       .optimizer = training_.optimizer().state(),
                                       .reference = training_.reference(),
                                       .state = {.step = run_.offset + done,
                                                 .stage = recipe_.name,
                                                 .stage_step = done,
                                                 .recipe_hash = run_.plan.hash(),
                                                 .version = PONDER_VERSION,
                                                 .counters = run_.counters},
                                       .add_files = [&](const std::string& folder) { write_companions(run_, folder); }};
    const std::string folder = store_.save(contents, {.best = best_, .stage_end = done == total_});
    run_.log->event("checkpoint", run_.offset + done, {{"path", join_path("checkpoints", base_name(folder))}});
    progress_.checkpoint_written();
    checkpoint_ms_ = 1000 * (seconds_now() - start);
    save_due_ = best_ = false;
  }

  // The steps that are done already.
  int64_t restore() {
    training_.optimizer().load_state(Checkpoint::open(join_path(*run_.checkpoint, "optimizer.safetensors")));
    if (model::Model* reference = training_.reference())
      model::load_weights(*reference, *model::WeightSource::open(join_path(*run_.checkpoint, "reference")));
    return run_.resumed.stage_step;
  }

  Run& run_;
  Training& training_;
  const StageRecipe& recipe_;
  int64_t total_;
  train::CheckpointStore store_;
  Progress progress_;
  Guards guards_;
  Window window_;
  std::map<std::string, std::vector<double>> courses_;  // of the columns, for the lines at the end
  double begun_ = 0, checkpoint_ms_ = 0;
  bool best_ = false, save_due_ = false, eval_due_ = false;
};

}  // namespace

void put(std::vector<Metric>& metrics, std::string_view name, double value) {
  for (Metric& m : metrics)
    if (m.first == name) {
      m.second = value;
      return;
    }
  metrics.emplace_back(name, value);
}

double get(const std::vector<Metric>& metrics, std::string_view name) {
  for (const Metric& m : metrics)
    if (m.first == name) return m.second;
  return std::nan("");
}

bool run_stage(Run& run, Training& training) { return StageLoop(run, training).run(); }

namespace {
// Whether a stage says of its task just what the stage before it says.
bool same_task_as_before(const Run& run) {
  if (run.stage == 0) return false;
  tasks::TaskConfig before = run.plan.stage[run.stage - 1].task, now = run.plan.stage[run.stage].task;
  return run.plan.stage[run.stage].model.path.empty() && resolved_toml(before) == resolved_toml(now);
}

// A model that comes with its task keeps it, whatever the recipe says.
void warn_of_another_task(const Run& run) {
  tasks::TaskConfig said = run.plan.stage[run.stage].task, own = run.task->config();
  const std::vector<FlatValue> recipe = flat_values(said), model = flat_values(own);
  const std::string section = run.plan.pipeline ? fmt::format("stage.{}.task.", run.stage) : "task.";
  for (size_t i = 0; i < recipe.size(); ++i) {
    const auto origin = run.plan.origins.find(section + recipe[i].path);
    if (recipe[i].value != model[i].value && origin != run.plan.origins.end() && origin->second.source != "default")
      log_warn("{}: the model comes with its task, in which {} = {}; {} in the recipe does not count",
               run.plan.stage[run.stage].name, model[i].path, model[i].value, recipe[i].value);
  }
}
}  // namespace

void prepare_task(Run& run) {
  const StageRecipe& recipe = run.recipe();
  if (recipe.on_text()) return;
  // What the checkpoint was made with, whatever has become of recipe and model since.
  if (run.checkpoint && path_exists(join_path(*run.checkpoint, "task.toml")))
    run.task = tasks::load_task(*run.checkpoint);
  const bool goes_on = run.checkpoint && run.resumed.stage == recipe.name;
  if (run.task && (goes_on || same_task_as_before(run))) return;
  if (!recipe.model.path.empty()) {
    const std::string folder = resolve_model(recipe.model.path);
    if (path_exists(join_path(folder, "task.toml"))) {
      run.task = tasks::load_task(folder);
      warn_of_another_task(run);
      return;
    }
  }
  run.task = tasks::make_task(recipe.task);
}

void prepare_model(Run& run, int vocab_size) {
  StageRecipe& recipe = run.recipe();
  if (run.checkpoint) {
    run.model = model::load_model(*run.checkpoint, {.gradients = true});
  } else if (!run.model && !recipe.model.path.empty()) {
    run.model = model::load_model(resolve_model(recipe.model.path), {.gradients = true});
  } else if (!run.model) {
    model::ModelConfig config = recipe.model.config;
    if (config.vocab_size == 0) config.vocab_size = vocab_size;
    model::validate(config);
    run.model = std::make_unique<model::Model>(config, model::ModelOptions{.gradients = true});
    run.model->params().initialize(recipe.run.seed);
  }
  const model::ModelConfig& config = run.model->config();
  if (config.vocab_size < vocab_size)
    throw_error(Exit::data, "stage {}: the model has {} tokens, but the {} has {}", recipe.name, config.vocab_size,
                recipe.on_text() ? "text" : "task", vocab_size);
  log_info("{}: {} parameters, {} of them active for a token ({})", recipe.name,
           format_grouped(run.model->params().count()), format_grouped(run.model->active_params()), config.model_type);
}

}  // namespace ponder::app
