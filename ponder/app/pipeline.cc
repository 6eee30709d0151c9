// A recipe from its start, or from where it stopped, to its end.
#include <algorithm>

#include "ponder/app/commands.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/report.h"
#include "ponder/app/stage.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

void check_unfinished(const RunDir& dir) {
  if (dir.info().end == "done") throw_error(Exit::data, "{} is finished; there is nothing to go on with", dir.path());
}

// The run to go on with, as `resume` asks: nullopt to begin a new one.
std::optional<RunDir> find_run(Plan& plan, bool allow_change) {
  const RunSection& r = plan.stage[0].run;
  if (r.resume == "never") return std::nullopt;
  if (r.resume == "auto" || r.resume.empty()) return RunDir::find_resumable(r.output_dir, plan.hash());
  RunDir dir = RunDir::open(resolve_run(r.resume, r.output_dir));
  if (dir.info().recipe_hash != plan.hash()) {
    const auto diff = config_diff(flat_values_of_toml(dir.recipe(), dir.file("recipe.toml")), plan.values());
    const std::string text =
        fmt::format("the recipe is not the one that {} was started with:\n  {}", dir.path(), fmt::join(diff, "\n  "));
    if (!allow_change) throw_error(Exit::data, "{}\nGo on all the same with --allow-recipe-change.", text);
    log_warn("{}", text);
  }
  check_unfinished(dir);
  return dir;
}

RunDir create_run(Plan& plan, const Arguments& args, const Machine& machine) {
  std::string parent;
  if (const std::string& path = plan.stage[0].model.path; !path.empty()) {
    // RUN/checkpoints/step-N has its run two folders up.
    const std::string run = parent_folder(parent_folder(resolve_model(path)));
    if (path_exists(join_path(run, "run.json"))) parent = base_name(run);
  }
  return RunDir::create(plan.stage[0].run.output_dir,
                        {.name = plan.name,
                         .type = plan.pipeline ? "pipeline" : plan.stage[0].type,
                         .command = args.command_line,
                         .version = PONDER_VERSION,
                         .cpu = machine.backend->name(),
                         .seed = plan.stage[0].run.seed,
                         .parent = parent,
                         .recipe_hash = plan.hash()},
                        plan.toml());
}

// Finds where to go on: sets stage, offset, checkpoint and what the stages before have left. Returns the step of the
// checkpoint, or nullopt where there is none.
std::optional<int64_t> find_place(Run& run) {
  const train::CheckpointStore store(run.dir.path(), 1);
  const auto newest = store.newest();
  if (!newest) return std::nullopt;
  run.resumed = train::read_state(*newest);
  run.checkpoint = *newest;
  run.counters = run.resumed.counters;
  store.mark(run.resumed, {.best = run.counters["named_best"] > 0, .stage_end = run.counters["stage_done"] > 0});
  const auto at = std::find_if(run.plan.stage.begin(), run.plan.stage.end(),
                               [&](const StageRecipe& s) { return s.name == run.resumed.stage; });
  if (at == run.plan.stage.end())
    throw_error(Exit::data, "{}: it belongs to a stage \"{}\", which the recipe does not have", *newest,
                run.resumed.stage);
  run.stage = static_cast<size_t>(at - run.plan.stage.begin());
  run.offset = run.resumed.step - run.resumed.stage_step;
  if (run.counters["stage_done"] > 0) {
    ++run.stage;
    run.offset = run.resumed.step + 1;
  }
  return run.resumed.step;
}

// What a finished run leaves to look at and to talk to.
void conclude(const Run& run, const Arguments& args) {
  const std::string report = write_report(run.dir);
  log_info("report: {}", report);
  if (run.task)
    log_info("talk to it:  {}   and type  {}", shell_line({args.command_line[0], "chat", run.dir.path()}),
             tasks::example_text(*run.task));
}

}  // namespace

int run_recipe(const Arguments& args, const std::string& type) {
  std::vector<std::string> sets = args.all("set");
  for (const char* name : {"resume", "seed", "output-dir", "run-name", "max-steps"})
    if (args.has(name)) {
      std::string field = name;
      std::replace(field.begin(), field.end(), '-', '_');
      sets.push_back(fmt::format("{}={}", field, args.text(name)));
    }
  Plan plan = load_plan(args.positional[0], type, sets);
  for (const std::string& note : plan.notes) log_info("{}", note);

  install_stop_signals();
  survive_lost_readers();
  Machine machine(args.has("threads") ? args.threads() : plan.stage[0].run.threads);
  std::optional<RunDir> found = find_run(plan, args.has("allow-recipe-change"));
  const bool resumes = found.has_value();
  Run run{.machine = machine,
          .plan = plan,
          .dir = found ? std::move(*found) : create_run(plan, args, machine),
          .log = nullptr,
          .command_line = shell_line(args.command_line),
          .peak_flops = measure_fma_peak(machine.pool),
          .task = nullptr,
          .model = nullptr,
          .counters = {},
          .checkpoint = {},
          .resumed = {}};
  // Whoever held the lock may have gone on and even finished since the run was chosen.
  FileLock lock = run.dir.lock();
  std::optional<int64_t> from;
  if (resumes) {
    run.dir = RunDir::open(run.dir.path());
    check_unfinished(run.dir);
    run.dir.reopen(plan.toml(), plan.hash());
    from = find_place(run);
  }
  run.log = std::make_unique<RunLog>(run.dir, resumes ? std::optional<int64_t>(from.value_or(0)) : std::nullopt,
                                     std::move(lock));
  set_log_file(run.dir.file("log.jsonl"));
  if (resumes)
    log_info("going on in {} from {}", run.dir.path(), from ? fmt::format("step {}", *from) : "the beginning");
  else
    log_info("run {}", run.dir.path());
  log_info("{} threads, {}, {:.0f} GFLOP/s at best; seed {}", machine.pool.size(), machine.backend->name(),
           run.peak_flops * 1e-9, plan.stage[0].run.seed);
  run.log->event("machine", run.offset,
                 {{"cpu", machine.backend->name()},
                  {"threads", fmt::format("{}", machine.pool.size())},
                  {"peak_flops", fmt::format("{:.6g}", run.peak_flops)},
                  {"price_per_hour", fmt::format("{:g}", plan.stage[0].run.price_per_hour)}});

  const auto ended = [&](const char* state, int code) {
    if (args.json()) {
      std::string json;
      JsonWriter(json).begin_object().member("run", run.dir.path()).member("state", state).end_object();
      fmt::print("{}\n", json);
    }
    return code;
  };
  const auto stopped = [&] {
    log_info("stopped in good order. The same command goes on:\n\n    {}\n", run.command_line);
    return ended("stopped", static_cast<int>(Exit::resumable));
  };
  try {
    for (; run.stage < plan.stage.size(); ++run.stage) {
      const StageRecipe& stage = run.recipe();
      if (plan.pipeline)
        log_info("--- stage {} of {}: {} ({})", run.stage + 1, plan.stage.size(), stage.name, stage.type);
      const bool finished = stage.type == "pretrain" ? pretrain_stage(run)
                            : stage.type == "rl"     ? rl_stage(run)
                                                     : eval_stage(run);
      if (!finished) return stopped();
      if (stop_requested() && run.stage + 1 < plan.stage.size()) return stopped();
      run.offset = run.next_offset;
    }
  } catch (const Error& e) {
    // What cannot be resumed is over; a full disk can be.
    if (e.code() == Exit::failure) run.log->finish(fmt::format("failed: {}", e.what()));
    throw;
  }
  run.log->finish("done");
  conclude(run, args);
  return ended("done", 0);
}

int pipeline_command(const Arguments& args) { return run_recipe(args, ""); }

}  // namespace ponder::app
