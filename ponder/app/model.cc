// model init, show, verify.
#include "ponder/model/model.h"

#include <cmath>

#include "ponder/app/commands.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/recipe.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

struct ShapeFile {
  model::ModelConfig model;
  tasks::TaskConfig task;
  template <class V>
  void fields(V& v) {
    v.section("model", model, "the shape");
    v.section("task", task, "whose vocabulary it has, where vocab_size is 0");
  }
};

}  // namespace

int model_init_command(const Arguments& args) {
  const std::string &path = args.positional[0], &out = args.positional[1];
  const std::string type = args.text("type", "f32");
  if (type != "f32" && type != "bf16") throw_error(Exit::usage, "--type {}: f32 and bf16 exist", type);
  if (path_exists(join_path(out, "config.json"))) throw_error(Exit::usage, "{}: there is a model already; name another folder", out);
  ShapeFile shape;
  std::unique_ptr<tasks::Task> task;
  if (path.ends_with(".json")) {
    if (!args.all("set").empty()) throw_error(Exit::usage, "--set is for .toml files; change {} itself", path);
    shape.model = model::parse_config_json(read_file(path, size_t{16} << 20), path);
  } else {
    Recipe recipe = Recipe::load(path);
    for (const std::string& set : args.all("set")) recipe.set(set);
    recipe.bind(shape);
    if (shape.model.vocab_size == 0) {
      task = tasks::make_task(shape.task);
      shape.model.vocab_size = task->tokenizer().vocab_size();
    }
  }
  model::validate(shape.model);
  model::Model model(shape.model, {});
  model.params().initialize(static_cast<uint64_t>(args.integer("seed", 42, 0, INT64_MAX)));
  make_folders(out);
  if (task) tasks::save_task(*task, out);
  model::save_model(model, out, type == "bf16" ? DType::bf16 : DType::f32);
  log_info("{}: {} parameters", out, format_grouped(model.params().count()));
  return 0;
}

int model_show_command(const Arguments& args) {
  const std::string folder = resolve_model(args.positional[0]);
  const std::string config_path = join_path(folder, "config.json");
  const model::ModelConfig config = model::parse_config_json(read_file(config_path, size_t{16} << 20), config_path);
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const auto model = model::load_model(folder, {});
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("folder", folder).member("params", model->params().count()).member("active_params", model->active_params());
    w.key("config").raw(model::config_json(config)).key("tensors").begin_array();
    for (const TensorEntry* e : checkpoint.entries())
      w.begin_object().member("name", e->name).member("dtype", stored_type_name(e->dtype)).member("shape", std::span<const int64_t>(e->dim, static_cast<size_t>(e->rank))).end_object();
    w.end_array().end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  fmt::print("{}\n{}, {} layers of width {}, {} parameters, {} active for a token, context {}\n", folder, config.model_type, config.num_hidden_layers, config.hidden_size,
             format_grouped(model->params().count()), format_grouped(model->active_params()), config.max_position_embeddings);
  if (path_exists(join_path(folder, "state.json"))) {
    const train::CheckpointState s = train::read_state(folder);
    fmt::print("checkpoint: step {} of the run, step {} of stage {}\n", s.step, s.stage_step, s.stage);
  }
  fmt::print("\n");
  for (const TensorEntry* e : checkpoint.entries()) fmt::print("{:<64} {:<5} {}\n", e->name, stored_type_name(e->dtype), e->shape_string());
  return 0;
}

int model_verify_command(const Arguments& args) {
  const std::string folder = resolve_model(args.positional[0]);  // verifies the manifest
  const LoadedModel loaded = load_any_model(folder);
  for (const ops::Param& p : loaded.model->params().list())
    for (int64_t i = 0; i < p.value.size(); ++i)
      if (!std::isfinite(p.value.f32()[i])) throw_error(Exit::data, "{}: {} holds a number that is not finite", folder, p.name);
  fmt::print("{}: fine; {} parameters{}{}\n", folder, format_grouped(loaded.model->params().count()),
             path_exists(join_path(folder, "manifest.json")) ? ", hashes as the manifest says" : ", no manifest to check against",
             loaded.task ? fmt::format(", task {}", loaded.task->name()) : "");
  return 0;
}

}  // namespace ponder::app
