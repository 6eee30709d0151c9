#include "ponder/app/model_source.h"

#include "ponder/app/machine.h"

#include <gtest/gtest.h>

#include "ponder/app/answers.h"
#include "ponder/app/conversation.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/base/run_dir.h"
#include "ponder/model/weights.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

class ModelSourceTest : public testing::Test {
 protected:
  Machine machine_{1};
  ModelSourceTest() {
    set_log_quiet(true);
    config_.model_type = "llama";
    config_.vocab_size = task_->tokenizer().vocab_size();
    config_.hidden_size = 16, config_.intermediate_size = 16, config_.num_hidden_layers = 1;
    config_.num_attention_heads = config_.num_key_value_heads = 1;
    model_ = std::make_unique<model::Model>(config_, model::ModelOptions{});
    model_->params().initialize(1);
  }
  std::string save(int64_t step, bool best = false) {
    return store_.save({.model = *model_,
                        .optimizer = {},
                        .state = {.step = step, .stage = "rl", .recipe_hash = "", .version = ""},
                        .add_files = [&](const std::string& folder) { tasks::save_task(*task_, folder); }},
                       {.best = best, .stage_end = step == 1});
  }
  static std::string error(const std::string& name) {
    try {
      resolve_model(name);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Exit::data) << e.what();
      return e.what();
    }
    return "";
  }

  TempFolder folder_;
  std::unique_ptr<tasks::Task> task_ = tasks::make_task({});
  model::ModelConfig config_;
  std::unique_ptr<model::Model> model_;
  RunDir run_ = RunDir::create(folder_.path(), {.name = "r", .type = "rl", .command = {}}, "");
  train::CheckpointStore store_{run_.path(), 3};
};

TEST_F(ModelSourceTest, FindsWhatIsMeant) {
  const std::string first = save(1), second = save(2), third = save(3);
  EXPECT_EQ(resolve_model(run_.path()), third);
  EXPECT_EQ(resolve_model(run_.path() + "/"), third);
  const std::string best = save(4, true), fifth = save(5);
  EXPECT_EQ(resolve_model(run_.path()), best);
  EXPECT_EQ(resolve_model(run_.file("checkpoints")), best);
  EXPECT_EQ(resolve_model(fifth), fifth);
  EXPECT_EQ(resolve_model(run_.file("stages/rl")), first) << "stages/NAME names the stage's last checkpoint";
  EXPECT_EQ(resolve_run(run_.id(), folder_.path()), run_.path());
  EXPECT_EQ(resolve_run("r-", folder_.path()), run_.path());

  const LoadedModel loaded = load_any_model(run_.path(), machine_);
  ASSERT_TRUE(loaded.task);
  EXPECT_EQ(loaded.tokenizer->vocab_size(), config_.vocab_size);
  EXPECT_EQ(make_prompt(loaded, "3 7 12 -> 33", false).ids.size(), 5u);
  EXPECT_THROW(make_prompt(loaded, "3 3 12 -> 33", false), Error);

  // A damaged best one gives way to the latest; a damaged one that was asked for does not.
  write_file_atomic(join_path(best, "config.json"), "{}");
  EXPECT_EQ(resolve_model(run_.path()), fifth);
  EXPECT_NE(error(best), "");
}

TEST_F(ModelSourceTest, SaysWhatIsMissing) {
  EXPECT_NE(error(run_.path()).find("has not written a checkpoint"), std::string::npos);
  EXPECT_NE(error(folder_.file("nowhere")).find("no such model"), std::string::npos);
  EXPECT_NE(error("x.gguf").find("no such file"), std::string::npos);
  write_file_atomic(folder_.file("file"), "x");
  EXPECT_NE(error(folder_.file("file")).find("is a file"), std::string::npos);
  write_file_atomic(run_.file("LATEST"), "../../etc\n");
  EXPECT_NE(error(run_.path()).find("leads out"), std::string::npos);
}

TEST_F(ModelSourceTest, AnswersAsText) {
  save(1);
  const LoadedModel loaded = load_any_model(run_.path(), machine_);
  const auto& t = *loaded.tokenizer;
  const auto prompt = make_prompt(loaded, "3 7 12 -> 33", false).ids;
  AnswerText text(t, prompt);
  std::string thinking, content;
  const auto take = [&](const std::vector<AnswerText::Delta>& deltas) {
    for (const auto& d : deltas) (d.part == text::ThinkSplitter::State::reasoning ? thinking : content) += d.text;
  };
  for (const int32_t id : t.encode("<think> 7 * 3 = 21 yes </think> ( 7 * 3 ) + 12 <end>")) take(text.push(id));
  take(text.finish());
  EXPECT_EQ(thinking, "7 * 3 = 21 yes");
  EXPECT_EQ(content, "( 7 * 3 ) + 12");
}

}  // namespace
}  // namespace ponder::app
