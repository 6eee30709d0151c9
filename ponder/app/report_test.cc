#include "ponder/app/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ponder/app/svg.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/base/run_log.h"

namespace ponder::app {
namespace {

std::string item(int step, const char* problem, const char* completion, bool right) {
  return fmt::format(
      R"({{"step":{},"stage":"rl","kind":"sampled","doc_id":0,"doc":{{"text":"{}"}},"resps":["{}"],"right":[{}],"reason":["<b>x</b>"]}})",
      step, problem, completion, right);
}

TEST(Report, ShowsARunAndCanBeMadeAgain) {
  TempFolder folder;
  RunDir run = RunDir::create(folder.path(),
                              {.name = "a <run>",
                               .type = "pipeline",
                               .command = {"ponder", "pipeline", "r.toml"},
                               .version = "0",
                               .cpu = "ref"},
                              "seed = 1  # <default>\n");
  {
    RunLog log(run);
    log.event("machine", 0, {{"cpu", "ref"}, {"threads", "2"}, {"peak_flops", "1e11"}, {"price_per_hour", "3.6"}});
    log.event("stage", 0,
              {{"name", "base"},
               {"type", "pretrain"},
               {"index", "0"},
               {"steps", "3"},
               {"params", "1000"},
               {"active_params", "500"}});
    for (int step = 1; step <= 3; ++step)
      log.metrics(step,
                  {{"loss", 4.0 - step},
                   {"grad_norm", step == 2 ? std::nan("") : 1.0},
                   {"mtp/loss", 2.0},
                   {"stage", 0},
                   {"stage_step", double(step)}},
                  100 * step);
    log.event("stage_end", 3,
              {{"name", "base"},
               {"seconds", "10"},
               {"tokens", "300"},
               {"flops", "2e10"},
               {"planned_bytes", "1000000"},
               {"peak_bytes", "990000"}});
    log.event("stage", 4, {{"name", "rl"}, {"type", "rl"}, {"index", "1"}, {"steps", "2"}});
    for (int step = 0; step <= 2; ++step)
      log.metrics(4 + step,
                  {{"reward", 0.25 * step},
                   {"mode/search/share", 0.5},
                   {"mode/search/success", 0.5},
                   {"entropy", 0.1},
                   {"completions/mean_length", 40.0},
                   {"time/rollout", 1.0},
                   {"time/reward", 0.1},
                   {"time/train", 2.0},
                   {"eval/countdown/accuracy", 0.3 + 0.1 * step},
                   {"eval/countdown/accuracy_stderr", 0.03},
                   {"eval/countdown/pass@1", 0.3},
                   {"eval/countdown/pass@8", 0.8},
                   {"stage", 1},
                   {"stage_step", double(step)}},
                  1000);
    log.eval_item("countdown", "20250101-000000", item(4, "9 8 7 -> 10", "( 9 - 8 ) + 7 <end>", false));
    log.eval_item("countdown", "20250101-000100",
                  item(6, "9 8 7 -> 10", "<think> 9 - 7 = 2 8 + 2 = 10 yes </think> 8 + ( 9 - 7 ) <end>", true));
  }
  const std::string path = write_report(run), html = read_file(path), markdown = read_file(run.file("report.md"));
  EXPECT_EQ(path, run.file("report.html"));
  for (const char* text :
       {"a &lt;run&gt;", "Right answers", "pass@k", "Loss (nats per token)", "0.30 → 0.50", "9 8 7 -&gt; 10",
        "class=\"yes\"", "0.0100", "seed = 1  # &lt;default&gt;", "&lt;b&gt;x&lt;/b&gt;", "unfinished"})
    EXPECT_NE(html.find(text), std::string::npos) << text;
  EXPECT_EQ(html.find("<b>x</b>"), std::string::npos) << "what a model or a file says is not markup";
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos) << "self-contained";
  EXPECT_NE(markdown.find("| accuracy, T = 1 | 0.300 ± 0.030 | 0.500 ± 0.030 | +0.200 |"), std::string::npos)
      << markdown;
  EXPECT_NE(markdown.find("before"), std::string::npos);
  EXPECT_TRUE(path_exists(run.file("curves.svg")));
  write_report(run);
  EXPECT_EQ(read_file(path), html);
}

TEST(Report, AnEmptyRunHasAReportToo) {
  TempFolder folder;
  const RunDir run = RunDir::create(folder.path(), {.name = "empty", .type = "rl", .command = {}}, "");
  EXPECT_NE(read_file(write_report(run)).find("empty"), std::string::npos);
}

TEST(Svg, RoundTicks) {
  EXPECT_EQ(round_ticks(0, 1, 5), (std::vector<double>{0, 0.2, 0.4, 0.6, 0.8, 1}));
  EXPECT_EQ(round_ticks(-3, 7, 5), (std::vector<double>{-2, 0, 2, 4, 6}));
  EXPECT_EQ(round_ticks(0, 40, 6), (std::vector<double>{0, 10, 20, 30, 40}));
  EXPECT_TRUE(round_ticks(1, 1, 5).empty());
  EXPECT_TRUE(round_ticks(0, INFINITY, 5).empty());
}

TEST(Svg, BreaksAtWhatIsNotFinite) {
  const double nan = std::nan("");
  const std::string svg =
      chart_svg({.title = "<t>", .series = {{.name = "a", .x = {0, 1, 2, 3, 4}, .y = {1, 2, nan, 2, 1}}}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  const size_t path = svg.find("<path d=\"M");
  ASSERT_NE(path, std::string::npos);
  EXPECT_NE(svg.find('M', path + 12), std::string::npos) << "a second stroke";
  EXPECT_NE(svg.find("&lt;t&gt;"), std::string::npos);
  EXPECT_EQ(chart_svg({.title = "t", .series = {{.name = "a", .x = {0}, .y = {nan}}}}), "");
  EXPECT_EQ(chart_svg({.title = "t", .series = {}}), "");
}

TEST(Svg, OneAndManyPoints) {
  EXPECT_NE(chart_svg({.title = "t", .series = {{.name = "a", .x = {0}, .y = {0}, .dots = true}}}).find("<circle"),
            std::string::npos);
  Series many{.name = "a", .x = {}, .y = {}};
  for (int i = 0; i < 100'000; ++i) many.x.push_back(i), many.y.push_back(i % 7);
  EXPECT_LT(chart_svg({.title = "t", .series = {many}}).size(), 20'000u);
}

}  // namespace
}  // namespace ponder::app
