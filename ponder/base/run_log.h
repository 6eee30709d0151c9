// What a run says while it runs, in one call each: metrics.jsonl (the truth), TensorBoard, the ledger.
//
//   RunDir dir = RunDir::create("runs", info, resolved_toml(config, &origins));
//   RunLog log(dir);                                  // or RunLog log(dir, from_step) after loading a checkpoint
//   log.metrics(step, {{"loss", loss}, {"grad_norm", norm}}, tokens);
//   log.sample(step, json_object);
//   log.event("checkpoint", step, {{"path", "checkpoints/step-000400"}});
//   log.finish("done");
//
// metrics.jsonl that cannot be written ends the run (Exit::resources). TensorBoard and the ledger are copies: their
// failures are one warning each. Rank 0 only; one thread at a time.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ponder/base/file.h"
#include "ponder/base/ledger.h"
#include "ponder/base/run_dir.h"
#include "ponder/base/tfevents.h"

namespace ponder {

class RunLog {
 public:
  // `resume_from`: the step of the checkpoint this attempt starts from; rows beyond it are forgotten. `lock`: the run's,
  // taken here unless the caller had to look into the folder under it before. The ledger is ledger.sqlite beside the
  // run's folder.
  explicit RunLog(RunDir& dir, std::optional<int64_t> resume_from = std::nullopt,
                  std::optional<FileLock> lock = std::nullopt);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void metrics(int64_t step, std::span<const Metric> values, int64_t tokens = 0);  // tokens: seen so far
  void metrics(int64_t step, std::initializer_list<Metric> values, int64_t tokens = 0) {
    metrics(step, std::span(values.begin(), values.size()), tokens);
  }
  // One JSON object; samples/step-N.jsonl holds those of step N in this order. The first of a step replaces what an
  // earlier attempt wrote there.
  void sample(int64_t step, std::string_view json);
  // One line of eval/samples_<task>_<stamp>.jsonl, in the shape of lm-eval.
  void eval_item(std::string_view task, std::string_view stamp, std::string_view json);
  // A line {"event":kind,"step","attempt","time", members...} in metrics.jsonl.
  using Member = std::pair<std::string_view, std::string_view>;
  void event(std::string_view kind, int64_t step, std::initializer_list<Member> members = {});
  // A file this run made, with its hash ("" if unknown).
  void artifact(std::string_view kind, std::string_view path, std::string_view hash, int64_t step);
  // The run is over for good: it will not be resumed. Not called when it stops early.
  void finish(std::string_view end);

  int64_t attempt() const { return attempt_; }
  double wall_s() const;  // of work, earlier attempts included
  Ledger& ledger() { return ledger_; }

 private:
  template <class F>
  void copy_to(const char* what, bool& broken, F&& f);

  RunDir& dir_;
  FileLock lock_;
  Ledger ledger_;
  std::unique_ptr<AppendFile> metrics_;
  std::unique_ptr<AppendFile> samples_, eval_;
  int64_t samples_step_ = -1, sample_number_ = 0, eval_number_ = 0;
  std::unique_ptr<TfEventWriter> tfevents_;
  bool ledger_broken_ = false, tfevents_broken_ = false;
  int64_t attempt_ = 0;
  double earlier_wall_s_ = 0, start_;
};

}  // namespace ponder
