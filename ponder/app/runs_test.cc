// runs and model commands on a run made by hand and on a tiny model.
#include <gtest/gtest.h>

#include <cmath>

#include "ponder/app/commands.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/ledger.h"
#include "ponder/base/log.h"
#include "ponder/base/run_log.h"
#include "ponder/model/weights.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

// What a command prints on stdout; its exit code in `code`.
std::string output(std::vector<std::string> words, int* code = nullptr) {
  testing::internal::CaptureStdout();
  int result = -1;
  try {
    const Arguments args = parse_arguments(words);
    result = args.command->run(args);
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  std::fflush(stdout);
  if (code) *code = result;
  return testing::internal::GetCapturedStdout();
}

Exit error_of(const std::vector<std::string>& words, std::string* message = nullptr) {
  try {
    output(words);
  } catch (const Error& e) {
    if (message) *message = e.what();
    return e.code();
  }
  return Exit::ok;
}

class RunsTest : public testing::Test {
 protected:
  void SetUp() override { set_log_quiet(true); }
  void TearDown() override { set_log_quiet(false); }

  RunDir add_run(const std::string& name, double learning_rate, double accuracy, bool finish) {
    RunDir dir = RunDir::create(
        root_,
        {.name = name,
         .type = "rl",
         .command = {"ponder", "rl", "my recipe.toml"},
         .version = "0",
         .cpu = "ref",
         .recipe_hash = name},
        fmt::format("[optim]\nlearning_rate = {}  # recipe a.toml:3\nweight_decay = 0.1  # default\n", learning_rate));
    RunLog log(dir);
    log.event("stage", 0, {{"name", "rl"}, {"type", "rl"}, {"index", "0"}, {"steps", "4"}});
    log.metrics(
        0,
        {{"eval/countdown/accuracy", 0.25}, {"eval/countdown/greedy/accuracy", 0.5}, {"stage", 0}, {"stage_step", 0}});
    log.metrics(1, {{"reward", 0.5}, {"loss", std::nan("")}, {"stage", 0}, {"stage_step", 1}}, 100);
    log.metrics(
        2, {{"reward", 0.75}, {"loss", 0.125}, {"eval/countdown/accuracy", accuracy}, {"stage", 0}, {"stage_step", 2}},
        200);
    if (finish) log.finish("done");
    return dir;
  }
  std::string in(const char* command, const std::string& more = "") {
    std::vector<std::string> words = {"runs", command};
    if (!more.empty()) words.push_back(more);
    words.insert(words.end(), {"--output-dir", root_});
    return output(words);
  }

  TempFolder folder_;
  std::string root_ = folder_.file("runs");
};

TEST_F(RunsTest, ListsRunsWithTheirStatus) {
  const RunDir done = add_run("done", 0.1, 0.5, true), broken = add_run("broken", 0.1, 0.4, false);
  RunDir now = add_run("now", 0.1, 0.3, false);
  const FileLock lock = now.lock();
  const Json json = parse_json(output({"runs", "list", "--json", "--output-dir", root_}), "list");
  ASSERT_EQ(json.size(), 3u);
  for (const Json& run : json) {
    const std::string name = run["name"];
    EXPECT_EQ(run["status"], name == "done" ? "finished" : name == "now" ? "running" : "interrupted");
    EXPECT_EQ(run["step"], 2);
    EXPECT_EQ(run["stage"], "rl 2/4");
    EXPECT_EQ(run["reward"], 0.75);
    EXPECT_EQ(run["best_accuracy"], name == "done" ? 0.5 : name == "now" ? 0.3 : 0.4);
  }
  const std::string text = in("list");
  EXPECT_NE(text.find(broken.id()), text.npos);
  EXPECT_NE(text.find("reward 0.750"), text.npos);
}

TEST_F(RunsTest, ShowsWhatARunDid) {
  const RunDir run = add_run("one", 0.25, 0.5, false);
  const std::string text = in("show", "one");
  EXPECT_NE(text.find("learning_rate = 0.25"), text.npos) << text;
  EXPECT_EQ(text.find("weight_decay"), text.npos) << "a default";
  EXPECT_NE(text.find("ponder rl 'my recipe.toml'"), text.npos) << "the line that resumes it";
  const Json json = parse_json(output({"runs", "show", run.path(), "--json"}), "show");
  EXPECT_EQ(json["stages"][0]["done"], 2);
  ASSERT_EQ(json["evaluations"].size(), 2u);
  EXPECT_EQ(json["evaluations"][0]["metrics"]["greedy/accuracy"], 0.5);
  EXPECT_EQ(json["metrics"]["loss"], 0.125);
  EXPECT_EQ(json["recipe"]["optim.learning_rate"], "0.25");
  EXPECT_EQ(error_of({"runs", "show", "nobody", "--output-dir", root_}), Exit::data);
}

TEST_F(RunsTest, ComparesRecipesAndResults) {
  const RunDir a = add_run("a", 0.1, 0.5, true), b = add_run("b", 0.2, 0.75, true);
  const Json json = parse_json(output({"runs", "compare", a.path(), b.path(), "--json"}), "compare");
  EXPECT_EQ(json["recipe"].size(), 1u) << json["recipe"].dump();
  EXPECT_EQ(json["recipe"]["optim.learning_rate"], Json({"0.1", "0.2"}));
  EXPECT_EQ(json["evaluations"]["eval/countdown/accuracy"][1]["values"], Json({0.5, 0.75}));
  EXPECT_EQ(json["metrics"]["reward"], Json({0.75, 0.75}));
  EXPECT_NE(output({"runs", "compare", a.path(), b.path()}).find("optim.learning_rate"), std::string::npos);
  EXPECT_EQ(error_of({"runs", "compare", a.path()}), Exit::usage);
}

TEST_F(RunsTest, TailsAndExports) {
  const RunDir run = add_run("one", 0.1, 0.5, true);
  const std::string tail = output({"runs", "tail", run.path(), "--n", "1"});
  EXPECT_NE(tail.find("reward 0.75"), tail.npos);
  EXPECT_EQ(std::count(tail.begin(), tail.end(), '\n'), 1);

  const std::string csv = output({"runs", "export", run.path()});
  EXPECT_TRUE(csv.starts_with("step,attempt,time,wall_s,tokens,eval/countdown/accuracy,")) << csv;
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
  EXPECT_NE(csv.find(",nan"), csv.npos);
  const std::string lines = output({"runs", "export", run.path(), "--format", "jsonl"});
  const MetricsLog again = parse_metrics(lines);
  ASSERT_EQ(again.rows.size(), 3u);
  EXPECT_EQ(again.rows[2].tokens, 200);
  EXPECT_EQ(error_of({"runs", "export", run.path(), "--format", "xml"}), Exit::usage);
}

TEST_F(RunsTest, ReindexesAndDeletes) {
  const RunDir kept = add_run("kept", 0.1, 0.5, true), gone = add_run("gone", 0.1, 0.5, true);
  remove_file(join_path(root_, "ledger.sqlite"));
  in("reindex");
  EXPECT_EQ(Ledger(join_path(root_, "ledger.sqlite")).runs().size(), 2u);
  EXPECT_EQ(error_of({"runs", "rm", "gone", "--yes", "--output-dir", root_}), Exit::usage)
      << "the beginning of a name is not enough";
  const RunDir running = add_run("running", 0.1, 0.5, false);
  {
    const FileLock lock = running.lock();
    EXPECT_EQ(error_of({"runs", "rm", running.id(), "--yes", "--output-dir", root_}), Exit::failure);
  }
  EXPECT_EQ(error_of({"runs", "rm", gone.id(), "--yes", "--output-dir", root_}), Exit::ok);
  EXPECT_FALSE(path_exists(gone.path()));
  EXPECT_TRUE(path_exists(kept.path()));
  EXPECT_TRUE(path_exists(running.path()));
  EXPECT_EQ(Ledger(join_path(root_, "ledger.sqlite")).runs().size(), 2u);
}

class ModelCommandsTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_quiet(true);
    write_file_atomic(
        recipe_,
        "[model]\nmodel_type = \"llama\"\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 1\n"
        "num_attention_heads = 2\nnum_key_value_heads = 1\n[task]\nname = \"countdown\"\nnumbers_to = 9\n");
  }
  void TearDown() override { set_log_quiet(false); }
  void flip(const std::string& path, size_t at) {
    std::string bytes = read_file(path);
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    write_file_atomic(path, bytes);
  }

  TempFolder folder_;
  std::string recipe_ = folder_.file("tiny.toml"), model_ = folder_.file("model");
};

TEST_F(ModelCommandsTest, InitShowVerify) {
  output({"model", "init", recipe_, model_, "--seed", "7"});
  for (const char* file : {"config.json", "model.safetensors", "task.toml", "tokenizer.json"})
    EXPECT_TRUE(path_exists(join_path(model_, file))) << file;
  const Json json = parse_json(output({"model", "show", model_, "--json", "--tensors"}), "show");
  EXPECT_EQ(json["config"]["hidden_size"], 32);
  EXPECT_EQ(json["task"], "countdown");
  EXPECT_EQ(json["bytes"], json["params"].get<int64_t>() * 4);
  EXPECT_FALSE(json["tensors"].empty());
  EXPECT_NE(output({"model", "show", model_}).find("num_key_value_heads"), std::string::npos);
  EXPECT_NE(output({"model", "verify", model_}).find("fine"), std::string::npos);
  EXPECT_EQ(error_of({"model", "init", recipe_, model_}), Exit::data) << "nothing is overwritten";

  // The same seed gives the same file; the config alone makes the same shape; bf16 is half the size.
  const std::string again = folder_.file("again"), half = folder_.file("half");
  output({"model", "init", recipe_, again, "--seed", "7"});
  EXPECT_EQ(read_file(join_path(again, "model.safetensors")), read_file(join_path(model_, "model.safetensors")));
  output({"model", "init", join_path(model_, "config.json"), half, "--random", "--type", "bf16"});
  EXPECT_EQ(parse_json(output({"model", "show", half, "--json"}), "show")["bytes"], json["params"].get<int64_t>() * 2);
}

TEST_F(ModelCommandsTest, VerifyNamesWhatIsWrong) {
  output({"model", "init", recipe_, model_});
  // A number that is none.
  const auto model = model::load_model(model_, {});
  model->params().list().front().value.f32()[5] = std::nanf("");
  model::save_model(*model, model_);
  std::string message;
  EXPECT_EQ(error_of({"model", "verify", model_}, &message), Exit::data);
  EXPECT_NE(message.find("element 5 is nan"), message.npos) << message;
  // A shape that is not the config's.
  model->params().initialize(1);
  model::save_model(*model, model_);
  const std::string config = join_path(model_, "config.json"), text = read_file(config);
  const size_t at = text.find("\"intermediate_size\": 48");
  ASSERT_NE(at, text.npos);
  write_file_atomic(config, text.substr(0, at) + "\"intermediate_size\": 40" + text.substr(at + 23));
  EXPECT_EQ(error_of({"model", "verify", model_}, &message), Exit::data);
  EXPECT_NE(message.find("gate_proj"), message.npos) << message;
}

TEST_F(ModelCommandsTest, VerifyFindsAFlippedByteInAnyCheckpointOfARun) {
  output({"model", "init", recipe_, model_});
  const auto model = model::load_model(model_, {});
  const RunDir run = RunDir::create(folder_.file("runs"), {.name = "r", .type = "rl"}, "");
  train::CheckpointStore store(run.path(), 5);
  std::vector<std::string> folders;
  for (const int64_t step : {1, 2})
    folders.push_back(store.save({.model = *model,
                                  .optimizer = {},
                                  .state = {.step = step, .stage = "rl", .stage_step = step, .counters = {}},
                                  .add_files = {}},
                                 {}));
  const std::string all = output({"model", "verify", run.path()});
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 2) << all;
  flip(join_path(folders[0], "model.safetensors"), 1000);  // not the newest: nobody would notice for a while
  std::string message;
  EXPECT_EQ(error_of({"model", "verify", run.path()}, &message), Exit::data);
  EXPECT_NE(message.find("step-000001: model.safetensors is damaged"), message.npos) << message;
}

}  // namespace
}  // namespace ponder::app
