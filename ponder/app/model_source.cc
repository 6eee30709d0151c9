#include "ponder/app/model_source.h"

#include <algorithm>

#include "ponder/app/machine.h"
#include "ponder/app/memory.h"
#include "ponder/app/model_files.h"
#include "ponder/app/paging.h"
#include "ponder/app/stage.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/gguf.h"
#include "ponder/train/checkpoint.h"

namespace ponder::app {
namespace {

bool has(const std::string& folder, const char* name) { return path_exists(join_path(folder, name)); }

// A pointer may only name something below the folder it stands for: the folder may come from somebody else.
std::string follow(const std::string& pointer, const std::string& base) {
  const std::string target = read_pointer(pointer).value_or("");
  if (target.empty() || target[0] == '/' || target.find("..") != target.npos)
    throw_error(Exit::data, "{}: \"{}\" leads out of {}", pointer, target, base);
  return join_path(base, target);
}

std::string checked(const std::string& folder) {
  if (!has(folder, "config.json")) throw_error(Exit::data, "{}: no model here, config.json is missing", folder);
  if (has(folder, "manifest.json")) train::verify_checkpoint(folder);
  return folder;
}

}  // namespace

std::string resolve_run(const std::string& name, const std::string& runs_root) {
  if (has(name, "run.json")) return name;
  std::string found;
  if (!name.empty() && name.find('/') == name.npos && is_folder(runs_root)) {
    double newest = -1;
    for (const RunDir& run : RunDir::list(runs_root)) {
      if (run.id() == name) return run.path();
      if (run.id().starts_with(name) && run.info().created > newest) newest = run.info().created, found = run.path();
    }
  }
  if (found.empty())
    throw_error(Exit::data, "{}: no such run; `ponder runs list` shows the runs under {}", name, runs_root);
  return found;
}

std::string resolve_model(const std::string& name) {
  std::string path = name;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.ends_with(".gguf")) {
    if (!path_exists(path)) throw_error(Exit::data, "{}: no such file", path);
    return path;
  }
  if (!path_exists(path)) {
    try {
      path = resolve_run(path);
    } catch (const Error&) {
      throw_error(Exit::data, "{}: no such model: it is neither a path nor a run under ./runs (`ponder runs list`)",
                  name);
    }
  }
  if (!is_folder(path)) {
    // RUN/stages/NAME is one line that names a folder of the run.
    const std::string folder = parent_folder(path);
    if (base_name(folder) == "stages") return checked(follow(path, parent_folder(folder)));
    throw_error(Exit::data,
                "{} is a file; a model is a .gguf file, a folder with config.json and safetensors, or a run", path);
  }
  if (has(path, "config.json")) return checked(path);
  // RUN/checkpoints stands for its run.
  if (base_name(path) == "checkpoints" && !has(path, "LATEST")) path = parent_folder(path);
  const bool latest = has(path, "LATEST");
  if (has(path, "BEST")) {
    try {
      return checked(follow(join_path(path, "BEST"), path));
    } catch (const Error& e) {
      if (!latest) throw;
      log_warn("{} Taking LATEST instead.", e.what());
    }
  }
  if (latest) return checked(follow(join_path(path, "LATEST"), path));
  throw_error(Exit::data, "{}: no model here: it has neither config.json nor BEST nor LATEST{}", path,
              has(path, "run.json") ? "; this run has not written a checkpoint yet" : "");
}

namespace {

void load_text(LoadedModel& out) {
  const GgufFile* gguf = out.source->gguf();
  try {
    if (gguf && gguf->has("tokenizer.ggml.model"))
      out.text = text::model_text(vocabulary_of(*gguf), out.path);
    else if (!gguf && (has(out.path, "tokenizer.json") || has(out.path, "tokenizer.json.zst")))
      out.text = text::load_model_text(out.path);
    else
      return;
    out.tokenizer = out.text.tokenizer.get();
    if (out.text.chat_template)
      out.chat = std::make_unique<text::ChatTemplate>(
          *out.text.chat_template, out.path + " (chat template)",
          text::ChatTemplate::SpecialTexts{{"bos_token", out.text.bos_text}, {"eos_token", out.text.eos_text}});
  } catch (const Error& e) {
    log_warn("{} {}", e.what(), out.tokenizer ? "Only raw texts can be used." : "Only ids can be used.");
  }
}

}  // namespace

LoadedModel load_model_text(const std::string& name) {
  LoadedModel out;
  out.path = resolve_model(name);
  out.source = model::WeightSource::open(out.path);
  if (has(out.path, "task.toml")) {
    out.task = tasks::load_task(out.path);
    out.tokenizer = &out.task->tokenizer();
  } else {
    load_text(out);
  }
  const model::ModelConfig& config = out.source->config();
  if (out.tokenizer && out.tokenizer->vocab_size() > config.vocab_size)
    throw_error(Exit::data, "{}: the tokenizer has {} tokens, the model only {}", out.path, out.tokenizer->vocab_size(),
                config.vocab_size);
  return out;
}

LoadedModel load_any_model(const std::string& name, const Machine& machine, const model::ModelOptions& options,
                           bool allow_paging) {
  LoadedModel out = load_model_text(name);
  const int64_t experts = check_memory(*out.source, *machine.backend, options, allow_paging, available_memory_bytes());
  if (experts < model::kAllExperts)
    log_info("{}: larger than memory; {}", out.path,
             paged_speed_text(measure_paged_speed(*out.source, *machine.backend, experts)));
  const model::ModelConfig& config = out.source->config();
  out.model = std::make_unique<model::Model>(config, options);
  if (!options.stored) {
    model::load_weights(*out.model, *out.source);
    return out;
  }
  Progress progress("load");
  model::load_stored(
      *out.model, out.source, *machine.backend,
      [&](int64_t done, int64_t of) {
        progress.update({done, of, ""});
      },
      experts);
  for (const ops::Param& p : out.model->params().list())
    if (p.stored)
      for (const kernels::WeightPart& part : p.stored->parts) {
        if (block_spec(part.type).elements > 1)
          out.fast_activations = kernels::Activations::q8;
        else if (part.type == BlockType::bf16 && out.fast_activations == kernels::Activations::f32)
          out.fast_activations = kernels::Activations::bf16;
      }
  return out;
}

void write_companions(const Run& run, const std::string& folder) {
  if (run.task)
    tasks::save_task(*run.task, folder);
  else
    text::ByteLevel().save(join_path(folder, "tokenizer.json"));
}

}  // namespace ponder::app
