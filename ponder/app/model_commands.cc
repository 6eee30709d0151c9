// model show, model verify.
#include <cmath>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/recipe.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

model::ModelConfig read_config(const std::string& path) {
  return model::parse_config_json(read_file(path, size_t{16} << 20), path);
}

int64_t entry_bytes(const Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const TensorEntry* e : checkpoint.entries()) bytes += static_cast<int64_t>(e->bytes.size());
  return bytes;
}

// Every number of every tensor; the first that is none is named.
void check_finite(const Checkpoint& checkpoint) {
  std::vector<float> values;
  for (const TensorEntry* e : checkpoint.entries()) {
    if (e->dtype != StoredType::f32 && e->dtype != StoredType::bf16 && e->dtype != StoredType::f16) continue;
    values.resize(static_cast<size_t>(e->size()));
    read_f32(*e, values.data());
    for (size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]))
        throw_error(Exit::data, "{}: tensor {} {}: element {} is {}; take an older checkpoint", checkpoint.path(),
                    e->name, e->shape_string(), i, values[i]);
  }
}

// The folders that a name stands for: all checkpoints of a run, or the one model. Unlike resolve_model this does not pass
// over a damaged one: finding it is the purpose.
std::vector<std::string> folders_of(const std::string& name) {
  const std::string path = path_exists(name) ? name : resolve_run(name);
  if (!path_exists(join_path(path, "run.json"))) return {resolve_model(path)};
  std::vector<std::string> folders;
  const std::string all = join_path(path, "checkpoints");
  if (is_folder(all))
    for (const std::string& step : list_folder(all))
      if (step.starts_with("step-") && !step.ends_with(".tmp") && !step.ends_with(".old"))
        folders.push_back(join_path(all, step));
  if (folders.empty()) throw_error(Exit::data, "{}: this run has not written a checkpoint yet", path);
  return folders;
}

struct Verified {
  std::string folder;
  int64_t tensors = 0, bytes = 0;
  bool manifest = false, task = false;
};

Verified verify(const std::string& folder, const Machine& machine) {
  Verified v{.folder = folder, .manifest = path_exists(join_path(folder, "manifest.json"))};
  if (v.manifest) train::verify_checkpoint(folder);
  v.task = load_any_model(folder, machine).task != nullptr;  // shapes against the config, tokenizer, task
  if (v.manifest && path_exists(join_path(folder, "state.json"))) train::read_state(folder);
  std::vector<std::string> parts = {folder};
  if (const std::string moments = join_path(folder, "optimizer.safetensors"); path_exists(moments))
    parts.push_back(moments);
  if (const std::string reference = join_path(folder, "reference"); is_folder(reference)) {
    model::load_model(reference, {});
    parts.push_back(reference);
  }
  // Where there are other safetensors beside it, the model's file is known by its name.
  if (const std::string own = join_path(folder, "model.safetensors"); path_exists(own)) parts[0] = own;
  for (const std::string& part : parts) {
    const Checkpoint checkpoint = Checkpoint::open(part);
    check_finite(checkpoint);
    v.tensors += static_cast<int64_t>(checkpoint.entries().size());
    v.bytes += entry_bytes(checkpoint);
  }
  return v;
}

}  // namespace

int model_show_command(const Arguments& args) {
  const std::string folder = resolve_model(args.positional[0]);
  model::ModelConfig config = read_config(join_path(folder, "config.json"));
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const model::Model model(config, {});  // memory that is not touched costs nothing
  const int64_t params = model.params().count(), without_mtp = model::Model(config, {.mtp = false}).params().count();
  const kernels::PageLayout page = model.page_layout();
  const int64_t cache =
      page.page_floats() * static_cast<int64_t>(sizeof(float)) * model.kv_layers() / kernels::kPageSize;
  std::unique_ptr<tasks::Task> task;
  if (path_exists(join_path(folder, "task.toml"))) task = tasks::load_task(folder);
  const bool tokenizer = path_exists(join_path(folder, "tokenizer.json")),
             state = path_exists(join_path(folder, "state.json"));

  // The fields that config.json has for this kind of model, in the order of our own table.
  const Json written = parse_json(model::config_json(config), "config.json");
  std::vector<FlatValue> fields;
  for (FlatValue& v : flat_values(config))
    if (written.contains(v.path) && !written[v.path].is_null()) fields.push_back(std::move(v));

  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object()
        .member("folder", folder)
        .key("config")
        .raw(written.dump())
        .member("params", params)
        .member("params_without_mtp", without_mtp);
    w.member("active_params", model.active_params())
        .member("bytes", entry_bytes(checkpoint))
        .member("cache_bytes_per_token", cache);
    w.key("task");
    task ? w.value(task->name()) : w.null();
    w.member("tokenizer", tokenizer);
    if (args.has("tensors")) {
      w.key("tensors").begin_array();
      for (const TensorEntry* e : checkpoint.entries())
        w.begin_object()
            .member("name", e->name)
            .member("type", stored_type_name(e->dtype))
            .member("shape", std::span<const int64_t>(e->dim, static_cast<size_t>(e->rank)))
            .end_object();
      w.end_array();
    }
    w.end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  Table table({"", ""});
  table.row({"folder", folder});
  table.row({"parameters", fmt::format("{}{}", format_grouped(params),
                                       params == without_mtp ? ""
                                                             : fmt::format(", {} without multi-token prediction",
                                                                           format_grouped(without_mtp)))});
  table.row({"active for a token", format_grouped(model.active_params())});
  table.row({"stored", fmt::format("{} in {} tensors", format_bytes(static_cast<uint64_t>(entry_bytes(checkpoint))),
                                   checkpoint.entries().size())});
  table.row({"cache for a token", format_bytes(static_cast<uint64_t>(cache))});
  if (task) table.row({"task", std::string(task->name())});
  table.row({"tokenizer", tokenizer ? "tokenizer.json" : "none: ids only"});
  if (state) {
    const train::CheckpointState s = train::read_state(folder);
    table.row({"checkpoint", fmt::format("step {} of its run, step {} of {}", s.step, s.stage_step, s.stage)});
  }
  fmt::print("{}\n", table.text());
  Table shape({"", ""});
  for (const FlatValue& v : fields) shape.row({v.path, v.value});
  fmt::print("{}", shape.text());
  if (args.has("tensors")) {
    Table tensors({"tensor", "type", "shape"});
    for (const TensorEntry* e : checkpoint.entries())
      tensors.row({e->name, stored_type_name(e->dtype), e->shape_string()});
    fmt::print("\n{}", tensors.text());
  }
  return 0;
}

int model_verify_command(const Arguments& args) {
  const Machine machine(args.threads());
  std::string json;
  JsonWriter w(json);
  w.begin_array();
  for (const std::string& folder : folders_of(args.positional[0])) {
    const Verified v = verify(folder, machine);
    w.begin_object()
        .member("folder", v.folder)
        .member("tensors", v.tensors)
        .member("bytes", v.bytes)
        .member("manifest", v.manifest)
        .end_object();
    if (!args.json())
      fmt::print("{}: fine; {} tensors, {}, all finite; {}\n", v.folder, v.tensors,
                 format_bytes(static_cast<uint64_t>(v.bytes)),
                 v.manifest ? "hashes match" : "no manifest, so a changed number would not be seen");
  }
  w.end_array();
  if (args.json()) fmt::print("{}\n", json);
  return 0;
}

}  // namespace ponder::app
