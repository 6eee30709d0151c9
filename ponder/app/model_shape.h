// The shape of a model that need not exist yet: what `model init` writes and `bench` measures.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ponder/app/recipe.h"

namespace ponder::app {

struct ModelShape {
  model::ModelConfig config;          // vocab_size included
  std::unique_ptr<tasks::Task> task;  // whose vocabulary it is; null: the shape says how many tokens there are
  bool bytes = false;                 // trained on texts, byte by byte
  // Of the recipe's stages, or as they are by default.
  train::TrainConfig pretrain = StageRecipe("pretrain").optim, rl = StageRecipe("rl").optim;
  int64_t batch_tokens = PretrainSection().batch_tokens;
};

// A recipe, a file of models/, a config.json, or a folder that has one. Throws Error (data).
ModelShape read_shape(const std::string& path, const std::vector<std::string>& sets);

}  // namespace ponder::app
