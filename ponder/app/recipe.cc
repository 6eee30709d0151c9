#include "ponder/app/recipe.h"

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder::app {
namespace {

std::string stem(const std::string& path) {
  std::string name = base_name(path);
  if (name.ends_with(".toml")) name.resize(name.size() - 5);
  return name;
}

}  // namespace

StageRecipe::StageRecipe(std::string stage_type) : type(std::move(stage_type)) {
  optim.adamw.max_grad_norm = 1;
  if (type == "rl") optim.mtp_loss_weight = 0;
  if (type == "pretrain") {
    optim.schedule.learning_rate = 3e-4;
    optim.schedule.lr_scheduler_type = "cosine";
    optim.adamw.weight_decay = 0.1;
    optim.adamw.adam_beta2 = 0.95;
  }
}

void StageRecipe::finish() {
  if (name.empty()) name = type;
  if (eval.samples == 0) eval.samples = type == "rl" ? rl.grpo.num_generations : 1;
  if (type == "rl") {
    if (rl.grpo.num_generations_eval) eval.samples = *rl.grpo.num_generations_eval;
    rl.grpo.num_generations_eval = eval.samples;  // one number, under TRL's name and ours
    rl.grpo.finish();
    if (optim.mtp_loss_weight > 0)
      throw_error(Exit::data, "stage {}: mtp_loss_weight = {}: reinforcement learning does not train MTP modules", name,
                  optim.mtp_loss_weight);
    if (!rl.grpo.reward_funcs.empty()) {
      if (!reward.empty())
        throw_error(Exit::data, "stage {}: reward_funcs and [[reward]] both say what an answer is worth; take one",
                    name);
      for (const std::string& function : rl.grpo.reward_funcs) reward.emplace_back().name = function;
      rl.grpo.reward_funcs.clear();  // the same recipe, written in the other way
    }
    if (run.max_steps < 1)
      throw_error(Exit::data,
                  "stage {}: max_steps is {}; reinforcement learning has no end of its own, so say how many steps",
                  name, run.max_steps);
  }
  if (type == "pretrain" && data.packing == data.document_mask)
    throw_error(
        Exit::data,
        "stage {}: packing = {} and document_mask = {}: packed pieces attend across their texts, single texts to "
        "themselves only; set packing = true with document_mask = false, or the reverse",
        name, data.packing, data.document_mask);
}

std::vector<FlatValue> Plan::values() {
  if (!pipeline) return flat_values(stage[0]);
  return flat_values(*this);
}
std::string Plan::toml() { return pipeline ? resolved_toml(*this, &origins) : resolved_toml(stage[0], &origins); }
std::string Plan::hash() { return config_hash(values()); }

Plan load_plan(const std::string& path, const std::string& type, const std::vector<std::string>& sets,
               const std::string& untyped) {
  if (is_folder(path)) throw_error(Exit::data, "{} is a folder; a recipe is a .toml file", path);
  Recipe recipe = Recipe::load(path);
  recipe.read_environment();
  for (const std::string& set : sets) recipe.set(set);

  Plan plan;
  std::vector<Recipe> stages = recipe.stages();
  for (size_t i = 0; i < stages.size(); ++i) {
    const std::string own = stages[i].peek("type").value_or("");
    const std::string kind = !own.empty() ? own : type.empty() ? untyped : type;
    const std::vector<std::string> kinds = {"pretrain", "rl", "eval"};
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
      const std::string near = nearest_name(kind, kinds);
      throw_error(Exit::data, "{}: stage {}: {}{}", path, i,
                  kind.empty() ? "it needs a type: pretrain, rl or eval"
                               : fmt::format("there is no type \"{}\"; pretrain, rl and eval exist", kind),
                  near.empty() ? "" : fmt::format("; did you mean {}?", near));
    }
    if (!type.empty() && kind != type)
      throw_error(Exit::data, "{}: its type is {}; run it with `ponder {} {}`", path, kind,
                  stages.size() > 1 ? "pipeline" : kind, path);
    plan.stage.emplace_back(kind);
    const Origins origins = stages[i].bind(plan.stage[i]);
    plan.stage[i].type = kind;
    const auto files = origins.find("data.files");
    plan.stage[i].wants_texts = files != origins.end() && files->second.source != "default";
    for (const auto& [key, origin] : origins) plan.origins[fmt::format("stage.{}.{}", i, key)] = origin;
  }
  plan.pipeline = stages.size() > 1;
  if (!type.empty() && plan.pipeline)
    throw_error(Exit::data, "{} has {} stages; run it with `ponder pipeline {}`", path, stages.size(), path);
  if (!plan.pipeline) {
    Origins flat;
    for (auto& [key, origin] : plan.origins) flat[key.substr(std::string_view("stage.0.").size())] = origin;
    plan.origins = std::move(flat);
  }
  for (StageRecipe& s : plan.stage) s.finish();
  for (size_t i = 0; i < plan.stage.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (plan.stage[i].name == plan.stage[j].name)
        throw_error(Exit::data, "{}: two stages are called {}; give them a `name` each", path, plan.stage[i].name);
  plan.name = plan.stage[0].run.run_name.empty() ? stem(path) : plan.stage[0].run.run_name;
  // The name is part of what makes a run this one: two recipes that differ in nothing else do not share a run.
  for (StageRecipe& s : plan.stage) s.run.run_name = plan.name;
  plan.notes = recipe.notes();
  return plan;
}

}  // namespace ponder::app
