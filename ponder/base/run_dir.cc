#include "ponder/base/run_dir.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <random>

#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder {
namespace {

constexpr size_t kMaxMetricsBytes = size_t{2} << 30;
constexpr JsonLimits kLineLimits = {.max_bytes = size_t{1} << 20, .max_depth = 8, .max_values = 16384};

int64_t integer_or(const Json& object, const char* key, int64_t otherwise) {
  const auto at = object.find(key);
  if (at == object.end()) return otherwise;
  if (at->is_number_unsigned() && at->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return otherwise;
  return at->is_number_integer() ? at->get<int64_t>() : otherwise;
}

double number_or(const Json& object, const char* key, double otherwise) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number() ? at->get<double>() : otherwise;
}

std::string text_or(const Json& object, const char* key, const char* otherwise) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : otherwise;
}

}  // namespace

std::string safe_file_name(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 80))
    out.push_back(std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-' ? c : '-');
  // Neither hidden nor a flag.
  while (!out.empty() && (out[0] == '.' || out[0] == '-')) out.erase(0, 1);
  return out.empty() ? "run" : out;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string utc_stamp(double unix_seconds) {
  const std::time_t t = static_cast<std::time_t>(unix_seconds);
  std::tm tm{};
  gmtime_r(&t, &tm);
  return fmt::format("{:04}{:02}{:02}-{:02}{:02}{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                     tm.tm_min, tm.tm_sec);
}

// --- metrics.jsonl ---------------------------------------------------------------------------------------------------

namespace {
// Keys of a line that are no metrics.
bool is_reserved(std::string_view key) {
  static constexpr std::string_view kKeys[] = {"step", "attempt", "time", "wall_s", "tokens", "nonfinite", "event"};
  return std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys);
}
}  // namespace

std::string metrics_line(const MetricsRow& row) {
  std::string line;
  JsonWriter json(line);
  json.begin_object().member("step", row.step).member("attempt", row.attempt);
  json.key("time").raw(fmt::format("{:.3f}", row.time)).key("wall_s").raw(fmt::format("{:.3f}", row.wall_s));
  json.member("tokens", row.tokens);
  bool nonfinite = false;
  for (const auto& [tag, value] : row.values) {
    // A key that stands twice would cost the reader the whole line.
    PONDER_CHECK(!is_reserved(tag), "\"{}\" is no metric's name", tag);
    PONDER_CHECK(
        std::count_if(row.values.begin(), row.values.end(), [t = &tag](const Metric& m) { return m.first == *t; }) == 1,
        "the metric \"{}\" is given twice", tag);
    json.member(tag, value);
    nonfinite |= !std::isfinite(value);
  }
  if (nonfinite) {
    json.key("nonfinite").begin_array();
    for (const auto& [tag, value] : row.values)
      if (!std::isfinite(value)) json.value(tag);
    json.end_array();
  }
  json.end_object();
  return line;
}

MetricsLog parse_metrics(std::string_view text) {
  MetricsLog log;
  std::map<int64_t, MetricsRow> rows;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    Json object;
    try {
      // A line without its line break may be cut anywhere, even where what is left is JSON by accident.
      if (end != line.npos) object = parse_json(line, "metrics.jsonl", 1, kLineLimits);
    } catch (const Error&) {
      // Counted below.
    }
    if (!object.is_object()) {
      ++log.skipped;
      continue;
    }
    const int64_t step = integer_or(object, "step", -1), attempt = integer_or(object, "attempt", 0);
    const double time = number_or(object, "time", 0);
    if (const std::string kind = text_or(object, "event", ""); !kind.empty()) {
      if (kind == "resume") {
        const int64_t from = integer_or(object, "from_step", -1);
        if (from >= 0) rows.erase(rows.upper_bound(from), rows.end());
      }
      log.last_attempt = std::max(log.last_attempt, attempt);
      log.events.push_back(
          {kind, kind == "resume" ? integer_or(object, "from_step", step) : step, attempt, time, std::string(line)});
      continue;
    }
    if (step < 0) {
      ++log.skipped;
      continue;
    }
    MetricsRow row{.step = step,
                   .attempt = attempt,
                   .tokens = integer_or(object, "tokens", 0),
                   .time = time,
                   .wall_s = number_or(object, "wall_s", 0),
                   .values = {}};
    for (const auto& [tag, value] : object.items()) {
      if (is_reserved(tag)) continue;
      if (value.is_number())
        row.values.emplace_back(tag, value.get<double>());
      else if (value.is_null())
        row.values.emplace_back(tag, std::nan(""));
    }
    log.last_attempt = std::max(log.last_attempt, attempt);
    rows[step] = std::move(row);
  }
  log.rows.reserve(rows.size());
  for (auto& [step, row] : rows) log.rows.push_back(std::move(row));
  return log;
}

MetricsLog read_metrics(const RunDir& run) {
  if (!path_exists(run.metrics_path())) return {};
  return parse_metrics(read_file(run.metrics_path(), kMaxMetricsBytes));
}

// --- RunDir ----------------------------------------------------------------------------------------------------------

std::string RunDir::step_name(std::string_view folder, int64_t step) {
  return fmt::format("{}/step-{:06}", folder, step);
}

std::string RunDir::samples_path(int64_t step) const { return file(step_name("samples", step) + ".jsonl"); }
std::string RunDir::checkpoint_path(int64_t step) const { return file(step_name("checkpoints", step)); }

std::vector<int64_t> RunDir::sample_steps() const {
  std::vector<int64_t> steps;
  if (!is_folder(file("samples"))) return steps;
  for (const std::string& name : list_folder(file("samples"))) {
    if (!name.starts_with("step-") || !name.ends_with(".jsonl")) continue;
    int64_t step = 0;
    const char* const end = name.data() + name.size() - 6;
    if (const auto [at, error] = std::from_chars(name.data() + 5, end, step); error == std::errc{} && at == end)
      steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string RunDir::eval_path(std::string_view task, std::string_view stamp) const {
  return file(fmt::format("eval/samples_{}_{}.jsonl", safe_file_name(task), stamp));
}

std::vector<EvalItem> RunDir::eval_items() const {
  std::vector<EvalItem> items;
  if (!is_folder(file("eval"))) return items;
  constexpr std::string_view kPrefix = "samples_", kSuffix = ".jsonl";
  constexpr size_t kStamp = 15;  // of utc_stamp
  for (const std::string& name : list_folder(file("eval"))) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) ||
        name.size() < kPrefix.size() + kStamp + kSuffix.size() + 2)
      continue;
    const size_t stamp = name.size() - kSuffix.size() - kStamp;
    EvalItem item{.task = name.substr(kPrefix.size(), stamp - 1 - kPrefix.size()),
                  .stamp = name.substr(stamp, kStamp),
                  .json = {}};
    for (std::string& line : read_whole_lines(file(join_path("eval", name)))) {
      item.json = std::move(line);
      items.push_back(item);
      ++item.number;
    }
  }
  return items;
}

std::optional<std::string> RunDir::pointer(const char* name) const {
  const std::optional<std::string> target = read_pointer(file(name));
  if (!target) return std::nullopt;
  // A pointer may only name something inside the run: the folder may come from somebody else.
  if (target->starts_with('/') || target->find("..") != target->npos)
    throw_error(Exit::data, "{}: \"{}\" leads out of the run's folder", file(name), *target);
  return file(*target);
}

RunDir RunDir::create(const std::string& runs_root, RunInfo info, std::string_view recipe_toml) {
  if (info.created == 0) info.created = unix_time();
  make_folders(runs_root);
  std::random_device random;
  std::string path;
  do {
    path = join_path(
        runs_root, fmt::format("{}-{}-{:04x}", safe_file_name(info.name), utc_stamp(info.created), random() & 0xffff));
  } while (!make_folder(path));
  for (const char* folder : {"samples", "eval", "checkpoints"}) make_folder(join_path(path, folder));
  RunDir run(path, std::move(info));
  write_file_atomic(run.file("recipe.toml"), recipe_toml);
  run.write_info();
  sync_folder(runs_root);
  return run;
}

void RunDir::write_info() const {
  std::string json;
  JsonWriter writer(json);
  writer.begin_object().member("name", info_.name).member("type", info_.type).key("command").begin_array();
  for (const std::string& word : info_.command) writer.value(word);
  writer.end_array().member("version", info_.version).member("cpu", info_.cpu).member("seed", info_.seed);
  writer.member("parent", info_.parent).member("recipe_hash", info_.recipe_hash);
  writer.key("created").raw(fmt::format("{:.3f}", info_.created)).member("end", info_.end);
  writer.key("ended").raw(fmt::format("{:.3f}", info_.ended)).end_object();
  write_file_atomic(file("run.json"), json + "\n");
}

RunDir RunDir::open(const std::string& path) {
  std::string folder = path;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  const std::string file = join_path(folder, "run.json");
  if (!path_exists(file))
    throw_error(Exit::data, "{} is not a run: it has no run.json. `ponder runs list` shows the runs.", path);
  const Json json = read_json(file, {.max_bytes = size_t{1} << 20, .max_depth = 8});
  if (!json.is_object()) throw_error(Exit::data, "{}: expected an object", file);
  RunInfo info;
  info.name = text_or(json, "name", "");
  info.type = text_or(json, "type", "");
  if (const auto command = json.find("command"); command != json.end() && command->is_array())
    for (const Json& word : *command)
      if (word.is_string()) info.command.push_back(word.get<std::string>());
  info.version = text_or(json, "version", "");
  info.cpu = text_or(json, "cpu", "");
  if (const auto seed = json.find("seed"); seed != json.end() && seed->is_number_unsigned())
    info.seed = seed->get<uint64_t>();
  info.parent = text_or(json, "parent", "");
  info.recipe_hash = text_or(json, "recipe_hash", "");
  info.created = number_or(json, "created", 0);
  info.end = text_or(json, "end", "");
  info.ended = number_or(json, "ended", 0);
  return RunDir(folder, std::move(info));
}

std::vector<RunDir> RunDir::list(const std::string& runs_root) {
  std::vector<RunDir> runs;
  if (!is_folder(runs_root)) return runs;
  for (const std::string& name : list_folder(runs_root)) {
    const std::string path = join_path(runs_root, name);
    try {
      if (path_exists(join_path(path, "run.json"))) runs.push_back(open(path));
    } catch (const Error& e) {
      log_warn("skipping {}: {}", path, e.what());
    }
  }
  std::stable_sort(runs.begin(), runs.end(),
                   [](const RunDir& a, const RunDir& b) { return a.info().created < b.info().created; });
  return runs;
}

std::optional<RunDir> RunDir::find_resumable(const std::string& runs_root, std::string_view recipe_hash) {
  std::vector<RunDir> runs = list(runs_root);
  for (size_t i = runs.size(); i-- > 0;) {
    if (runs[i].info().recipe_hash != recipe_hash || !runs[i].info().end.empty()) continue;
    try {
      if (FileLock::try_lock(runs[i].file("run.lock"))) return std::move(runs[i]);
    } catch (const Error& e) {
      log_warn("skipping {}: {}", runs[i].path(), e.what());
    }
  }
  return std::nullopt;
}

FileLock RunDir::lock() const {
  std::optional<FileLock> lock = FileLock::try_lock(file("run.lock"));
  if (!lock)
    throw_error(Exit::failure, "another process is writing to {}; wait for it, or start with --resume never", path_);
  return std::move(*lock);
}

void RunDir::finish(std::string_view end) {
  info_.end = end;
  info_.ended = unix_time();
  write_info();
}

void RunDir::reopen(std::string_view recipe_toml, std::string_view recipe_hash) {
  if (info_.end.empty() && info_.recipe_hash == recipe_hash) return;
  if (info_.recipe_hash != recipe_hash) write_file_atomic(file("recipe.toml"), recipe_toml);
  info_.end.clear();
  info_.ended = 0;
  info_.recipe_hash = recipe_hash;
  write_info();
}

}  // namespace ponder
