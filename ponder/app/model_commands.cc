// model show, model verify.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_files.h"
#include "ponder/app/model_source.h"
#include "ponder/app/model_types.h"
#include "ponder/app/options.h"
#include "ponder/app/recipe.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"
#include "ponder/text/bpe.h"
#include "ponder/text/model_text.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

// "byte-level BPE, 49,152 tokens"; "": none.
std::string tokenizer_kind(const text::Tokenizer* t) {
  if (!t) return "";
  const char* kind = dynamic_cast<const text::Bpe*>(t)         ? "byte-level BPE"
                     : dynamic_cast<const text::ByteLevel*>(t) ? "bytes"
                                                               : "words";
  return fmt::format("{}, {} tokens", kind, format_grouped(t->vocab_size()));
}

// Every number of every tensor; the first that is none is named.
void check_finite(const model::WeightSource& source, ThreadPool& pool) {
  for (const std::string& name : source.names()) {
    const model::StoredTensor t = source.find(name);
    const int64_t rows = t.shape.size() > 1 ? t.shape[0] : 1, cols = t.matrix.cols;
    std::atomic<int64_t> first = INT64_MAX;
    pool.run_ranges(rows, 64, [&](int64_t begin, int64_t end, int) {
      thread_local std::vector<float> row;
      row.resize(static_cast<size_t>(cols));
      for (int64_t r = begin; r < end && first > r * cols; ++r) {
        t.read_row(r, row.data());
        const auto bad = std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
        if (bad == row.end()) continue;
        const int64_t at = r * cols + (bad - row.begin());
        for (int64_t known = first; at < known && !first.compare_exchange_weak(known, at);) continue;
        return;
      }
    });
    if (first == INT64_MAX) continue;
    std::vector<float> row(static_cast<size_t>(cols));
    t.read_row(first / cols, row.data());
    throw_error(Exit::data, "{}: tensor {} [{}]: element {} is {}; take another copy or an older checkpoint",
                source.path(), name, fmt::join(t.shape, ", "), first.load(), row[static_cast<size_t>(first % cols)]);
  }
}

// The same of the files beside a model: moments of the optimizer.
void check_finite(const Checkpoint& checkpoint) {
  std::vector<float> values;
  for (const TensorEntry* e : checkpoint.entries()) {
    if (e->dtype != StoredType::f32) continue;
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
  std::string path;
  int64_t tensors = 0, bytes = 0;
  bool manifest = false;
};

// What stands beside a model's weights in a checkpoint of a run.
void verify_beside(const std::string& folder, Verified& v) {
  const auto add = [&](const Checkpoint& c) {
    check_finite(c);
    v.tensors += static_cast<int64_t>(c.entries().size());
    for (const TensorEntry* e : c.entries()) v.bytes += static_cast<int64_t>(e->bytes.size());
  };
  if (v.manifest && path_exists(join_path(folder, "state.json"))) train::read_state(folder);
  if (const std::string moments = join_path(folder, "optimizer.safetensors"); path_exists(moments))
    add(Checkpoint::open(moments));
  if (const std::string reference = join_path(folder, "reference"); is_folder(reference)) {
    model::load_model(reference, {});
    add(Checkpoint::open(reference));
  }
}

Verified verify(const std::string& path, Machine& machine) {
  Verified v{.path = path, .manifest = path_exists(join_path(path, "manifest.json"))};
  if (v.manifest) train::verify_checkpoint(path);
  // Names and shapes against the config, no tensor twice, the tokenizer, the task.
  const LoadedModel loaded = load_any_model(path, machine);
  check_finite(*loaded.source, machine.pool);
  v.tensors = static_cast<int64_t>(loaded.source->names().size());
  v.bytes = loaded.source->bytes();
  if (is_folder(path)) verify_beside(path, v);
  return v;
}

}  // namespace

int model_show_command(const Arguments& args) {
  const std::string path = resolve_model(args.positional[0]);
  const auto source = model::WeightSource::open(path);
  model::ModelConfig config = source->config();
  const auto declared = [&](bool mtp) {
    return model::Model(config, model::ModelOptions{.declare_only = true, .mtp = mtp});
  };
  const model::Model model = declared(true);
  const int64_t params = model.params().count(), without_mtp = declared(false).params().count();
  const int64_t cache =
      model.page_layout().page_floats() * static_cast<int64_t>(sizeof(float)) * model.kv_layers() / kernels::kPageSize;
  const auto types = count_types(*source);
  std::unique_ptr<tasks::Task> task;
  if (path_exists(join_path(path, "task.toml"))) task = tasks::load_task(path);
  const text::ModelText text = read_model_text(*source);
  const std::string tokenizer = tokenizer_kind(task ? &task->tokenizer() : text.tokenizer.get());
  const bool state = path_exists(join_path(path, "state.json"));

  // The fields that config.json has for this kind of model, in the order of our own table.
  const Json written = parse_json(model::config_json(config), "config.json");
  std::vector<FlatValue> fields;
  for (FlatValue& v : flat_values(config))
    if (written.contains(v.path) && !written[v.path].is_null()) fields.push_back(std::move(v));

  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("path", path).member("format", source->gguf() ? "gguf" : "safetensors");
    w.member("architecture", config.model_type).key("config").raw(written.dump());
    w.member("params", params).member("params_without_mtp", without_mtp);
    w.member("active_params", model.active_params()).member("bytes", source->bytes());
    w.member("context", config.max_position_embeddings).member("cache_bytes_per_token", cache);
    w.key("types").begin_object();
    for (const auto& [name, count] : types)
      w.key(name).begin_object().member("tensors", count.tensors).member("bytes", count.bytes).end_object();
    w.end_object().key("task");
    task ? w.value(task->name()) : w.null();
    w.key("tokenizer");
    tokenizer.empty() ? w.null() : w.value(tokenizer);
    w.member("chat_template", text.chat_template.has_value());
    if (args.has("tensors")) {
      w.key("tensors").begin_array();
      for (const std::string& name : source->names()) {
        const model::StoredTensor t = source->find(name);
        w.begin_object().member("name", name).member("type", type_name(t.matrix.type));
        w.member("shape", std::span<const int64_t>(t.shape)).end_object();
      }
      w.end_array();
    }
    w.end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  Table table({"", ""});
  table.row({source->gguf() ? "GGUF file" : "folder", path});
  table.row({"architecture", config.model_type});
  table.row({"parameters",
             format_grouped(params) + (params == without_mtp ? ""
                                                             : fmt::format(", {} without multi-token prediction",
                                                                           format_grouped(without_mtp)))});
  table.row({"active for a token", format_grouped(model.active_params())});
  table.row({"context", format_grouped(config.max_position_embeddings)});
  table.row({"cache for a token", format_bytes(static_cast<uint64_t>(cache))});
  if (task) table.row({"task", std::string(task->name())});
  table.row({"tokenizer", tokenizer.empty() ? "none: ids only" : tokenizer});
  table.row({"chat template", text.chat_template ? "yes" : "no"});
  if (state) {
    const train::CheckpointState s = train::read_state(path);
    table.row({"checkpoint", fmt::format("step {} of its run, step {} of {}", s.step, s.stage_step, s.stage)});
  }
  fmt::print("{}\n", table.text());
  Table stored({"type", ">tensors", ">bytes"});
  int64_t tensors = 0;
  for (const auto& [name, count] : types) {
    stored.row({name, format_grouped(count.tensors), format_bytes(static_cast<uint64_t>(count.bytes))});
    tensors += count.tensors;
  }
  stored.row({"in all", format_grouped(tensors), format_bytes(static_cast<uint64_t>(source->bytes()))});
  fmt::print("{}\n", stored.text());
  Table shape({"", ""});
  for (const FlatValue& v : fields) shape.row({v.path, v.value});
  fmt::print("{}", shape.text());
  if (args.has("tensors")) {
    Table list({"tensor", "type", "shape"});
    for (const std::string& name : source->names()) {
      const model::StoredTensor t = source->find(name);
      list.row({name, type_name(t.matrix.type), fmt::format("[{}]", fmt::join(t.shape, ", "))});
    }
    fmt::print("\n{}", list.text());
  }
  return 0;
}

int model_verify_command(const Arguments& args) {
  Machine machine(args.threads());
  std::string json;
  JsonWriter w(json);
  w.begin_array();
  for (const std::string& folder : folders_of(args.positional[0])) {
    const Verified v = verify(folder, machine);
    w.begin_object()
        .member("path", v.path)
        .member("tensors", v.tensors)
        .member("bytes", v.bytes)
        .member("manifest", v.manifest)
        .end_object();
    if (!args.json())
      fmt::print("{}: fine; {} tensors, {}, all finite; {}\n", v.path, v.tensors,
                 format_bytes(static_cast<uint64_t>(v.bytes)),
                 v.manifest ? "hashes match" : "no manifest, so a changed number would not be seen");
  }
  w.end_array();
  if (args.json()) fmt::print("{}\n", json);
  return 0;
}

}  // namespace ponder::app
