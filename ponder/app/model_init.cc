// model init: a model of any shape with random weights.
#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_files.h"
#include "ponder/app/model_output.h"
#include "ponder/app/model_shape.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/model/convert.h"
#include "ponder/model/weights.h"
#include "ponder/text/model_text.h"

namespace ponder::app {

ModelShape read_shape(const std::string& path, const std::vector<std::string>& sets) {
  ModelShape out;
  const std::string config = is_folder(path) ? join_path(path, "config.json") : path;
  if (config.ends_with(".json")) {
    if (!sets.empty()) throw_error(Exit::usage, "--set changes recipes; {} is a config.json", config);
    out.config = model::parse_config_json(read_file(config, size_t{16} << 20), config);
    return out;
  }
  Recipe recipe = Recipe::load(path);
  recipe.read_environment();
  for (const std::string& set : sets) recipe.set(set);
  // The first stage with a shape has the model; its task has the vocabulary.
  bool found = false;
  for (Recipe& stage : recipe.stages()) {
    StageRecipe r(stage.peek("type").value_or("pretrain"));
    stage.bind(r);
    if (r.type == "pretrain") out.pretrain = r.optim, out.batch_tokens = r.pretrain.batch_tokens;
    if (r.type == "rl") out.rl = r.optim;
    if (found || !r.model.path.empty()) continue;
    found = true;
    out.config = r.model.config;
    out.bytes = r.on_text() && out.config.vocab_size == 0;
    if (out.bytes)
      out.config.vocab_size = text::ByteLevel().vocab_size();
    else if (out.config.vocab_size == 0)
      out.task = tasks::make_task(r.task), out.config.vocab_size = out.task->tokenizer().vocab_size();
  }
  if (!found) throw_error(Exit::data, "{}: its model comes from a folder ([model] path); name that folder", path);
  model::validate(out.config);
  return out;
}

namespace {

// Tensor after tensor, so that the model may be larger than memory.
void write_random(const ModelShape& shape, const std::string& out, const model::TypeScheme& type, uint64_t seed,
                  int64_t distinct_rows, ThreadPool& pool) {
  const auto source = model::random_source(shape.config, seed, distinct_rows);
  Progress progress("write");
  const auto show = [&](int64_t done, int64_t of, const std::string& tensor) { progress.update({done, of, tensor}); };
  if (out.ends_with(".gguf")) {
    if (shape.task) throw_error(Exit::usage, "{}: a task's vocabulary has no place in GGUF; name a folder", out);
    model::write_gguf_model(*source, out, type, vocabulary_metadata(dummy_vocabulary(shape.config.vocab_size)), pool,
                            show);
    return;
  }
  model::write_safetensors_model(*source, out, type, pool, show);
}

void write_initial(const ModelShape& shape, const std::string& folder, DType type, uint64_t seed) {
  model::Model model(shape.config, {});
  model.params().initialize(seed);
  model::save_model(model, folder, type);
}

// `out` is what the folder will be called.
void write_vocabulary(const ModelShape& shape, const std::string& folder, const std::string& out) {
  if (shape.task) {
    tasks::save_task(*shape.task, folder);
  } else if (shape.bytes) {
    text::ByteLevel().save(join_path(folder, "tokenizer.json"));
  } else {
    const std::string name = "vocabulary for random weights";
    try {
      text::save_model_text(text::model_text(dummy_vocabulary(shape.config.vocab_size), name), folder);
    } catch (const Error& e) {
      log_warn("{}: no tokenizer: {}", out, e.what());
    }
  }
}

}  // namespace

int model_init_command(const Arguments& args) {
  const std::string& out = args.positional[1];
  const bool gguf = out.ends_with(".gguf");
  const model::TypeScheme type(args.text("type", "f32"));
  if (type.name() == "keep") throw_error(Exit::usage, "--type keep: there is nothing to be kept; name a type");
  const auto seed = static_cast<uint64_t>(args.integer("seed", 42, 0, INT64_MAX));
  const int64_t distinct_rows = args.integer("distinct-rows", 0, 0, INT64_MAX);
  const ModelShape shape = read_shape(args.positional[0], args.all("set"));
  ModelOutput output(out, {});
  const bool initial = !gguf && !distinct_rows && (type.name() == "f32" || type.name() == "bf16");
  if (initial) {
    write_initial(shape, output.aside(), type.name() == "bf16" ? DType::bf16 : DType::f32, seed);
  } else {
    Machine machine(args.threads());
    write_random(shape, output.aside(), type, seed, distinct_rows, machine.pool);
  }
  if (!gguf) write_vocabulary(shape, output.aside(), out);
  const std::string path = output.publish(output.aside());
  const model::Model declared(shape.config, model::ModelOptions{.declare_only = true});
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("path", path).member("architecture", shape.config.model_type).member("type", type.name());
    w.member("params", declared.params().count()).member("seed", static_cast<int64_t>(seed)).end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  log_info("{}: {} with {} random parameters as {}, seed {}", path, shape.config.model_type,
           format_grouped(declared.params().count()), type.name(), seed);
  return 0;
}

}  // namespace ponder::app
