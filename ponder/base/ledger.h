// The ledger: all runs in one SQLite file (runs/ledger.sqlite), for reports, `runs` and the dashboard.
//
// It holds nothing that the run folders do not: `reindex` rebuilds it, and losing it loses nothing. So whoever writes a
// run treats its errors as warnings. Opened at the first use; WAL on a local disk, a rollback journal on a network one.
// One object belongs to one thread at a time; several processes may write (each waits up to five seconds for the
// other).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/base/config.h"
#include "ponder/base/run_dir.h"

namespace ponder {

class Ledger {
 public:
  explicit Ledger(std::string path);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // --- Writing. The run is its id (the folder's name). Writing the same key again replaces.
  void add_run(const RunDir& run);  // with its recipe, from the folder
  void add_metrics(const std::string& run, const MetricsRow& row);
  void forget_after(const std::string& run, int64_t step);  // metrics, samples: a resume from `step`
  void add_event(const std::string& run, const RunEvent& event);
  void add_sample(const std::string& run, int64_t step, int64_t index, std::string_view json);
  void add_eval_item(const std::string& run, const EvalItem& item);
  void add_artifact(const std::string& run, std::string_view kind, std::string_view path, std::string_view hash);
  void remove_run(const std::string& run);

  // Everything again from the folders under `runs_root`. A damaged ledger is replaced; a damaged run is named in a warning and
  // left out. Returns the number of runs.
  int64_t reindex(const std::string& runs_root);

  // --- Reading.
  struct RunRow {
    std::string id, path, name, type, recipe_hash, parent, end;
    double created = 0, ended = 0;
    int64_t last_step = -1;
  };
  struct Point {
    int64_t step, attempt;
    double value;  // NaN for a value that was not finite
  };
  struct Artifact {
    std::string kind, path, hash;
  };
  std::vector<RunRow> runs();
  std::vector<std::pair<std::string, std::string>> recipe(const std::string& run);  // field, value as TOML
  std::vector<std::string> tags(const std::string& run);
  std::vector<Point> metric(const std::string& run, std::string_view tag);         // by step
  std::optional<double> last_value(const std::string& run, std::string_view tag);  // of the highest step
  std::vector<std::string> samples(const std::string& run, int64_t step);          // by index
  std::vector<int64_t> sample_steps(const std::string& run);
  std::vector<EvalItem> eval_items(const std::string& run, std::string_view task);  // by stamp and number
  std::vector<Artifact> artifacts(const std::string& run);
  std::vector<RunEvent> events(const std::string& run);

 private:
  struct Impl;
  Impl& open();
  void add_run(const RunDir& run, std::span<const FlatValue> recipe);
  void add_artifact_event(const std::string& run, const RunEvent& event);
  std::string path_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ponder
