// Training that meets numbers which are not finite, from the command line to the files of the run: a single such step is
// skipped and counted, three in a row end the run with the last checkpoint as it was.
#include <gtest/gtest.h>

#include <cmath>

#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/base/file.h"
#include "ponder/base/run_dir.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::app {
namespace {

constexpr const char* kModel = R"(
[run]
seed = 7
[model]
model_type = "llama"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
tie_word_embeddings = false
max_position_embeddings = 256
)";

constexpr const char* kGood = R"(
[task]
name = "countdown"
numbers_to = 9
[eval]
problems = 0
eval_on_start = false
[[stage]]
name = "good"
type = "pretrain"
tokens = 2000
batch_tokens = 400
learning_rate = 1e-3
)";

// The first update is that of a finite gradient; what it leaves overflows from then on.
constexpr const char* kBadPretrain = R"(
[[stage]]
name = "bad"
type = "pretrain"
tokens = 8000
batch_tokens = 400
learning_rate = 1e38
)";
constexpr const char* kBadRl = R"(
[[stage]]
name = "bad"
type = "rl"
max_steps = 8
num_prompts_per_step = 3
num_generations = 4
max_completion_length = 40
learning_rate = 1e38
[[stage.reward]]
name = "random"
)";

class BrokenNumbersTest : public testing::Test {
 protected:
  // As main() does it; what it says on stderr is in `said`.
  int ponder(std::vector<std::string> words) {
    std::vector<char*> argv;
    words.insert(words.begin(), "ponder");
    for (std::string& w : words) argv.push_back(w.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    testing::internal::GetCapturedStdout();
    said = testing::internal::GetCapturedStderr();
    return code;
  }
  // Runs a recipe, whose run (there must be one) is then `run`.
  int train(const std::string& recipe, const std::string& runs) {
    const std::string file = folder.file("recipe.toml"), root = folder.file(runs);
    write_file_atomic(file, recipe);
    const int code = ponder({"pipeline", file, "--output-dir", root});
    const std::vector<RunDir> list = RunDir::list(root);
    EXPECT_EQ(list.size(), 1u) << said;
    run = list.empty() ? "" : list[0].path();
    metrics = parse_metrics(read_file(join_path(run, "metrics.jsonl"))).rows;
    return code;
  }
  std::string latest() const { return join_path(run, read_pointer(join_path(run, "LATEST")).value_or("none")); }
  double value(size_t row, const char* name) const {
    return get(metrics.at(row).values, name);
  }  // NaN: null, or absent
  int count(const std::string& what) const {
    int n = 0;
    for (size_t at = said.find(what); at != said.npos; at = said.find(what, at + 1)) ++n;
    return n;
  }

  TempFolder folder;
  std::string said, run;
  std::vector<MetricsRow> metrics;
};

class ThreeBrokenSteps : public BrokenNumbersTest, public testing::WithParamInterface<const char*> {};

TEST_P(ThreeBrokenSteps, EndTheRunAndLeaveTheCheckpoint) {
  // What the good stage leaves where nothing follows it.
  ASSERT_EQ(train(std::string(kModel) + kGood, "good"), 0) << said;
  const std::string good = latest();
  const size_t good_rows = metrics.size();

  EXPECT_EQ(train(std::string(kModel) + kGood + GetParam(), "bad"), 1) << said;
  for (const char* line :
       {"bad 2: the gradient of embed is not finite; the step was skipped (1 so far)",
        "bad 3: the gradient of embed is not finite; the step was skipped (2 so far)",
        "error: bad: three steps in a row with numbers that are not finite (step 4, the gradient of embed)"})
    EXPECT_EQ(count(line), 1) << line << "\n" << said;
  EXPECT_EQ(count(run), 2) << "it names the run's folder at its beginning and at its end: " << said;

  ASSERT_EQ(metrics.size(), good_rows + 4) << "one good step, three bad ones";
  EXPECT_TRUE(std::isfinite(value(good_rows, "grad_norm")));
  EXPECT_TRUE(std::isnan(value(good_rows, "skipped_steps")));
  for (size_t i = 1; i <= 3; ++i) {
    EXPECT_TRUE(std::isnan(value(good_rows + i, "grad_norm")));
    EXPECT_EQ(value(good_rows + i, "skipped_steps"), static_cast<double>(i));
  }

  EXPECT_EQ(base_name(latest()), base_name(good));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(read_file(join_path(latest(), file)) == read_file(join_path(good, file))) << file;
  EXPECT_EQ(ponder({"model", "verify", run}), 0) << said;
  EXPECT_EQ(ponder({"generate", run, "3 7 1 -> 10", "--max-tokens", "4"}), 0) << said;
}

INSTANTIATE_TEST_SUITE_P(Training, ThreeBrokenSteps, testing::Values(kBadPretrain, kBadRl),
                         [](const auto& info) { return info.index == 0 ? "Pretrain" : "Rl"; });

// A token whose embedding is NaN, in one of forty texts: the batch with that text is left out, all others count.
TEST_F(BrokenNumbersTest, OneBrokenStepIsSkippedAndCounted) {
  const std::string texts = folder.file("texts.jsonl"), start = folder.file("start");
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines += fmt::format("{{\"text\": \"{} times three is {}{}\"}}\n", i, 3 * i, i == 17 ? " ~" : "");
  write_file_atomic(texts, lines);
  const std::string data = fmt::format("[data]\nfiles = [\"{}\"]\nheld_out_texts = 0.0\n", texts);
  const std::string stage = R"(
[[stage]]
name = "texts"
type = "pretrain"
num_train_epochs = 1
batch_tokens = 120
learning_rate = 1e-3
logging_steps = 1
)";
  write_file_atomic(folder.file("shape.toml"), kModel + data + stage);
  ASSERT_EQ(ponder({"model", "init", folder.file("shape.toml"), start, "--random"}), 0) << said;
  {
    const auto model = model::load_model(start, {});
    Tensor embed = model->params().list().front().value;
    for (int64_t i = 0; i < embed.cols(); ++i) embed.row('~')[i] = std::nanf("");
    model::save_model(*model, start);
  }

  ASSERT_EQ(train(fmt::format("[run]\nseed = 7\n[model]\npath = \"{}\"\n", start) + data + stage, "runs"), 0) << said;
  EXPECT_EQ(count("is not finite; the step was skipped"), 1) << said;
  EXPECT_EQ(count("the gradient of embed is not finite; the step was skipped (1 so far)"), 1) << said;

  ASSERT_GE(metrics.size(), 5u);
  size_t broken = 0, at = 0;
  for (size_t i = 0; i < metrics.size(); ++i)
    if (std::isnan(value(i, "loss"))) ++broken, at = i;
  EXPECT_EQ(broken, 1u);
  for (size_t i = at; i < metrics.size(); ++i) EXPECT_EQ(value(i, "skipped_steps"), 1) << "row " << i;
  ASSERT_LT(at + 1, metrics.size()) << "the run goes on behind it";

  const Checkpoint state = Checkpoint::open(join_path(latest(), "optimizer.safetensors"));
  int64_t updates = 0;
  read_i64(state.at("adam.step"), &updates);
  EXPECT_EQ(updates, static_cast<int64_t>(metrics.size()) - 1);
  const auto model = model::load_model(latest(), {});
  const auto before = model::load_model(start, {});
  bool first = true;
  for (const ops::Param& p : model->params().list()) {
    int64_t not_finite = 0;
    for (int64_t i = 0; i < p.value.size(); ++i) not_finite += !std::isfinite(p.value.f32()[i]);
    EXPECT_EQ(not_finite, first ? p.value.cols() : 0) << p.name << ": only what was NaN before";
    first = false;
  }
}

}  // namespace
}  // namespace ponder::app
