// runs list, show, compare, tail, export, reindex, rm. What they say comes from the runs' folders, which are the truth;
// the ledger is only rebuilt and kept in step here.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <map>
#include <set>
#include <thread>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/ledger.h"
#include "ponder/base/log.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

constexpr const char* kLedger = "ledger.sqlite";

std::string runs_root(const Arguments& args) { return args.text("output-dir", "runs"); }

RunDir run_of(const Arguments& args, size_t i = 0) {
  return RunDir::open(resolve_run(args.positional[i], runs_root(args)));
}

// finished, failed, running (somebody holds its lock), interrupted (the same command goes on), or unknown, where the lock
// is not ours to try.
std::string status_of(const RunDir& run) {
  if (run.info().end == "done") return "finished";
  if (!run.info().end.empty()) return "failed";
  const std::string lock = run.file("run.lock");
  try {
    return path_exists(lock) && !FileLock::try_lock(lock) ? "running" : "interrupted";
  } catch (const Error&) {
    return "unknown";
  }
}

std::string when(double unix_seconds) {
  const std::string s = utc_stamp(unix_seconds);  // 20250131-235959
  return fmt::format("{}-{}-{} {}:{}", s.substr(0, 4), s.substr(4, 2), s.substr(6, 2), s.substr(9, 2), s.substr(11, 2));
}

// "eval/countdown/accuracy": the one number of an evaluation, whatever the task is called.
bool is_accuracy(std::string_view tag) {
  return tag.starts_with("eval/") && tag.ends_with("/accuracy") && std::count(tag.begin(), tag.end(), '/') == 2;
}

double last_of(const MetricsLog& log, std::string_view tag) {
  for (size_t i = log.rows.size(); i-- > 0;)
    if (const double value = get(log.rows[i].values, tag); !std::isnan(value)) return value;
  return std::nan("");
}

// The highest accuracy of any evaluation, or NaN.
double best_accuracy(const MetricsLog& log) {
  double best = std::nan("");
  for (const MetricsRow& row : log.rows)
    for (const auto& [tag, value] : row.values)
      if (is_accuracy(tag) && !std::isnan(value) && !(value <= best)) best = value;
  return best;
}

struct StageFacts {
  std::string name, type;
  int64_t begin = 0, steps = 0, done = 0;
  double seconds = std::nan(""), tokens = std::nan(""), flops = std::nan(""), peak_bytes = std::nan("");
};

// From the events that a stage writes when it begins and ends; a later attempt overrides an earlier one.
std::vector<StageFacts> stages_of(const MetricsLog& log) {
  std::vector<StageFacts> stages;
  for (const RunEvent& event : log.events) {
    if (event.kind != "stage" && event.kind != "stage_end") continue;
    const Json json = parse_json(event.json, "metrics.jsonl");
    const auto text = [&](const char* key) {
      return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : std::string();
    };
    const auto number = [&](const char* key) {
      const std::string value = text(key);
      char* end = nullptr;
      const double x = std::strtod(value.c_str(), &end);
      return end == value.c_str() || !std::isfinite(x) ? std::nan("") : x;
    };
    auto at = std::find_if(stages.begin(), stages.end(), [&](const StageFacts& s) { return s.name == text("name"); });
    if (event.kind == "stage") {
      if (at == stages.end()) at = stages.insert(stages.end(), StageFacts{});
      at->name = text("name"), at->type = text("type"), at->begin = event.step;
      at->steps = std::abs(number("steps")) < 1e18 ? static_cast<int64_t>(number("steps")) : 0;
    } else if (at != stages.end()) {
      at->seconds = number("seconds"), at->tokens = number("tokens"), at->flops = number("flops"),
      at->peak_bytes = number("peak_bytes");
    }
  }
  for (size_t i = 0; i < stages.size(); ++i)
    for (const MetricsRow& row : log.rows)
      if (get(row.values, "stage") == static_cast<double>(i))
        stages[i].done = std::max(stages[i].done, row.step - stages[i].begin);
  return stages;
}

struct Facts {
  explicit Facts(const RunDir& run)
      : status(status_of(run)),
        log(read_metrics(run)),
        stages(stages_of(log)),
        best(best_accuracy(log)),
        reward(last_of(log, "reward")),
        loss(last_of(log, "loss")) {
    if (!log.rows.empty()) step = log.rows.back().step, seconds = log.rows.back().wall_s;
    if (!stages.empty()) place = fmt::format("{} {}/{}", stages.back().name, stages.back().done, stages.back().steps);
  }
  std::string status;
  MetricsLog log;
  std::vector<StageFacts> stages;
  double best, reward, loss;
  int64_t step = -1;   // -1: none yet
  double seconds = 0;  // of work
  std::string place;   // "rl 12/40"
};

void write_facts(JsonWriter& w, const RunDir& run, const Facts& facts) {
  w.member("id", run.id()).member("path", run.path()).member("name", run.info().name).member("type", run.info().type);
  w.member("status", facts.status).member("step", facts.step).member("stage", facts.place);
  w.member("reward", facts.reward).member("loss", facts.loss).member("best_accuracy", facts.best);
  w.member("created", run.info().created).member("seconds", facts.seconds).member("end", run.info().end);
}

// The lines of a resolved recipe that somebody wrote, without what is there by default.
std::string written_values(const std::string& toml) {
  std::string out, heading;
  for (size_t begin = 0; begin < toml.size();) {
    const size_t end = std::min(toml.find('\n', begin), toml.size());
    const std::string line = toml.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with('[')) heading = line;
    const size_t comment = line.rfind("  # ");
    if (comment == line.npos) continue;
    const std::string origin = line.substr(comment + 4);
    if (origin == "default" || origin == "derived") continue;
    if (!heading.empty()) out += "  " + std::exchange(heading, "") + "\n";
    std::string value = line.substr(0, comment);
    value.erase(value.find_last_not_of(' ') + 1);
    out += "  " + value + "\n";
  }
  return out;
}

const char* const kEvalColumns[][2] = {{"accuracy", "accuracy"},
                                       {"stderr", "accuracy_stderr"},
                                       {"greedy", "greedy/accuracy"},
                                       {"pass@8", "pass@8"},
                                       {"length", "completions/mean_length"},
                                       {"search", "mode/search/share"},
                                       {"wrong arithmetic", "errors/arithmetic"}};

struct Evaluation {
  const MetricsRow* row;
  std::string task;
  double value(std::string_view metric) const { return get(row->values, fmt::format("eval/{}/{}", task, metric)); }
};
std::vector<Evaluation> evaluations_of(const MetricsLog& log) {
  std::vector<Evaluation> out;
  for (const MetricsRow& row : log.rows)
    for (const auto& [tag, value] : row.values)
      if (is_accuracy(tag)) out.push_back({&row, tag.substr(5, tag.rfind('/') - 5)});
  return out;
}

struct Artifact {
  std::string name, what;
};
std::vector<Artifact> artifacts_of(const RunDir& run) {
  std::vector<Artifact> out;
  for (const char* mark : {"LATEST", "BEST"})
    if (const auto target = read_pointer(run.file(mark))) out.push_back({mark, *target});
  for (const auto& [stage, target] : train::stage_ends(run.path())) out.push_back({"stages/" + stage, target});
  for (const char* report : {"report.html", "report.md"})
    if (path_exists(run.file(report))) out.push_back({report, format_bytes(file_size(run.file(report)))});
  return out;
}

// Every value of every metric that is no evaluation, by name.
std::map<std::string, std::vector<double>> courses_of(const MetricsLog& log) {
  std::map<std::string, std::vector<double>> out;
  for (const MetricsRow& row : log.rows)
    for (const auto& [tag, value] : row.values)
      if (!tag.starts_with("eval/") && tag != "stage" && tag != "stage_step") out[tag].push_back(value);
  return out;
}

void show_text(const RunDir& run, const Facts& facts) {
  const RunInfo& info = run.info();
  fmt::print("{}: {}, {}\n", run.id(), info.type, facts.status == "failed" ? info.end : facts.status);
  Table head({"", ""});
  head.row({"folder", run.path()});
  head.row({"started", fmt::format("{} UTC; {} of work", when(info.created), format_duration(facts.seconds))});
  head.row({"program", fmt::format("{} on {}, seed {}", info.version, info.cpu, info.seed)});
  if (!info.parent.empty()) head.row({"begins with", info.parent});
  head.row({"command", shell_line(run.info().command)});
  fmt::print("{}", head.text(2));

  Table stages({"stage", "type", ">steps", ">time", ">tokens", ">FLOP", ">peak memory"});
  for (const StageFacts& s : facts.stages)
    stages.row({s.name, s.type, fmt::format("{}/{}", format_grouped(s.done), format_grouped(s.steps)),
                std::isnan(s.seconds) ? "" : format_duration(s.seconds),
                std::isnan(s.tokens) ? "" : format_grouped(static_cast<int64_t>(s.tokens)),
                std::isnan(s.flops) ? "" : fmt::format("{:.3g}", s.flops),
                std::isnan(s.peak_bytes) ? "" : format_bytes(static_cast<uint64_t>(s.peak_bytes))});
  if (!stages.empty()) fmt::print("\nstages\n{}", stages.text(2));

  std::vector<std::string> headings = {">step", "task"};
  for (const auto& column : kEvalColumns) headings.push_back(fmt::format(">{}", column[0]));
  Table evaluations(headings);
  for (const Evaluation& e : evaluations_of(facts.log)) {
    std::vector<std::string> cells = {format_grouped(e.row->step), e.task};
    for (const auto& column : kEvalColumns) cells.push_back(short_number(e.value(column[1])));
    evaluations.row(std::move(cells));
  }
  if (!evaluations.empty()) fmt::print("\nevaluations\n{}", evaluations.text(2));

  Table metrics({"", ">", ""});
  for (const auto& [tag, course] : courses_of(facts.log))
    metrics.row({tag, short_number(course.back()), sparkline(course, 30)});
  if (!metrics.empty()) fmt::print("\nmetrics: the last value, and the course\n{}", metrics.text(2));

  fmt::print("\nrecipe, without defaults (all of it: {})\n{}", run.file("recipe.toml"), written_values(run.recipe()));
  Table artifacts({"", ""});
  for (const Artifact& a : artifacts_of(run)) artifacts.row({a.name, a.what});
  if (!artifacts.empty()) fmt::print("\nmade\n{}", artifacts.text(2));
  if (facts.status == "interrupted") fmt::print("\nthis goes on with it\n  {}\n", shell_line(run.info().command));
}

void show_json(const RunDir& run, const Facts& facts) {
  std::string json;
  JsonWriter w(json);
  w.begin_object();
  write_facts(w, run, facts);
  w.member("version", run.info().version).member("cpu", run.info().cpu).member("seed", run.info().seed);
  w.member("parent", run.info().parent).member("recipe_hash", run.info().recipe_hash);
  w.member("command", std::span<const std::string>(run.info().command)).key("stages").begin_array();
  for (const StageFacts& s : facts.stages) {
    w.begin_object().member("name", s.name).member("type", s.type).member("first_step", s.begin);
    w.member("steps", s.steps).member("done", s.done).member("seconds", s.seconds).member("tokens", s.tokens);
    w.member("flops", s.flops).member("peak_bytes", s.peak_bytes).end_object();
  }
  w.end_array().key("evaluations").begin_array();
  for (const Evaluation& e : evaluations_of(facts.log)) {
    const std::string prefix = fmt::format("eval/{}/", e.task);
    w.begin_object().member("step", e.row->step).member("task", e.task).key("metrics").begin_object();
    for (const auto& [tag, value] : e.row->values)
      if (tag.starts_with(prefix)) w.member(tag.substr(prefix.size()), value);
    w.end_object().end_object();
  }
  w.end_array().key("metrics").begin_object();
  for (const auto& [tag, course] : courses_of(facts.log)) w.member(tag, course.back());
  w.end_object().key("recipe").begin_object();
  for (const FlatValue& v : flat_values_of_toml(run.recipe(), run.file("recipe.toml"))) w.member(v.path, v.value);
  w.end_object().key("artifacts").begin_object();
  for (const Artifact& a : artifacts_of(run)) w.member(a.name, a.what);
  w.end_object().end_object();
  fmt::print("{}\n", json);
}

// Several runs side by side: each row has one cell for each run.
struct Comparison {
  std::vector<std::string> ids;
  std::vector<std::pair<std::string, std::vector<std::string>>> recipe;  // what differs; "" where a run lacks it
  std::map<std::string, std::vector<double>> metrics;                    // the last values; NaN where a run has none
  std::map<std::string, std::map<int64_t, std::vector<double>>> evaluations;  // tag, step
};

Comparison compare(const std::vector<RunDir>& runs) {
  Comparison out;
  const size_t n = runs.size();
  std::vector<std::string> order;
  std::map<std::string, std::vector<std::string>> recipe;
  for (size_t i = 0; i < n; ++i) {
    out.ids.push_back(runs[i].id());
    for (const FlatValue& v : flat_values_of_toml(runs[i].recipe(), runs[i].file("recipe.toml"))) {
      const auto [at, fresh] = recipe.try_emplace(v.path, n);
      if (fresh) order.push_back(v.path);
      at->second[i] = v.value;
    }
    const MetricsLog log = read_metrics(runs[i]);
    for (const auto& [tag, course] : courses_of(log))
      out.metrics.try_emplace(tag, n, std::nan("")).first->second[i] = course.back();
    for (const MetricsRow& row : log.rows)
      for (const auto& [tag, value] : row.values)
        if (tag.starts_with("eval/") || tag.starts_with("val/"))
          out.evaluations[tag].try_emplace(row.step, n, std::nan("")).first->second[i] = value;
  }
  for (const std::string& path : order)
    if (const auto& v = recipe[path]; std::count(v.begin(), v.end(), v[0]) != static_cast<int64_t>(n))
      out.recipe.emplace_back(path, v);
  return out;
}

void compare_text(const Comparison& c) {
  std::vector<std::string> left = {""}, right = {""};
  for (size_t i = 0; i < c.ids.size(); ++i) {
    const std::string label = i < 26 ? std::string(1, static_cast<char>('A' + i)) : fmt::format("#{}", i + 1);
    fmt::print("{}  {}\n", label, c.ids[i]);
    left.push_back(label);
    right.push_back(">" + label);
  }
  const auto add = [](Table& table, std::string name, const std::vector<double>& values) {
    std::vector<std::string> cells = {std::move(name)};
    for (const double v : values) cells.push_back(short_number(v));
    table.row(std::move(cells));
  };
  Table recipe(left);
  for (const auto& [path, values] : c.recipe) {
    std::vector<std::string> cells = {path};
    for (const std::string& v : values) cells.push_back(v.empty() ? "(absent)" : v);
    recipe.row(std::move(cells));
  }
  if (recipe.empty())
    fmt::print("\nthe recipes are the same\n");
  else
    fmt::print("\nrecipe, where it differs\n{}", recipe.text(2));

  // The columns of `runs show`, and what pre-training on texts measures; --json has all.
  for (const auto& [tag, rows] : c.evaluations) {
    const size_t task = tag.find('/', 5);
    const bool shown = tag.starts_with("val/") ||
                       std::any_of(std::begin(kEvalColumns), std::end(kEvalColumns), [&](const auto& column) {
                         return task != std::string::npos && std::string_view(tag).substr(task + 1) == column[1];
                       });
    if (!shown) continue;
    std::vector<std::string> headings = right;
    headings[0] = ">step";
    Table table(headings);
    for (const auto& [step, values] : rows) add(table, format_grouped(step), values);
    fmt::print("\n{}\n{}", tag, table.text(2));
  }
  Table metrics(right);
  for (const auto& [tag, values] : c.metrics)
    if (!tag.starts_with("val/")) add(metrics, tag, values);
  fmt::print("\nlast metrics\n{}", metrics.text(2));
}

void compare_json(const Comparison& c) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().member("runs", std::span<const std::string>(c.ids)).key("recipe").begin_object();
  for (const auto& [path, values] : c.recipe) w.member(path, std::span<const std::string>(values));
  w.end_object().key("metrics").begin_object();
  for (const auto& [tag, values] : c.metrics) w.member(tag, std::span<const double>(values));
  w.end_object().key("evaluations").begin_object();
  for (const auto& [tag, rows] : c.evaluations) {
    w.key(tag).begin_array();
    for (const auto& [step, values] : rows)
      w.begin_object().member("step", step).member("values", std::span<const double>(values)).end_object();
    w.end_array();
  }
  w.end_object().end_object();
  fmt::print("{}\n", json);
}

std::string tail_line(const MetricsRow& row, const std::vector<StageFacts>& stages) {
  static constexpr std::pair<const char*, const char*> kColumns[] = {
      {"loss", "loss"},        {"reward", "reward"},   {"length", "completions/mean_length"},
      {"entropy", "entropy"},  {"kl", "kl"},           {"|g|", "grad_norm"},
      {"lr", "learning_rate"}, {"tok/s", "tok_per_s"}, {"of peak", "mfu"},
      {"bits/byte", "val/bpb"}};
  std::string line = fmt::format("{:>7}", row.step);
  if (const double stage = get(row.values, "stage"); stage >= 0 && stage < static_cast<double>(stages.size()))
    line += fmt::format(
        "  {:<14}", fmt::format("{} {:.0f}", stages[static_cast<size_t>(stage)].name, get(row.values, "stage_step")));
  for (const auto& [heading, tag] : kColumns)
    if (const double value = get(row.values, tag); !std::isnan(value))
      line += fmt::format("  {} {}", heading, short_number(value));
  for (const auto& [tag, value] : row.values)
    if (is_accuracy(tag)) line += fmt::format("  accuracy {:.3f}", value);
  return line;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == text.npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

// An empty cell: the row has no such metric; nan: it was not finite.
void export_csv(const MetricsLog& log) {
  std::vector<std::string> tags;
  std::set<std::string> known;
  for (const MetricsRow& row : log.rows)
    for (const auto& [tag, value] : row.values)
      if (known.insert(tag).second) tags.push_back(tag);
  fmt::print("step,attempt,time,wall_s,tokens");
  for (const std::string& tag : tags) fmt::print(",{}", csv_cell(tag));
  fmt::print("\n");
  for (const MetricsRow& row : log.rows) {
    fmt::print("{},{},{:.3f},{:.3f},{}", row.step, row.attempt, row.time, row.wall_s, row.tokens);
    const std::map<std::string, double> values(row.values.begin(), row.values.end());
    for (const std::string& tag : tags) {
      const auto at = values.find(tag);
      fmt::print(",{}", at == values.end() ? std::string() : fmt::format("{}", at->second));
    }
    fmt::print("\n");
  }
}

}  // namespace

int runs_list_command(const Arguments& args) {
  const std::string root = runs_root(args);
  std::string json;
  JsonWriter w(json);
  w.begin_array();
  Table table({"run", "type", "status", "stage", ">last", ">best accuracy", "started (UTC)", ">work"});
  for (const RunDir& run : RunDir::list(root)) {
    const Facts facts(run);
    w.begin_object();
    write_facts(w, run, facts);
    w.end_object();
    const std::string last = !std::isnan(facts.reward) ? fmt::format("reward {:.3f}", facts.reward)
                             : !std::isnan(facts.loss) ? fmt::format("loss {:.4g}", facts.loss)
                                                       : "-";
    table.row({run.id(), run.info().type, facts.status, facts.place, last,
               std::isnan(facts.best) ? "-" : fmt::format("{:.3f}", facts.best), when(run.info().created),
               format_duration(facts.seconds)});
  }
  w.end_array();
  if (args.json())
    fmt::print("{}\n", json);
  else if (table.empty())
    log_info("no runs under {}", root);
  else
    fmt::print("{}", table.text());
  return 0;
}

int runs_show_command(const Arguments& args) {
  const RunDir run = run_of(args);
  const Facts facts(run);
  args.json() ? show_json(run, facts) : show_text(run, facts);
  return 0;
}

int runs_compare_command(const Arguments& args) {
  std::vector<RunDir> runs;
  for (size_t i = 0; i < args.positional.size(); ++i) runs.push_back(run_of(args, i));
  const Comparison c = compare(runs);
  args.json() ? compare_json(c) : compare_text(c);
  return 0;
}

int runs_tail_command(const Arguments& args) {
  const RunDir run = run_of(args);
  const auto n = static_cast<size_t>(args.integer("n", 10, 1, 1 << 20));
  MetricsLog log = read_metrics(run);
  int64_t last_step = -1, last_attempt = -1;
  const auto print = [&](size_t first) {
    const std::vector<StageFacts> stages = stages_of(log);
    for (size_t i = first; i < log.rows.size(); ++i) {
      fmt::print("{}\n", args.json() ? metrics_line(log.rows[i]) : tail_line(log.rows[i], stages));
      last_step = log.rows[i].step, last_attempt = log.rows[i].attempt;
    }
    std::fflush(stdout);
  };
  print(log.rows.size() - std::min(n, log.rows.size()));
  if (!args.has("follow")) return 0;

  install_stop_signals();
  uint64_t size = 0;
  for (bool running = true; running && !stop_requested();) {
    running = status_of(RunDir::open(run.path())) == "running";  // before the read, so that the last rows are seen
    if (const uint64_t now = path_exists(run.metrics_path()) ? file_size(run.metrics_path()) : 0; now != size) {
      size = now;
      log = read_metrics(run);
      const auto fresh = std::find_if(log.rows.begin(), log.rows.end(), [&](const MetricsRow& r) {
        return r.step > last_step || r.attempt > last_attempt;
      });
      print(static_cast<size_t>(fresh - log.rows.begin()));
    }
    if (running) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  return 0;
}

int runs_export_command(const Arguments& args) {
  const std::string format = args.text("format", args.json() ? "jsonl" : "csv");
  if (format != "csv" && format != "jsonl")
    throw_error(Exit::usage,
                "--format {}: csv and jsonl exist (for TensorBoard, the run's folder holds its event files already)",
                format);
  const MetricsLog log = read_metrics(run_of(args));
  if (format == "csv")
    export_csv(log);
  else
    for (const MetricsRow& row : log.rows) fmt::print("{}\n", metrics_line(row));
  if (log.skipped > 0) log_warn("{} lines of metrics.jsonl could not be read and were left out", log.skipped);
  return 0;
}

int runs_reindex_command(const Arguments& args) {
  const std::string root = runs_root(args);
  if (!is_folder(root))
    throw_error(Exit::data, "{}: there is no such folder; name the one with the runs by --output-dir", root);
  const int64_t runs = Ledger(join_path(root, kLedger)).reindex(root);
  log_info("{}: {} runs", join_path(root, kLedger), runs);
  if (args.json()) fmt::print("{{\"runs\":{}}}\n", runs);
  return 0;
}

int runs_rm_command(const Arguments& args) {
  const std::string& name = args.positional[0];
  const RunDir run = run_of(args);
  if (run.id() == "." || run.id() == "..")
    throw_error(Exit::usage, "runs rm {}: give the run's name, or a path that ends in it", name);
  // The beginning of a name is enough where somebody looks at what it means.
  if (args.has("yes") && !path_exists(name) && run.id() != name)
    throw_error(Exit::usage, "runs rm --yes needs the whole name; {} may mean {}", name, run.id());
  const auto lock = FileLock::try_lock(run.file("run.lock"));
  if (!lock) throw_error(Exit::failure, "{} is running; stop it first (Ctrl+C there, or SIGTERM)", run.path());
  if (!args.has("yes")) {
    fmt::print(stderr, "Delete {} with {}everything in it? Type yes: ", run.path(),
               run.latest() ? "its checkpoints and " : "");
    std::string answer;
    if (!std::getline(std::cin, answer) || answer != "yes") {
      log_info("{} is left as it is", run.path());
      return static_cast<int>(Exit::failure);
    }
  }
  remove_tree(run.path());
  try {
    const std::string ledger = join_path(parent_folder(run.path()), kLedger);
    if (path_exists(ledger)) Ledger(ledger).remove_run(run.id());
  } catch (const Error& e) {
    log_warn("{} `ponder runs reindex` mends it.", e.what());
  }
  log_info("{} is gone", run.path());
  return 0;
}

}  // namespace ponder::app
