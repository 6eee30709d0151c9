#include "ponder/base/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"

namespace ponder {
namespace {

TEST(Log, LinesGoToStderrAndToTheFile) {
  TempFolder folder;
  set_log_file(folder.file("log.jsonl"));
  testing::internal::CaptureStderr();
  log_info("step {}", 3);
  log_warn("low {}", "disk");
  set_log_quiet(true);
  log_info("unseen");
  log_error("seen");
  set_log_quiet(false);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 50; ++i) log_info("thread {} line {}", t, i);
    });
  for (std::thread& t : threads) t.join();
  const std::string shown = testing::internal::GetCapturedStderr();
  set_log_file("");
  log_info("after");
  if (!stderr_is_terminal()) {
    EXPECT_TRUE(shown.starts_with("step 3\nwarning: low disk\nerror: seen\nthread ")) << shown;
  }
  EXPECT_EQ(shown.find("unseen"), std::string::npos);
  int lines = 0;
  read_json_lines(folder.file("log.jsonl"), [&](Json& value, int) {
    if (lines == 1) {
      EXPECT_EQ(value["level"], "warn");
    }
    if (lines == 2) {
      EXPECT_EQ(value["text"], "unseen");
    }
    EXPECT_GT(value["time"].get<double>(), 1e9);
    ++lines;
  });
  EXPECT_EQ(lines, 204);
}

TEST(Log, ProgressLine) {
  EXPECT_EQ(Progress::format({.stage = "rl",
                              .state = {.step = 120, .total = 1000, .detail = "reward 0.5"},
                              .steps_per_s = 3.2,
                              .checkpoint_age_s = 32}),
            "rl  120/1,000  3.2 steps/s  4m 35s left  checkpoint 32.0 s ago  reward 0.5");
  EXPECT_EQ(Progress::format({.stage = "sft", .state = {.step = 5, .total = 0, .detail = ""}, .steps_per_s = 0.5}),
            "sft  5  2.0 s/step");
}

TEST(Log, Words) {
  EXPECT_EQ(format_duration(0.0123), "12 ms");
  EXPECT_EQ(format_duration(0.9999), "1.0 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.97), "1m 00s");
  EXPECT_EQ(format_duration(275), "4m 35s");
  EXPECT_EQ(format_duration(3599.6), "1h 00m");
  EXPECT_EQ(format_duration(2 * 86400 + 4 * 3600), "2d 04h");
  EXPECT_EQ(format_duration(NAN), "?");
  EXPECT_EQ(format_duration(1e300), "for ever");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.7), "1.00k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(1.5e6), "1.50M");
  EXPECT_EQ(format_count(671e9), "671G");
  EXPECT_EQ(format_count(3.14159), "3.14");
  EXPECT_EQ(format_count(-1500), "-1.50k");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(format_bytes(~uint64_t{0}), "16.0 EiB");
  EXPECT_EQ(format_grouped(0), "0");
  EXPECT_EQ(format_grouped(-1234567), "-1,234,567");
  EXPECT_EQ(format_grouped(123), "123");
  const double ramp[] = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(sparkline(ramp), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline(ramp, 2), "▁█");
  const double holes[] = {1, NAN, 1};
  EXPECT_EQ(sparkline(holes), "▄ ▄");
  EXPECT_EQ(sparkline({}), "");
}

}  // namespace
}  // namespace ponder
