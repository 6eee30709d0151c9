#include "ponder/train/schedule.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ponder/base/config.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "tests/shared.h"

namespace ponder::train {
namespace {

using nlohmann::json;

TEST(Schedule, Golden) {
  const std::string path = test::shared_folder() / "golden/rl/schedules.jsonl";
  PONDER_NEED_SHARED(path);
  std::istringstream in(read_file(path));
  int lines = 0;
  for (std::string text; std::getline(in, text); ++lines) {
    const json line = json::parse(text);
    SCOPED_TRACE(line["name"].get<std::string>());
    Recipe recipe;
    std::string type = line["lr_scheduler_type"];
    if (type == "cosine_warmup_with_min_lr") {  // ours: a cosine that comes one step earlier
      type = "cosine";
      recipe.set("warmup_offset=1");
    }
    recipe.set(fmt::format("lr_scheduler_type={}", type));
    recipe.set(fmt::format("warmup_steps={}", line["num_warmup_steps"].dump()));
    for (const auto& [key, value] : line["kwargs"].items())
      recipe.set(key + "=" + (value.is_string() ? value.get<std::string>() : value.dump()));
    ScheduleConfig config;
    recipe.bind(config);
    const Schedule schedule(config, line["num_training_steps"]);
    const auto& factors = line["factors"];
    for (size_t k = 0; k < factors.size(); ++k)
      EXPECT_NEAR(schedule.factor(static_cast<int64_t>(k)), factors[k].get<double>(), 1e-12) << k;
  }
  EXPECT_GT(lines, 0);
}

TEST(Schedule, WarmupRatioOffsetAndErrors) {
  ScheduleConfig c;
  c.learning_rate = 2;
  c.warmup_ratio = 0.1;
  EXPECT_EQ(Schedule(c, 100).rate(0), 0);
  EXPECT_EQ(Schedule(c, 100).rate(5), 1);
  EXPECT_EQ(Schedule(c, 95).factor(9), 0.9);  // ceil(9.5) steps
  EXPECT_THROW(Schedule(c, 0), Error);
  c.warmup_offset = 1;
  EXPECT_EQ(Schedule(c, 100).factor(0), 0.1);
  EXPECT_EQ(Schedule(c, 100).factor(9), 1);
  c.lr_scheduler_type = "linear";
  c.min_lr_ratio = 0.25;
  EXPECT_EQ(Schedule(c, 100).factor(99), 0.25);
  c.lr_scheduler_type = "wsd";
  c.num_decay_steps = 91;
  EXPECT_THROW(Schedule(c, 100), Error);
  EXPECT_EQ(Schedule({.learning_rate = 3}, 0).rate(7), 3);
}

}  // namespace
}  // namespace ponder::train
