// runs list, show, compare, tail, export, reindex, rm.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>
#include <set>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/ledger.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

std::string runs_root(const Arguments& args) { return args.text("output-dir", "runs"); }
RunDir open_run(const Arguments& args, const std::string& name) { return RunDir::open(resolve_run(name, runs_root(args))); }

std::string state_of(const RunDir& run) {
  if (!run.info().end.empty()) return run.info().end;
  return FileLock::try_lock(run.file("run.lock")) ? "unfinished" : "running";
}

// The last value of each tag, in the order of their first appearance.
std::vector<Metric> last_values(const MetricsLog& log) {
  std::vector<Metric> out;
  for (const MetricsRow& row : log.rows)
    for (const auto& [tag, value] : row.values) put(out, tag, value);
  return out;
}

// What a run is judged by: held-out accuracy or bits per byte.
std::string result_of(const std::vector<Metric>& last) {
  for (const auto& [tag, value] : last)
    if (tag.starts_with("eval/") && tag.ends_with("/accuracy") && tag.find("/greedy/") == tag.npos) return fmt::format("accuracy {:.3f}", value);
  if (const double bits = get(last, "val/bpb"); !std::isnan(bits)) return fmt::format("{:.3f} bits/byte", bits);
  if (const double loss = get(last, "loss"); !std::isnan(loss)) return fmt::format("loss {:.3f}", loss);
  return "";
}

}  // namespace

int runs_list_command(const Arguments& args) {
  for (const RunDir& run : RunDir::list(runs_root(args))) {
    const MetricsLog log = read_metrics(run);
    const int64_t step = log.rows.empty() ? 0 : log.rows.back().step;
    if (args.json()) {
      std::string json;
      JsonWriter(json).begin_object().member("id", run.id()).member("path", run.path()).member("type", run.info().type).member("state", state_of(run))
          .member("step", step).member("seed", run.info().seed).member("created", run.info().created).member("result", result_of(last_values(log))).end_object();
      fmt::print("{}\n", json);
    } else {
      fmt::print("{:<44} {:<9} step {:<8} seed {:<5} {:<12} {}\n", run.id(), run.info().type, step, run.info().seed, state_of(run), result_of(last_values(log)));
    }
  }
  return 0;
}

int runs_show_command(const Arguments& args) {
  const RunDir run = open_run(args, args.positional[0]);
  const MetricsLog log = read_metrics(run);
  const auto last = last_values(log);
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("id", run.id()).member("path", run.path()).member("type", run.info().type).member("state", state_of(run));
    w.member("seed", run.info().seed).member("version", run.info().version).member("cpu", run.info().cpu).member("recipe_hash", run.info().recipe_hash);
    w.key("metrics").begin_object();
    for (const auto& [tag, value] : last) w.member(tag, value);
    w.end_object().end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  fmt::print("{}\n{}, {}, seed {}, ponder {} on {}\n{}\n\n", run.path(), run.info().type, state_of(run), run.info().seed, run.info().version, run.info().cpu,
             fmt::join(run.info().command, " "));
  for (const auto& [tag, value] : last) {
    std::vector<double> course;
    for (const MetricsRow& row : log.rows)
      if (const double x = get(row.values, tag); !std::isnan(x)) course.push_back(x);
    fmt::print("{:<52} {:>12.6g}  {}\n", tag, value, sparkline(course, 30));
  }
  return 0;
}

int runs_compare_command(const Arguments& args) {
  std::vector<RunDir> runs;
  for (const std::string& name : args.positional) runs.push_back(open_run(args, name));
  for (size_t i = 1; i < runs.size(); ++i) {
    const auto diff = config_diff(flat_values_of_toml(runs[0].recipe(), "recipe.toml"), flat_values_of_toml(runs[i].recipe(), "recipe.toml"));
    fmt::print("{} -> {}\n", runs[0].id(), runs[i].id());
    for (const std::string& line : diff) fmt::print("  {}\n", line);
    if (diff.empty()) fmt::print("  the same recipe\n");
  }
  std::vector<std::vector<Metric>> last;
  std::vector<std::string> tags;
  for (const RunDir& run : runs) {
    last.push_back(last_values(read_metrics(run)));
    for (const auto& [tag, value] : last.back())
      if (std::find(tags.begin(), tags.end(), tag) == tags.end()) tags.push_back(tag);
  }
  fmt::print("\n{:<52}", "last values");
  for (const RunDir& run : runs) fmt::print(" {:>14}", run.id().substr(run.id().size() > 14 ? run.id().size() - 14 : 0));
  fmt::print("\n");
  for (const std::string& tag : tags) {
    fmt::print("{:<52}", tag);
    for (const auto& values : last) fmt::print(" {:>14}", std::isnan(get(values, tag)) ? "" : fmt::format("{:.6g}", get(values, tag)));
    fmt::print("\n");
  }
  return 0;
}

int runs_tail_command(const Arguments& args) {
  const RunDir run = open_run(args, args.positional[0]);
  const auto n = static_cast<size_t>(args.integer("n", 10, 0, 1 << 20));
  std::vector<std::string> lines = path_exists(run.metrics_path()) ? read_whole_lines(run.metrics_path()) : std::vector<std::string>();
  size_t shown = lines.size() - std::min(lines.size(), n);
  install_stop_signals();
  while (true) {
    for (; shown < lines.size(); ++shown) fmt::print("{}\n", lines[shown]);
    std::fflush(stdout);
    if (!args.has("follow") || stop_requested()) return 0;
    usleep(500'000);
    if (path_exists(run.metrics_path())) lines = read_whole_lines(run.metrics_path());
  }
}

int runs_export_command(const Arguments& args) {
  const RunDir run = open_run(args, args.positional[0]);
  const std::string format = args.text("format", "csv");
  const MetricsLog log = read_metrics(run);
  if (format == "jsonl") {
    for (const MetricsRow& row : log.rows) fmt::print("{}\n", metrics_line(row));
    return 0;
  }
  if (format != "csv") throw_error(Exit::usage, "--format {}: csv and jsonl exist", format);
  const auto tags = last_values(log);
  fmt::print("step,attempt,time,wall_s,tokens");
  for (const auto& [tag, value] : tags) fmt::print(",{}", tag);
  fmt::print("\n");
  for (const MetricsRow& row : log.rows) {
    fmt::print("{},{},{:.3f},{:.3f},{}", row.step, row.attempt, row.time, row.wall_s, row.tokens);
    for (const auto& [tag, value] : tags) fmt::print(",{}", std::isnan(get(row.values, tag)) ? "" : fmt::format("{}", get(row.values, tag)));
    fmt::print("\n");
  }
  return 0;
}

int runs_reindex_command(const Arguments& args) {
  Ledger ledger(join_path(runs_root(args), "ledger.sqlite"));
  fmt::print("{} runs\n", ledger.reindex(runs_root(args)));
  return 0;
}

int runs_rm_command(const Arguments& args) {
  // The whole name: a beginning that fits another run is not enough to delete one.
  const RunDir run = open_run(args, args.positional[0]);
  if (base_name(args.positional[0]) != run.id()) throw_error(Exit::usage, "to delete it, write the whole name: {}", run.id());
  const FileLock lock = run.lock();
  if (!args.has("yes")) {
    if (!isatty(STDIN_FILENO)) throw_error(Exit::usage, "{} would be deleted; say --yes", run.path());
    std::cerr << "delete " << run.path() << " with all its checkpoints? [y/N] " << std::flush;
    std::string answer;
    if (!std::getline(std::cin, answer) || (answer != "y" && answer != "yes")) return static_cast<int>(Exit::failure);
  }
  try {
    Ledger(join_path(parent_folder(run.path()), "ledger.sqlite")).remove_run(run.id());
  } catch (const Error& e) {
    log_warn("the ledger still has it: {}; `ponder runs reindex` mends that", e.what());
  }
  remove_tree(run.path());
  return 0;
}

}  // namespace ponder::app
