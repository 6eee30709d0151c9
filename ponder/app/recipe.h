// Recipes: what the commands of training and evaluation read. A recipe is one stage, or a list of [[stage]]s that share
// what stands at the top; a stage begins with the model that the one before it left.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ponder/base/config.h"
#include "ponder/model/config.h"
#include "ponder/rl/config.h"
#include "ponder/rl/reward.h"
#include "ponder/tasks/task.h"
#include "ponder/train/trainer.h"

namespace ponder::app {

// [run]: how long, how often, where to. Names of Hugging Face.
struct RunSection {
  std::string run_name;
  std::string output_dir = "runs";
  std::string resume = "auto";
  uint64_t seed = 42;
  int threads = 0;
  int64_t max_steps = -1;
  int64_t num_train_epochs = 1;
  int64_t logging_steps = 1, save_steps = 100, eval_steps = 100, sample_steps = 10, save_total_limit = 3;
  double price_per_hour = 0;

  template <class V>
  void fields(V& v);
};

// [model]: a shape to be made from nothing, or the folder of a model that there is.
struct ModelSection {
  std::string path;
  model::ModelConfig config;

  template <class V>
  void fields(V& v) {
    v.field("path", path, {.help = "a model, checkpoint or run to start from; the shape is then its own"});
    config.fields(v);
  }
};

// [data]: the user's own texts for pre-training, in place of a task's.
struct DataSection {
  std::vector<std::string> files;
  std::vector<std::string> dataset_text_field = {"text"};
  int64_t max_length = 1024;
  bool packing = false;
  bool document_mask = true;
  double held_out_texts = 0.02;

  template <class V>
  void fields(V& v);
};

struct PretrainSection {
  int64_t tokens = 3'000'000;
  int64_t batch_tokens = 2048;
  bool group_by_length = false;
  bool last_token = false;

  template <class V>
  void fields(V& v);
};

struct RlSection {
  rl::GrpoConfig grpo;
  std::string puzzles;
  int64_t fixed_problems = 0;

  template <class V>
  void fields(V& v) {
    grpo.fields(v);
    v.field("puzzles", puzzles, {.help = "JSONL of problems to learn from; empty: the task's training problems"});
    v.field("fixed_problems", fixed_problems,
            {.help = "learn from so many training problems only (a test of the loop); 0: all", .min = 0});
  }
};

// [eval]: what an evaluation consists of.
struct EvalSection {
  int64_t problems = 300, samples = 0;
  bool greedy = true;
  int64_t pass_problems = 0, pass_samples = 16;
  std::string split = "held_out";
  std::string eval_puzzles;
  bool eval_on_start = true;
  // Where [rl] does not say it.
  int64_t max_completion_length = 240;
  double temperature = 1;

  template <class V>
  void fields(V& v, bool with_sampling);
};

struct StageRecipe {
  StageRecipe() = default;
  explicit StageRecipe(std::string stage_type);  // with that type's defaults

  std::string type = "rl";  // pretrain, rl, eval
  std::string name;
  RunSection run;
  ModelSection model;
  tasks::TaskConfig task;
  DataSection data;
  PretrainSection pretrain;
  train::TrainConfig optim;
  RlSection rl;
  std::vector<rl::RewardConfig> reward;
  EvalSection eval;

  bool trains() const { return type != "eval"; }
  bool wants_texts = false;  // the recipe speaks of data.files, even if it leaves them to be named
  bool on_text() const { return type == "pretrain" && (wants_texts || !data.files.empty()); }
  int64_t max_completion_length() const {
    return type == "rl" ? rl.grpo.max_completion_length : eval.max_completion_length;
  }
  double temperature() const { return type == "rl" ? rl.grpo.temperature : eval.temperature; }
  // After bind: derives what follows from other fields and refuses what cannot be meant (Error, data).
  void finish();

  // A stage has the sections of its type only, so that a field means one thing in it.
  template <class V>
  void fields(V& v);
};

// All stages of a recipe, bound, with what is said about them.
struct Plan {
  std::string name;  // of the run
  std::vector<StageRecipe> stage;
  Origins origins;  // paths begin with "stage.N." where there are several
  std::vector<std::string> notes;
  bool pipeline = false;  // written as [[stage]]s

  template <class V>
  void fields(V& v) {
    v.list("stage", stage, "run in order");
  }
  std::string toml();  // resolved, with origins; binds to the same plan
  std::string hash();  // equal for equal work
  std::vector<FlatValue> values();
};

// `type`: the only type that is wanted, which is also that of a stage that names none; "": any, and a stage without a
// type is `untyped`, or an error where that is empty. Throws Error.
Plan load_plan(const std::string& path, const std::string& type, const std::vector<std::string>& sets,
               const std::string& untyped = "");

// ---------------------------------------------------------------------------------------------------------------------

template <class V>
void RunSection::fields(V& v) {
  v.field("run_name", run_name, {.help = "what the run's folder begins with; empty: the recipe's file name"});
  v.field("output_dir", output_dir, {.help = "where runs go", .identity = false});
  v.field("resume", resume,
          {.help = "auto: the same recipe goes on in its unfinished run; never; or the run to go on with",
           .synonyms = {"resume_from_checkpoint", "trainer.resume_mode", "ckpt.path"},
           .value_synonyms = {{"True", "auto"}, {"true", "auto"}, {"False", "never"}, {"false", "never"}},
           .identity = false});
  v.field("seed", seed, {.help = "of everything random"});
  v.field("threads", threads,
          {.help = "0: all cores; results do not depend on it", .min = 0, .max = 4096, .identity = false});
  v.field("max_steps", max_steps, {.help = "optimizer steps; -1: as the data or num_train_epochs say", .min = -1});
  v.field("num_train_epochs", num_train_epochs,
          {.help = "passes over the texts", .synonyms = {"trainer.total_epochs", "num_rollout"}, .min = 1});
  v.field("logging_steps", logging_steps,
          {.help = "a row of metrics every so many steps", .min = 1, .identity = false});
  v.field("save_steps", save_steps,
          {.help = "a checkpoint every so many steps, and at the end",
           .synonyms = {"trainer.save_freq"},
           .min = 1,
           .identity = false});
  v.field("eval_steps", eval_steps,
          {.help = "an evaluation every so many steps, and at the end",
           .synonyms = {"trainer.test_freq"},
           .min = 1,
           .identity = false});
  v.field("sample_steps", sample_steps,
          {.help = "samples are kept and shown every so many steps", .min = 1, .identity = false});
  v.field("save_total_limit", save_total_limit,
          {.help = "checkpoints kept, besides the best", .min = 1, .identity = false});
  v.field("price_per_hour", price_per_hour,
          {.help = "of this machine, for the bill in the report", .min = 0, .identity = false});
}

template <class V>
void DataSection::fields(V& v) {
  v.field("files", files,
          {.help = "texts: .jsonl (one object a line) or plain text, files or globs; empty: the task's own"});
  v.field("dataset_text_field", dataset_text_field,
          {.help = "the field of a .jsonl line that is the text; several are joined by a line break"});
  v.field("max_length", max_length, {.help = "tokens of one piece of text", .min = 2});
  v.field("packing", packing, {.help = "texts end to end, cut into pieces of max_length"});
  v.field("document_mask", document_mask, {.help = "a text attends to itself only; false goes with packing"});
  v.field("held_out_texts", held_out_texts,
          {.help = "share of the texts kept for val/loss and val/bpb", .min = 0, .max = 0.5});
}

template <class V>
void PretrainSection::fields(V& v) {
  v.field("tokens", tokens, {.help = "size of the task's corpus", .min = 1});
  v.field("batch_tokens", batch_tokens, {.help = "tokens of an optimizer step", .min = 2});
  v.field("group_by_length", group_by_length, {.help = "texts of one batch have about one length"});
  v.field(
      "last_token", last_token,
      {.help = "the last token of a text, which predicts nothing, goes through the layers too, as in other programs"});
}

template <class V>
void EvalSection::fields(V& v, bool with_sampling) {
  v.field("problems", problems, {.help = "problems of an evaluation; 0: none", .min = 0});
  v.field("samples", samples, {.help = "answers to each; 0: num_generations in rl, else 1", .min = 0, .max = 1024});
  v.field("greedy", greedy, {.help = "also one greedy answer to each"});
  v.field("pass_problems", pass_problems,
          {.help = "pass@k over so many problems, in the first and the last evaluation of a stage; 0: none", .min = 0});
  v.field("pass_samples", pass_samples, {.help = "answers to each of those", .min = 1, .max = 1024});
  v.field("split", split, {.help = "which problems", .choices = {"held_out", "train"}});
  v.field("eval_puzzles", eval_puzzles,
          {.help = "JSONL of problems to evaluate on, in place of a split; classic: the 1,362 Games of 24"});
  v.field("eval_on_start", eval_on_start, {.help = "an evaluation before the first step", .identity = false});
  if (!with_sampling) return;
  v.field("max_completion_length", max_completion_length,
          {.help = "tokens of an answer", .synonyms = {"max_new_tokens"}, .min = 1});
  v.field("temperature", temperature, {.help = "of sampling", .min = 0});
}

template <class V>
void StageRecipe::fields(V& v) {
  v.field("type", type, {.help = "what the stage does", .choices = {"pretrain", "rl", "eval"}});
  v.field("name", name, {.help = "of the stage; empty: its type"});
  v.section("run", run, "how long, how often, where to");
  v.section("model", model, "a shape, or the folder of a model");
  v.section("task", task, "problems, grades and the texts of the corpus");
  if (type == "pretrain") v.section("data", data, "the user's own texts");
  if (type == "pretrain") v.section("pretrain", pretrain, "the corpus and its batches");
  if (trains()) v.section("optim", optim, "optimizer and schedule");
  if (type == "rl") v.section("rl", rl, "GRPO");
  if (type == "rl") v.list("reward", reward, "what an answer is worth; none: accuracy");
  struct Eval {  // the same struct with the fields that this type has
    EvalSection& eval;
    bool with_sampling;
    void fields(V& w) { eval.fields(w, with_sampling); }
  } shown{eval, type != "rl"};
  v.section("eval", shown, "what an evaluation consists of");
}

}  // namespace ponder::app
