#include "ponder/base/run_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ponder/base/error.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder {
namespace {

RunInfo info_of(const std::string& name) {
  return {.name = name,
          .type = "rl",
          .command = {"ponder", "rl", "x y"},
          .version = "0.1",
          .cpu = "AVX2",
          .seed = ~uint64_t{0},
          .parent = "",
          .recipe_hash = "abc",
          .created = 0,
          .end = "",
          .ended = 0};
}

std::vector<std::string> lines_of(const std::string& path) { return read_whole_lines(path); }

TEST(RunDir, CreateOpenList) {
  TempFolder folder;
  const std::string root = folder.file("runs");
  RunDir run = RunDir::create(root, info_of("my run/../x"), "a = 1\n");
  EXPECT_TRUE(run.id().starts_with("my-run-..-x-20")) << run.id();
  EXPECT_EQ(run.id().size(), std::strlen("my-run-..-x-") + 15 + 1 + 4);
  EXPECT_EQ(run.recipe(), "a = 1\n");
  EXPECT_EQ(run.latest(), std::nullopt);
  run.set_latest(400);
  EXPECT_EQ(run.latest(), run.path() + "/checkpoints/step-000400");
  EXPECT_EQ(run.samples_path(7), run.path() + "/samples/step-000007.jsonl");
  write_file_atomic(run.file("BEST"), "../../etc\n");
  EXPECT_THROW(run.best(), Error);

  const RunDir again = RunDir::open(run.path() + "/");
  EXPECT_EQ(again.id(), run.id());
  EXPECT_EQ(again.info().command, run.info().command);
  EXPECT_EQ(again.info().seed, ~uint64_t{0});
  EXPECT_NEAR(again.info().created, unix_time(), 60);
  EXPECT_THROW(RunDir::open(root), Error);

  make_folders(join_path(root, "broken"));
  write_file_atomic(join_path(root, "broken/run.json"), "{");
  set_log_quiet(true);
  EXPECT_EQ(RunDir::list(root).size(), 1u);
  EXPECT_EQ(RunDir::find_resumable(root, "abc")->id(), run.id());
  EXPECT_FALSE(RunDir::find_resumable(root, "abd"));
  {
    const FileLock lock = run.lock();
    EXPECT_FALSE(RunDir::find_resumable(root, "abc"));
    EXPECT_THROW(run.lock(), Error);
  }
  run.finish("done");
  EXPECT_FALSE(RunDir::find_resumable(root, "abc"));
  EXPECT_EQ(RunDir::open(run.path()).info().end, "done");
  EXPECT_TRUE(RunDir::list(folder.file("none")).empty());
  EXPECT_EQ(utc_stamp(0), "19700101-000000");
}

TEST(Metrics, LineAndBack) {
  const double inf = std::numeric_limits<double>::infinity();
  const MetricsRow row{.step = 3,
                       .attempt = 1,
                       .tokens = 99,
                       .time = 1.5,
                       .wall_s = 2.25,
                       .values = {{"loss", 0.1}, {"kl", NAN}, {"grad_norm", inf}}};
  const std::string line = metrics_line(row);
  EXPECT_EQ(line,
            R"({"step":3,"attempt":1,"time":1.500,"wall_s":2.250,"tokens":99,"loss":0.1,"kl":null,"grad_norm":null,)"
            R"("nonfinite":["kl","grad_norm"]})");
  const MetricsLog log = parse_metrics(line + "\n");
  ASSERT_EQ(log.rows.size(), 1u);
  EXPECT_EQ(log.rows[0].tokens, 99);
  ASSERT_EQ(log.rows[0].values.size(), 3u);
  EXPECT_TRUE(std::isnan(log.rows[0].values[0].second));  // by name: grad_norm, kl, loss
  EXPECT_EQ(log.rows[0].values[2], Metric("loss", 0.1));
  EXPECT_EQ(log.last_attempt, 1);
}

TEST(Metrics, ReaderSkipsWhatIsTornAndKeepsTheLater) {
  const MetricsLog log = parse_metrics(
      "{\"step\":1,\"x\":1}\n{\"step\":2,\"x\":2}\n{\"step\":3,\"x\":3}\nrubbish\n[1]\n{\"x\":1}\n\n"
      "{\"event\":\"resume\",\"from_step\":1,\"attempt\":1}\n"
      "{\"step\":2,\"attempt\":1,\"x\":20}\n{\"step\":2,\"attempt\":1,\"x\":21}\n{\"step\":9,\"x\":9}");
  ASSERT_EQ(log.rows.size(), 2u);
  EXPECT_EQ(log.rows[1].step, 2);
  EXPECT_EQ(log.rows[1].values[0].second, 21);
  EXPECT_EQ(log.skipped, 4);  // rubbish, a list, no step, the torn last line
  EXPECT_EQ(log.last_attempt, 1);
  ASSERT_EQ(log.events.size(), 1u);
  EXPECT_EQ(log.events[0].step, 1);
}

// --- TensorBoard -----------------------------------------------------------------------------------------------------

struct Wire {
  std::string_view bytes;
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(bytes.at(0));
      bytes.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
  }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, bytes.substr(0, sizeof value).data(), sizeof value);
    bytes.remove_prefix(sizeof value);
    return value;
  }
  std::string_view text() {
    const size_t n = varint();
    const std::string_view out = bytes.substr(0, n);
    bytes.remove_prefix(n);
    return out;
  }
};

// One line per event, decoded by the wire format alone.
std::vector<std::string> decode(const std::string& path) {
  const std::string file = read_file(path);
  std::vector<std::string> events;
  Wire frames{file};
  while (!frames.bytes.empty()) {
    const std::string_view length = frames.bytes.substr(0, 8);
    const uint64_t n = frames.fixed<uint64_t>();
    EXPECT_EQ(frames.fixed<uint32_t>(), masked_crc32c(length));
    const std::string_view data = frames.bytes.substr(0, n);
    frames.bytes.remove_prefix(n);
    EXPECT_EQ(frames.fixed<uint32_t>(), masked_crc32c(data));
    std::string shown;
    for (Wire event{data}; !event.bytes.empty();) {
      const uint64_t key = event.varint();
      if (key == (1 << 3 | 1))
        shown += fmt::format("time {} ", event.fixed<double>());
      else if (key == (2 << 3))
        shown += fmt::format("step {} ", event.varint());
      else if (key == (3 << 3 | 2))
        shown += fmt::format("version {} ", event.text());
      else if (key == (7 << 3 | 2)) {
        Wire session{event.text()};
        EXPECT_EQ(session.varint(), 1u << 3);
        shown += fmt::format("status {} ", session.varint());
      } else if (key == (5 << 3 | 2)) {
        for (Wire summary{event.text()}; !summary.bytes.empty();) {
          EXPECT_EQ(summary.varint(), 1u << 3 | 2);
          Wire value{summary.text()};
          EXPECT_EQ(value.varint(), 1u << 3 | 2);
          const std::string_view tag = value.text();
          EXPECT_EQ(value.varint(), 2u << 3 | 5);
          shown += fmt::format("{}={} ", tag, value.fixed<float>());
          EXPECT_TRUE(value.bytes.empty());
        }
      } else {
        ADD_FAILURE() << "field " << key;
      }
    }
    events.push_back(shown);
  }
  return events;
}

TEST(TfEvents, Crc32c) {
  // RFC 3720, B.4.
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TfEvents, DecodesByteByByte) {
  TempFolder folder;
  TfEventWriter writer(folder.path(), 1700000000.5);
  EXPECT_TRUE(base_name(writer.path()).starts_with("events.out.tfevents.1700000000.")) << writer.path();
  const std::vector<Metric> values = {{"loss", 0.5}, {"rewards/accuracy/mean", -2}, {"kl", NAN}};
  writer.scalars(300, 1700000001, values);
  writer.restart(200, 1700000002);
  writer.scalars(int64_t{1} << 40, 1700000003, {});
  EXPECT_EQ(decode(writer.path()),
            (std::vector<std::string>{"time 1700000000.5 version brain.Event:2 ",
                                      "time 1700000001 step 300 loss=0.5 rewards/accuracy/mean=-2 kl=nan ",
                                      "time 1700000002 step 200 status 1 ", "time 1700000003 step 1099511627776 "}));
  // The first frame, by hand: u64 24, its checksum, 1 double, 3 "brain.Event:2", checksum.
  const std::string bytes = read_file(writer.path()).substr(0, 12 + 24 + 4);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x18\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(8, 4), std::string("\xa3\x7f\x4b\x22", 4));  // as in every event file ever written
  EXPECT_EQ(bytes.substr(12, 1), "\x09");
  EXPECT_EQ(bytes.substr(21, 15),
            "\x1a\x0d"
            "brain.Event:2");
}

// --- The ledger and the run log --------------------------------------------------------------------------------------

// Everything the ledger says about a run, as text.
std::string everything(Ledger& ledger, const std::string& run) {
  std::string out;
  for (const Ledger::RunRow& row : ledger.runs())
    out += fmt::format("run {} {} {} {} {} last {}\n", row.id, row.name, row.type, row.recipe_hash, row.end,
                       row.last_step);
  for (const auto& [field, value] : ledger.recipe(run)) out += fmt::format("{} = {}\n", field, value);
  for (const std::string& tag : ledger.tags(run)) {
    if (tag == "time" || tag == "wall_s") continue;
    out += tag;
    for (const Ledger::Point& p : ledger.metric(run, tag)) out += fmt::format(" {}/{}:{}", p.step, p.attempt, p.value);
    out += "\n";
  }
  for (const int64_t step : ledger.sample_steps(run))
    for (const std::string& line : ledger.samples(run, step)) out += fmt::format("sample {} {}\n", step, line);
  for (const EvalItem& item : ledger.eval_items(run, "math_500"))
    out += fmt::format("eval {} {} {} {}\n", item.task, item.stamp, item.number, item.json);
  for (const Ledger::Artifact& a : ledger.artifacts(run))
    out += fmt::format("artifact {} {} {}\n", a.kind, a.path, a.hash);
  for (const RunEvent& e : ledger.events(run))
    out += fmt::format("event {} {} {} {}\n", e.kind, e.step, e.attempt, e.json);
  return out;
}

TEST(RunLog, WritesEverywhereResumesAndReindexes) {
  TempFolder folder;
  const std::string root = folder.file("runs");
  RunDir run = RunDir::create(root, info_of("t"), "[rl]\nbeta = 0.001  # --set\n[[reward]]\nname = 'a'\n");
  {
    RunLog log(run);
    EXPECT_EQ(log.attempt(), 0);
    for (int64_t step = 1; step <= 5; ++step) {
      log.metrics(step, {{"loss", 1.0 / static_cast<double>(step)}, {"kl", step == 2 ? NAN : 0.5}}, step * 100);
      log.sample(step, fmt::format("{{\"n\":{}}}", step));
      log.sample(step, "{\"n\":0}");
    }
    log.event("warning", 5, {{"text", "low \"entropy\""}});
    log.artifact("checkpoint", "checkpoints/step-000003", "abcd", 3);
    log.eval_item("math_500", "20250101-000000", "{\"doc_id\":0}");
    log.eval_item("math_500", "20250101-000000", "{\"doc_id\":1}");
    EXPECT_THROW(RunLog second(run), Error);
  }
  {
    RunLog log(run, 3);  // killed, and started again from the checkpoint of step 3
    EXPECT_EQ(log.attempt(), 1);
    log.metrics(4, {{"loss", 9.0}}, 400);
    log.sample(4, "{\"n\":44}");
    log.finish("done");
  }
  const MetricsLog log = read_metrics(run);
  ASSERT_EQ(log.rows.size(), 4u);
  EXPECT_EQ(log.rows[3].attempt, 1);
  EXPECT_GE(log.rows[3].wall_s, log.rows[2].wall_s);
  EXPECT_EQ(lines_of(run.samples_path(4)), std::vector<std::string>{"{\"n\":44}"});
  EXPECT_EQ(run.sample_steps(), (std::vector<int64_t>{1, 2, 3, 4}));

  const std::vector<std::string> event_files = glob_files(run.file("events.out.tfevents.*"));
  ASSERT_EQ(event_files.size(), 2u);
  std::vector<std::string> shown;
  for (const std::string& path : event_files)
    for (const std::string& event : decode(path)) shown.push_back(event.substr(event.find(' ', 5) + 1));
  EXPECT_EQ(std::count(shown.begin(), shown.end(), "step 4 status 1 "), 1);
  EXPECT_EQ(std::count(shown.begin(), shown.end(), "step 4 loss=9 "), 1);

  Ledger ledger(join_path(root, "ledger.sqlite"));
  const std::string live = everything(ledger, run.id());
  EXPECT_NE(live.find("loss 1/0:1 2/0:0.5 3/0:0.3333333333333333 4/1:9\n"), std::string::npos) << live;
  EXPECT_NE(live.find("kl 1/0:0.5 2/0:nan 3/0:0.5\n"), std::string::npos) << live;
  EXPECT_NE(live.find("rl.beta = 0.001\n"), std::string::npos) << live;
  EXPECT_NE(live.find("rl abc done last 4\n"), std::string::npos) << live;
  EXPECT_NE(live.find("artifact checkpoint checkpoints/step-000003 abcd\n"), std::string::npos) << live;
  EXPECT_NE(live.find("eval math_500 20250101-000000 1 {\"doc_id\":1}\n"), std::string::npos) << live;
  EXPECT_EQ(ledger.last_value(run.id(), "loss"), 9.0);
  EXPECT_EQ(ledger.last_value(run.id(), "none"), std::nullopt);

  // Losing it loses nothing: rebuilt in place, from nothing, and from a file that is no database.
  EXPECT_EQ(ledger.reindex(root), 1);
  EXPECT_EQ(everything(ledger, run.id()), live);
  const std::string other = folder.file("other.sqlite");
  Ledger fresh(other);
  fresh.reindex(root);
  EXPECT_EQ(everything(fresh, run.id()), live);
  write_file_atomic(folder.file("bad.sqlite"), std::string(5000, 'x'));
  Ledger repaired(folder.file("bad.sqlite"));
  EXPECT_THROW(repaired.runs(), Error);
  repaired.reindex(root);
  EXPECT_EQ(everything(repaired, run.id()), live);

  // A run that is damaged costs the others nothing.
  const RunDir damaged = RunDir::create(root, info_of("d"), "x = = 1\n");
  EXPECT_EQ(ledger.reindex(root), 1);
  EXPECT_EQ(everything(ledger, run.id()), live);

  ledger.remove_run(run.id());
  EXPECT_TRUE(ledger.runs().empty());
  EXPECT_TRUE(ledger.tags(run.id()).empty());

  // What failed and goes on is neither over nor the run of the old recipe.
  run.reopen("[rl]\nbeta = 0.5\n", "new");
  const RunDir again = RunDir::open(run.path());
  EXPECT_EQ(again.info().end, "");
  EXPECT_EQ(again.info().recipe_hash, "new");
  EXPECT_EQ(again.recipe(), "[rl]\nbeta = 0.5\n");
}

TEST(RunLog, ABrokenLedgerIsAWarningAFullDiskAnError) {
  TempFolder folder;
  RunDir run = RunDir::create(folder.file("runs"), info_of("t"), "");
  write_file_atomic(folder.file("runs/ledger.sqlite"), std::string(5000, 'x'));
  testing::internal::CaptureStderr();
  set_log_quiet(false);
  {
    RunLog log(run);
    log.metrics(1, {{"loss", 1}});
    log.metrics(2, {{"loss", 2}});
    set_file_fault({.kind = FileFault::Kind::enospc, .at = 1, .sticky = true});
    try {
      log.metrics(3, {{"loss", 3}});
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Exit::resources);
    }
    clear_file_fault();
    log.metrics(4, {{"loss", 4}});
  }
  const std::string shown = testing::internal::GetCapturedStderr();
  EXPECT_EQ(shown.find("the ledger is no longer written"), shown.rfind("the ledger is no longer written")) << shown;
  EXPECT_NE(shown.find("the ledger is no longer written"), std::string::npos) << shown;
  EXPECT_EQ(read_metrics(run).rows.size(), 3u);
  EXPECT_EQ(read_metrics(run).skipped, 0);
}

}  // namespace
}  // namespace ponder
