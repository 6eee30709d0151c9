// convert, merge, quantize: a model in another format or another type.
#include <algorithm>
#include <cmath>

#include "ponder/app/commands.h"
#include "ponder/app/compare.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_files.h"
#include "ponder/app/model_output.h"
#include "ponder/app/model_source.h"
#include "ponder/app/model_types.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/model/convert.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::app {
namespace {

// "5G", "500M", "1000000": bytes, in powers of 1024.
uint64_t byte_count(const std::string& option, const std::string& text) {
  size_t used = 0;
  double n = 0;
  try {
    n = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  std::string unit = text.substr(used);
  if (unit.ends_with("iB")) unit.resize(unit.size() - 2);
  if (unit.ends_with("B")) unit.resize(unit.size() - 1);
  const size_t power = unit.empty() ? 0 : unit.size() == 1 ? std::string_view("KMGT").find(unit[0]) + 1 : 9;
  if (used == 0 || power > 4 || !(n > 0)) throw_error(Exit::usage, "--{} {}: write 5G or 500M", option, text);
  return static_cast<uint64_t>(std::max(1.0, n * std::pow(1024.0, static_cast<double>(power))));
}

constexpr uint64_t kWhole = UINT64_MAX;  // one file, however large

struct Job {
  std::string from, out;
  std::string type = "keep";
  uint64_t max_bytes = 0;  // of a file; 0: as is usual for the format
  bool force = false;
};

// The types of the matrices that would change for lack of a place in the new format.
void say_what_changes(const model::WeightSource& source, const model::TypeScheme& type, bool gguf) {
  if (type.name() != "keep") return;
  bool fp8 = false, blocks = false;
  for (const std::string& name : source.names()) {
    const model::StoredTensor t = source.find(name);
    fp8 |= t.matrix.type == BlockType::fp8;
    blocks |= t.matrix.type != BlockType::fp8 && block_spec(t.matrix.type).elements > 1;
  }
  if (gguf && fp8) log_warn("GGUF has no FP8: it becomes BF16 (--type q8_0 is as large as FP8)");
  if (!gguf && blocks) log_warn("safetensors have no blocks: quantised matrices become BF16");
}

// Returns the path to open.
std::string write_model(const Job& job, ThreadPool& pool) {
  const bool gguf = job.out.ends_with(".gguf");
  const model::TypeScheme type(job.type);
  if (gguf && type.fp8()) throw_error(Exit::usage, "--type fp8: GGUF has no FP8; take q8_0, or name a folder");
  const std::string path = resolve_model(job.from);
  const auto source = model::WeightSource::open(path);
  ModelOutput output(job.out,
                     {.force = job.force, .source = path, .split = job.max_bytes != 0 && job.max_bytes != kWhole});
  say_what_changes(*source, type, gguf);
  Progress progress("convert");
  const auto show = [&](int64_t done, int64_t of, const std::string& tensor) {
    if (stop_requested())
      throw_error(Exit::resumable, "stopped; {} is as it was, the same command begins anew", job.out);
    progress.update({done, of, tensor});
  };
  if (gguf) {
    GgufMetadata more = companions_for_gguf(*source);
    if (source->gguf() && type.name() == "keep" && source->gguf()->has("general.file_type"))
      more.push_back({"general.file_type", GgufValue{source->gguf()->integer("general.file_type")}});
    return output.publish(model::write_gguf_model(*source, output.aside(), type, more, pool, show,
                                                  job.max_bytes ? job.max_bytes : kWhole));
  }
  write_companion_files(*source, output.aside());
  model::write_safetensors_model(*source, output.aside(), type, pool, show,
                                 job.max_bytes ? job.max_bytes : kShardBytes);
  return output.publish(output.aside());
}

int finish(const Arguments& args, const Job& job, const std::string& written, const Comparison* quality) {
  const auto source = model::WeightSource::open(resolve_model(job.from)), made = model::WeightSource::open(written);
  const std::vector<TypeChange> changes = type_changes(*source, *made);
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("path", written).member("type", job.type).member("bytes_before", source->bytes());
    w.member("bytes", made->bytes()).key("tensors").begin_array();
    for (const TypeChange& c : changes)
      w.begin_object().member("from", c.from).member("to", c.to).member("count", c.tensors).end_object();
    w.end_array();
    if (quality) w.key("quality").raw(quality->json());
    w.end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  fmt::print("{}: {} of weights (before: {})\n", written, format_bytes(static_cast<uint64_t>(made->bytes())),
             format_bytes(static_cast<uint64_t>(source->bytes())));
  fmt::print("tensors: {}\n", type_changes_text(changes));
  if (quality) fmt::print("against {}: {}\n", job.from, quality->text());
  return 0;
}

Job job_of(const Arguments& args) {
  return {.from = args.positional[0], .out = args.positional[1], .force = args.has("force")};
}

}  // namespace

int convert_command(const Arguments& args) {
  Job job = job_of(args);
  job.type = args.text("type", "keep");
  if (args.has("max-size")) job.max_bytes = byte_count("max-size", args.text("max-size"));
  install_stop_signals();
  ThreadPool pool(args.threads());
  return finish(args, job, write_model(job, pool), nullptr);
}

int merge_command(const Arguments& args) {
  Job job = job_of(args);
  job.max_bytes = kWhole;
  install_stop_signals();
  ThreadPool pool(args.threads());
  return finish(args, job, write_model(job, pool), nullptr);
}

int quantize_command(const Arguments& args) {
  Job job = job_of(args);
  if (!args.has("type")) throw_error(Exit::usage, "--type is missing: {}", fmt::join(model::type_schemes(), ", "));
  job.type = args.text("type");
  install_stop_signals();
  Machine machine(args.threads());
  // The text is read first: what is wrong with it should not be found out after an hour.
  const model::ModelOptions options{.stored = true, .mtp = false};
  std::optional<LoadedModel> source;
  CompareText text;
  if (args.has("text")) {
    source = load_any_model(job.from, machine, options);
    text = read_compare_text(*source, args.text("text"), args.integer("tokens", 8192, 2, 1 << 30), 512);
  }
  const std::string written = write_model(job, machine.pool);
  if (!source) return finish(args, job, written, nullptr);
  const LoadedModel made = load_any_model(written, machine, options);
  const Comparison quality = compare({source->model.get(), kernels::Activations::f32, source->path},
                                     {made.model.get(), kernels::Activations::f32, made.path}, text, *machine.backend);
  return finish(args, job, written, &quality);
}

}  // namespace ponder::app
