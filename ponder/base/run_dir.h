// The folder of one run: runs/<name>-<UTC time>-<4 hex>/, the truth about it (the ledger is rebuilt from these
// folders).
//
//   recipe.toml    resolved, every value with its origin       run.json     command, build, CPU, seeds, parent, end
//   metrics.jsonl  one flat object per step, append-only       log.jsonl    log lines
//   samples/step-000100.jsonl   eval/   checkpoints/step-000400/   LATEST, BEST: "checkpoints/step-000400"
//
// metrics.jsonl: {"step","attempt","time","wall_s","tokens", tags...}. JSON has no NaN: such a value is null and its
// tag stands in "nonfinite". Other lines are events: {"event":"resume","from_step":N,"attempt":A,"time":T}. After a
// resume from step N, rows of earlier attempts beyond N are history that did not happen.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/base/file.h"

namespace ponder {

using Metric = std::pair<std::string, double>;

struct RunInfo {
  std::string name;                  // of the recipe; letters, digits, . _ - (others become -)
  std::string type;                  // "rl", "sft", ...
  std::vector<std::string> command;  // argv
  std::string version, cpu;          // of the program, and the CPU path in use
  uint64_t seed = 0;
  std::string parent;  // id of the run whose checkpoint this one starts from, or ""
  std::string recipe_hash;
  double created = 0;  // Unix seconds; 0: now
  // Set by finish: "done" or "failed: ...". Empty while unfinished, stopped early included: such a run resumes.
  std::string end;
  double ended = 0;
};

struct MetricsRow {
  int64_t step = 0, attempt = 0, tokens = 0;
  double time = 0, wall_s = 0;  // Unix seconds; seconds of work since the first attempt began
  std::vector<Metric> values;   // NaN where the file says null
};

struct RunEvent {
  std::string kind;
  int64_t step = 0, attempt = 0;
  double time = 0;
  std::string json;  // the whole line
};

struct MetricsLog {
  std::vector<MetricsRow> rows;  // by step, each step once: the later holds
  std::vector<RunEvent> events;  // in file order
  int64_t skipped = 0;           // malformed lines, a torn last one included
  int64_t last_attempt = -1;     // -1: nothing was ever written
};

// One line of eval/samples_<task>_<stamp>.jsonl.
struct EvalItem {
  std::string task, stamp;  // stamp: the evaluation's time, as utc_stamp writes it
  int64_t number = 0;
  std::string json;
};

class RunDir {
 public:
  // Makes the folder and writes run.json and recipe.toml.
  static RunDir create(const std::string& runs_root, RunInfo info, std::string_view recipe_toml);
  static RunDir open(const std::string& path);
  // The newest unfinished run of this recipe that no living process holds.
  static std::optional<RunDir> find_resumable(const std::string& runs_root, std::string_view recipe_hash);
  // Every run folder under the root, by creation time; one whose run.json is unreadable is named in a warning.
  static std::vector<RunDir> list(const std::string& runs_root);

  const std::string& path() const { return path_; }
  std::string id() const { return base_name(path_); }
  const RunInfo& info() const { return info_; }
  std::string file(std::string_view name) const { return join_path(path_, name); }
  std::string recipe() const { return read_file(file("recipe.toml"), size_t{1} << 20); }

  std::string metrics_path() const { return file("metrics.jsonl"); }
  std::string samples_path(int64_t step) const;
  std::vector<int64_t> sample_steps() const;
  std::vector<std::string> samples(int64_t step) const { return read_whole_lines(samples_path(step)); }
  std::string eval_path(std::string_view task, std::string_view stamp) const;
  std::vector<EvalItem> eval_items() const;
  std::string checkpoint_path(int64_t step) const;
  std::optional<std::string> latest() const { return pointer("LATEST"); }  // absolute or relative as path() is
  std::optional<std::string> best() const { return pointer("BEST"); }
  void set_latest(int64_t step) const { write_pointer(file("LATEST"), step_name("checkpoints", step)); }
  void set_best(int64_t step) const { write_pointer(file("BEST"), step_name("checkpoints", step)); }

  // Held by the process that writes here, so that two never do. Exit::failure if somebody else does.
  FileLock lock() const;
  void finish(std::string_view end);
  // It goes on: neither failed nor, where the recipe was changed on purpose, the run of the old one.
  void reopen(std::string_view recipe_toml, std::string_view recipe_hash);

 private:
  RunDir(std::string path, RunInfo info) : path_(std::move(path)), info_(std::move(info)) {}
  static std::string step_name(std::string_view folder, int64_t step);
  std::optional<std::string> pointer(const char* name) const;
  void write_info() const;

  std::string path_;
  RunInfo info_;
};

// Both skip what is malformed and count it. A missing file is an empty log.
MetricsLog parse_metrics(std::string_view text);
MetricsLog read_metrics(const RunDir& run);

// One line of metrics.jsonl, without the line break.
std::string metrics_line(const MetricsRow& row);

// A name as it stands in file names: letters, digits, . _ -; others become -.
std::string safe_file_name(std::string_view name);
double unix_time();
std::string utc_stamp(double unix_seconds);  // "20250131-235959"

}  // namespace ponder
