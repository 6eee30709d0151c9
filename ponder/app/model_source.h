// MODEL, wherever a command says it: which folder is meant, and what is in it.
#pragma once

#include <memory>
#include <string>

#include "ponder/model/model.h"
#include "ponder/tasks/task.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {

struct Run;

// A folder with config.json; a run or any folder with BEST or LATEST (one line that names a folder in it); such a file
// itself; or the id of a run under ./runs. Returns the folder with config.json. What has a manifest is verified; where
// BEST is damaged, LATEST is taken, with a warning. Throws Error (data) that says what was looked for.
std::string resolve_model(const std::string& name);

// The folder of a run: a path, or an id (or the beginning of one: the newest) under `runs_root`.
std::string resolve_run(const std::string& name, const std::string& runs_root = "runs");

struct LoadedModel {
  std::string folder;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<tasks::Task> task;  // null: the folder has no task.toml
  std::unique_ptr<text::Tokenizer> own_tokenizer;
  const text::Tokenizer* tokenizer = nullptr;  // the task's, or the folder's; null: there is none
};
LoadedModel load_any_model(const std::string& name, const model::ModelOptions& options = {});

// What stands beside the weights in a checkpoint: tokenizer.json, and task.toml where there is a task.
void write_companions(const Run& run, const std::string& folder);

}  // namespace ponder::app
