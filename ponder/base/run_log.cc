#include "ponder/base/run_log.h"

#include <chrono>

#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder {
namespace {

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

// Runs f for one of the copies; after its first failure that copy is left alone.
template <class F>
void RunLog::copy_to(const char* what, bool& broken, F&& f) {
  if (broken) return;
  try {
    f();
  } catch (const Error& e) {
    broken = true;
    log_warn(
        "{} is no longer written in this run: {}. metrics.jsonl goes on; `ponder runs reindex` and `ponder runs "
        "export` "
        "rebuild the rest from it.",
        what, e.what());
  }
}

RunLog::RunLog(RunDir& dir, std::optional<int64_t> resume_from, std::optional<FileLock> lock)
    : dir_(dir),
      lock_(lock ? std::move(*lock) : dir.lock()),
      ledger_(join_path(parent_folder(dir.path()), "ledger.sqlite")),
      start_(monotonic_s()) {
  const MetricsLog before = read_metrics(dir);
  attempt_ = before.last_attempt + 1;
  // Work beyond the checkpoint was done, but not for this history.
  for (const MetricsRow& row : before.rows)
    if (!resume_from || row.step <= *resume_from) earlier_wall_s_ = row.wall_s;
  metrics_ = std::make_unique<AppendFile>(dir.metrics_path());
  copy_to("the ledger", ledger_broken_, [&] { ledger_.add_run(dir_); });
  const double now = unix_time();
  copy_to("tfevents", tfevents_broken_, [&] { tfevents_ = std::make_unique<TfEventWriter>(dir_.path(), now); });
  // An attempt that follows one without a checkpoint starts from the beginning.
  if (attempt_ > 0 || resume_from) {
    const int64_t from = resume_from.value_or(0);
    std::string line;
    JsonWriter(line)
        .begin_object()
        .member("event", "resume")
        .member("from_step", from)
        .member("attempt", attempt_)
        .key("time")
        .raw(fmt::format("{:.3f}", now))
        .end_object();
    metrics_->append_line(line);
    for (const int64_t step : dir_.sample_steps())
      if (step > from) remove_file(dir_.samples_path(step));
    copy_to("tfevents", tfevents_broken_, [&] { tfevents_->restart(from + 1, now); });
    copy_to("the ledger", ledger_broken_, [&] {
      ledger_.forget_after(dir_.id(), from);
      ledger_.add_event(dir_.id(), {"resume", from, attempt_, now, line});
    });
  }
}

RunLog::~RunLog() = default;

double RunLog::wall_s() const { return earlier_wall_s_ + monotonic_s() - start_; }

void RunLog::metrics(int64_t step, std::span<const Metric> values, int64_t tokens) {
  const MetricsRow row{.step = step,
                       .attempt = attempt_,
                       .tokens = tokens,
                       .time = unix_time(),
                       .wall_s = wall_s(),
                       .values = {values.begin(), values.end()}};
  metrics_->append_line(metrics_line(row));
  copy_to("tfevents", tfevents_broken_, [&] { tfevents_->scalars(step, row.time, row.values); });
  copy_to("the ledger", ledger_broken_, [&] { ledger_.add_metrics(dir_.id(), row); });
}

void RunLog::sample(int64_t step, std::string_view json) {
  if (!samples_ || samples_step_ != step) {
    const std::string path = dir_.samples_path(step);
    samples_.reset();
    remove_file(path);
    samples_ = std::make_unique<AppendFile>(path);
    samples_step_ = step;
    sample_number_ = 0;
  }
  samples_->append_line(json);
  copy_to("the ledger", ledger_broken_, [&] { ledger_.add_sample(dir_.id(), step, sample_number_, json); });
  ++sample_number_;
}

void RunLog::eval_item(std::string_view task, std::string_view stamp, std::string_view json) {
  const std::string path = dir_.eval_path(task, stamp);
  if (!eval_ || eval_->path() != path) {
    eval_ = std::make_unique<AppendFile>(path);
    eval_number_ = static_cast<int64_t>(read_whole_lines(path).size());
  }
  eval_->append_line(json);
  copy_to("the ledger", ledger_broken_, [&] {
    ledger_.add_eval_item(dir_.id(), {safe_file_name(task), std::string(stamp), eval_number_, std::string(json)});
  });
  ++eval_number_;
}

void RunLog::event(std::string_view kind, int64_t step, std::initializer_list<Member> members) {
  const double now = unix_time();
  std::string line;
  JsonWriter json(line);
  json.begin_object().member("event", kind).member("step", step).member("attempt", attempt_);
  json.key("time").raw(fmt::format("{:.3f}", now));
  for (const auto& [name, value] : members) json.member(name, value);
  json.end_object();
  metrics_->append_line(line);
  copy_to("the ledger", ledger_broken_, [&] {
    ledger_.add_event(dir_.id(), {std::string(kind), step, attempt_, now, line});
  });
}

void RunLog::artifact(std::string_view kind, std::string_view path, std::string_view hash, int64_t step) {
  event("artifact", step, {{"artifact", kind}, {"path", path}, {"hash", hash}});
  copy_to("the ledger", ledger_broken_, [&] { ledger_.add_artifact(dir_.id(), kind, path, hash); });
}

void RunLog::finish(std::string_view end) {
  metrics_->sync();
  dir_.finish(end);
  copy_to("the ledger", ledger_broken_, [&] { ledger_.add_run(dir_); });
}

}  // namespace ponder
