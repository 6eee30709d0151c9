// Evaluations as runs make them: when, of what, and what stands in the files.
#include <gtest/gtest.h>

#include <set>

#include "ponder/app/options.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/run_dir.h"

namespace ponder::app {
namespace {

constexpr const char* kModel = R"(
[model]
model_type = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 1
num_key_value_heads = 1
max_position_embeddings = 256
[task]
name = "countdown"
numbers_to = 12
[eval]
problems = 2
samples = 1
eval_on_start = false
)";

class EvaluationTest : public testing::Test {
 protected:
  // The run of a recipe.
  RunDir run(const std::string& recipe) {
    const std::string file = folder_.file("recipe.toml"), root = folder_.file("runs");
    write_file_atomic(file, recipe);
    std::vector<std::string> words = {"ponder", "pipeline", file, "--output-dir", root, "--quiet"};
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    testing::internal::CaptureStdout();
    EXPECT_EQ(run_program(static_cast<int>(argv.size()), argv.data()), 0);
    testing::internal::GetCapturedStdout();
    const std::vector<RunDir> runs = RunDir::list(root);
    EXPECT_EQ(runs.size(), 1u);
    return runs.at(0);
  }
  TempFolder folder_;
};

// Where a rollout serves several steps, nothing can be saved between them: what is evaluated can be BEST only elsewhere.
TEST_F(EvaluationTest, IsOfWhatCanBeSaved) {
  const RunDir dir = run(std::string(kModel) + R"(
[[stage]]
type = "rl"
max_steps = 10
eval_steps = 3
num_prompts_per_step = 1
num_generations = 2
steps_per_generation = 4
max_completion_length = 20
learning_rate = 1e-3
[[stage.reward]]
name = "random"
)");
  std::set<int64_t> evaluated;
  for (const MetricsRow& row : parse_metrics(read_file(dir.file("metrics.jsonl"))).rows)
    for (const auto& [name, value] : row.values)
      if (name == "eval/countdown/accuracy") evaluated.insert(row.step);
  EXPECT_EQ(evaluated, (std::set<int64_t>{4, 8, 10}));
}

TEST_F(EvaluationTest, OfAStageOfItsOwn) {
  const std::string puzzles = folder_.file("puzzles.jsonl");
  write_file_atomic(puzzles, R"({"nums":[3,7,12],"target":33,"text":"hello","id":null,"numbers":[1,2]})"
                             "\n");
  const RunDir dir = run(std::string(kModel) + R"(
[[stage]]
name = "base"
type = "pretrain"
tokens = 2000
batch_tokens = 400
[[stage]]
name = "look"
type = "eval"
max_completion_length = 20
eval_puzzles = ")" + puzzles +
                         "\"\n");
  // Columns of the user's file may be called like ours.
  const std::vector<EvalItem> items = dir.eval_items();
  ASSERT_FALSE(items.empty());
  const Json last = parse_json(items.back().json, "items");
  EXPECT_EQ(last["doc"]["columns"]["text"], "hello");
  EXPECT_NE(last["doc"]["text"], "hello");
  // The stage has its bill.
  double seconds = 0;
  for (const RunEvent& e : parse_metrics(read_file(dir.file("metrics.jsonl"))).events)
    if (const Json json = parse_json(e.json, "event"); e.kind == "stage_end" && json["name"] == "look")
      seconds = std::stod(json["seconds"].get<std::string>());
  EXPECT_GT(seconds, 0);
}

}  // namespace
}  // namespace ponder::app
