// MODEL, wherever a command says it: which file or folder is meant, and what is in it.
#pragma once

#include <memory>
#include <string>

#include "ponder/model/model.h"
#include "ponder/model/source.h"
#include "ponder/tasks/task.h"
#include "ponder/text/chat.h"
#include "ponder/text/model_text.h"

namespace ponder::app {

struct Machine;
struct Run;

// A .gguf file (any part of a split one); a folder with config.json; a run or any folder with BEST or LATEST (one line
// that names a folder in it); such a file itself; or the id of a run under ./runs. Returns the file or the folder with
// config.json. What has a manifest is verified; where BEST is damaged, LATEST is taken, with a warning. Throws Error
// (data) that says what was looked for.
std::string resolve_model(const std::string& name);

// The folder of a run: a path, or an id (or the beginning of one: the newest) under `runs_root`.
std::string resolve_run(const std::string& name, const std::string& runs_root = "runs");

struct LoadedModel {
  std::string path;  // the folder or the .gguf file
  std::shared_ptr<const model::WeightSource> source;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<tasks::Task> task;           // null: the folder has no task.toml
  text::ModelText text;                        // its own tokenizer (null where a task has it), template and marks
  std::unique_ptr<text::ChatTemplate> chat;    // null: a base model, which only continues texts
  const text::Tokenizer* tokenizer = nullptr;  // the task's or its own; null: there is none
  // The fast choice for its weights: q8 where a matrix is of a block type, else bf16 where one is BF16, else f32.
  kernels::Activations fast_activations = kernels::Activations::f32;
};
// All but the weights (`model` is null), which takes no time.
LoadedModel load_model_text(const std::string& name);
// Weights stay in the type of their file, repacked for the machine (model::load_stored), with a progress bar where that
// takes long; with `options.stored` false they are expanded to f32 for training. What does not fit into memory is
// refused before anything is loaded, or, with `allow_paging`, leaves experts in its file and says how fast that will be.
LoadedModel load_any_model(const std::string& name, const Machine& machine,
                           const model::ModelOptions& options = {.stored = true}, bool allow_paging = false);

// What stands beside the weights in a checkpoint: tokenizer.json, and task.toml where there is a task.
void write_companions(const Run& run, const std::string& folder);

}  // namespace ponder::app
