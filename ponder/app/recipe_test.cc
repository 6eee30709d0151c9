#include "ponder/app/recipe.h"

#include <gtest/gtest.h>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder::app {
namespace {

class RecipeTest : public testing::Test {
 protected:
  Plan load(const std::string& text, const std::string& type = "", const std::vector<std::string>& sets = {}) {
    write_file_atomic(folder_.file("r.toml"), text);
    return load_plan(folder_.file("r.toml"), type, sets);
  }
  std::string error(const std::string& text, const std::string& type = "", Exit code = Exit::data) {
    try {
      load(text, type);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    return "";
  }
  TempFolder folder_;
};

TEST_F(RecipeTest, ShippedRecipesAreFine) {
  int count = 0;
  for (const std::string& path : glob_files("recipes/*.toml")) {
    SCOPED_TRACE(path);
    Plan plan = load_plan(path, "", {});
    EXPECT_TRUE(plan.notes.empty());
    for (StageRecipe& s : plan.stage) {
      if (s.on_text() || !s.model.path.empty()) continue;
      const auto task = tasks::make_task(s.task);
      model::ModelConfig config = s.model.config;
      if (config.vocab_size == 0) config.vocab_size = task->tokenizer().vocab_size();
      model::validate(config);
      EXPECT_LE(task->max_text_tokens(), config.max_position_embeddings);
      EXPECT_LE(s.max_completion_length() + 7, config.max_position_embeddings);
    }
    // What a run stores binds to the same plan.
    write_file_atomic(folder_.file("stored.toml"), plan.toml());
    Plan stored = load_plan(folder_.file("stored.toml"), "", {});
    EXPECT_EQ(stored.hash(), plan.hash());
    EXPECT_TRUE(config_diff(stored.values(), plan.values()).empty());
    ++count;
  }
  EXPECT_GE(count, 8) << "run from the root of the project";
}

TEST_F(RecipeTest, DefaultsDifferByType) {
  const Plan rl = load("max_steps = 3\n", "rl"), pretrain = load("", "pretrain");
  EXPECT_EQ(rl.stage[0].optim.schedule.learning_rate, 1e-6);
  EXPECT_EQ(rl.stage[0].optim.schedule.lr_scheduler_type, "constant");
  EXPECT_EQ(rl.stage[0].optim.adamw.weight_decay, 0);
  EXPECT_EQ(rl.stage[0].optim.adamw.adam_beta2, 0.999);
  EXPECT_EQ(pretrain.stage[0].optim.schedule.learning_rate, 3e-4);
  EXPECT_EQ(pretrain.stage[0].optim.schedule.lr_scheduler_type, "cosine");
  EXPECT_EQ(pretrain.stage[0].optim.adamw.weight_decay, 0.1);
  EXPECT_EQ(pretrain.stage[0].optim.adamw.adam_beta2, 0.95);
}

constexpr const char* kTwo = R"(
learning_rate = 0.5
[[stage]]
name = "base"
type = "pretrain"
tokens = 1000
[[stage]]
name = "rl"
type = "rl"
max_steps = 4
learning_rate = 0.25
[[stage.reward]]
name = "random"
)";

TEST_F(RecipeTest, StagesOverrideTheTop) {
  const Plan plan = load(kTwo, "", {"seed=9", "stage.rl.max_steps=6", "stage.base.learning_rate=0.125"});
  ASSERT_EQ(plan.stage.size(), 2u);
  EXPECT_TRUE(plan.pipeline);
  EXPECT_EQ(plan.name, "r");
  EXPECT_EQ(plan.stage[0].name, "base");
  EXPECT_EQ(plan.stage[1].name, "rl");
  EXPECT_EQ(plan.stage[0].optim.schedule.learning_rate, 0.125);
  EXPECT_EQ(plan.stage[1].optim.schedule.learning_rate, 0.25);
  EXPECT_EQ(plan.stage[1].run.max_steps, 6);
  EXPECT_EQ(plan.stage[0].run.seed, 9u);
  EXPECT_EQ(plan.stage[1].run.seed, 9u);
  ASSERT_EQ(plan.stage[1].reward.size(), 1u);
  EXPECT_EQ(plan.stage[1].reward[0].name, "random");
  EXPECT_EQ(plan.origins.at("stage.1.run.max_steps").source, "--set");
}

TEST_F(RecipeTest, TheHashIsOfTheWork) {
  const std::string hash = load(kTwo).hash();
  EXPECT_EQ(load(kTwo, "", {"output_dir=elsewhere", "threads=7", "logging_steps=3", "price_per_hour=1"}).hash(), hash);
  EXPECT_NE(load(kTwo, "", {"seed=1"}).hash(), hash);
  EXPECT_NE(load(kTwo, "", {"stage.rl.learning_rate=0.3"}).hash(), hash);
  EXPECT_NE(load(kTwo, "", {"run_name=other"}).hash(), hash);
}

TEST_F(RecipeTest, RewardsByName) {
  const Plan plan = load("max_steps = 3\nreward_funcs = [\"accuracy\", \"format\"]\n", "rl");
  ASSERT_EQ(plan.stage[0].reward.size(), 2u);
  EXPECT_EQ(plan.stage[0].reward[1].name, "format");
  EXPECT_NE(error("max_steps = 1\nreward_funcs = [\"acuracy\"]\n", "rl").find("accuracy"), std::string::npos);
  EXPECT_NE(
      error("max_steps = 1\nreward_funcs = [\"accuracy\"]\n[[reward]]\nname = \"format\"\n", "rl").find("take one"),
      std::string::npos);
}

TEST_F(RecipeTest, AnswersOfAnEvaluation) {
  const auto samples = [&](const char* more) {
    return load(std::string("max_steps = 3\nnum_generations = 6\n") + more, "rl").stage[0].eval.samples;
  };
  EXPECT_EQ(samples(""), 6);
  EXPECT_EQ(samples("[eval]\nsamples = 2\n"), 2);
  EXPECT_EQ(samples("num_generations_eval = 3\n"), 3);
  EXPECT_EQ(load("", "pretrain").stage[0].eval.samples, 1);
}

TEST_F(RecipeTest, MistakesAreNamed) {
  EXPECT_NE(error("max_steps = 1\nmtp_loss_weight = 0.3\n", "rl").find("MTP"), std::string::npos);
  EXPECT_NE(error(kTwo, "rl").find("ponder"), std::string::npos);
  EXPECT_NE(error("[[stage]]\ntype = \"retrain\"\n").find("did you mean pretrain"), std::string::npos);
  EXPECT_NE(error("[[stage]]\nname = \"x\"\n").find("needs a type"), std::string::npos);
  EXPECT_NE(error("max_steps = 1\n[rl]\nnum_generation = 3\n", "rl").find("num_generations"), std::string::npos);
  EXPECT_NE(error("", "rl").find("max_steps"), std::string::npos);
  EXPECT_NE(error("packing = true\n", "pretrain").find("document_mask"), std::string::npos);
  EXPECT_NE(error("max_steps = 1\nnum_generations = 1\n", "rl").find("at least 2"), std::string::npos);
  EXPECT_NE(error("[[stage]]\ntype = \"eval\"\n[[stage]]\ntype = \"eval\"\n").find("two stages"), std::string::npos);
  EXPECT_NE(error("type = \"pretrain\"\n", "rl").find("ponder pretrain"), std::string::npos);
}

}  // namespace
}  // namespace ponder::app
