#include "ponder/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/hash.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"

namespace ponder::train {
namespace {

constexpr int kFormat = 1;
constexpr size_t kMaxJsonBytes = size_t{4} << 20;
constexpr const char* kManifest = "manifest.json";

std::string step_name(int64_t step) { return fmt::format("step-{:06}", step); }

// Files below a folder, as paths relative to it.
std::vector<std::string> files_below(const std::string& folder, const std::string& prefix = "") {
  std::vector<std::string> files;
  for (const std::string& name : list_folder(prefix.empty() ? folder : join_path(folder, prefix))) {
    const std::string relative = prefix.empty() ? name : join_path(prefix, name);
    if (is_folder(join_path(folder, relative))) {
      const auto below = files_below(folder, relative);
      files.insert(files.end(), below.begin(), below.end());
    } else if (relative != kManifest) {
      files.push_back(relative);
    }
  }
  return files;
}

void write_manifest(const std::string& folder, const CheckpointState& state) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().member("format", kFormat).member("version", state.version).key("files").begin_array();
  for (const std::string& name : files_below(folder)) {
    const std::string path = join_path(folder, name);
    w.begin_object()
        .member("name", name)
        .member("bytes", file_size(path))
        .member("xxh3_128", hash_file(path))
        .end_object();
  }
  w.end_array().end_object();
  write_file_atomic(join_path(folder, kManifest), json + "\n");
}

void write_state(const std::string& folder, const CheckpointState& state) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().member("format", kFormat).member("step", state.step).member("stage", state.stage);
  w.member("stage_step", state.stage_step).member("recipe_hash", state.recipe_hash).member("version", state.version);
  w.key("counters").begin_object();
  for (const auto& [name, value] : state.counters)
    if (std::isfinite(value)) w.member(name, value);
  w.end_object().end_object();
  write_file_atomic(join_path(folder, "state.json"), json + "\n");
}

const Json& member(const Json& object, const char* key, const std::string& path) {
  const auto at = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || at == object.end()) throw_error(Exit::data, "{}: \"{}\" is missing", path, key);
  return *at;
}
int64_t integer(const Json& object, const char* key, const std::string& path) {
  const Json& value = member(object, key, path);
  if (!value.is_number_integer()) throw_error(Exit::data, "{}: \"{}\" is no whole number", path, key);
  return value.get<int64_t>();
}
std::string text(const Json& object, const char* key, const std::string& path) {
  const Json& value = member(object, key, path);
  if (!value.is_string()) throw_error(Exit::data, "{}: \"{}\" is no text", path, key);
  return value.get<std::string>();
}

Json read_format(const std::string& path) {
  Json json = read_json(path, {.max_bytes = kMaxJsonBytes, .max_depth = 8});
  if (const int64_t format = integer(json, "format", path); format < 1 || format > kFormat)
    throw_error(Exit::data, "{}: format {} is newer than this program, which reads up to {}", path, format, kFormat);
  return json;
}

}  // namespace

void verify_checkpoint(const std::string& folder) {
  const std::string path = join_path(folder, kManifest);
  if (!path_exists(path)) throw_error(Exit::data, "{}: it has no {}", folder, kManifest);
  const Json manifest = read_format(path);
  const Json& files = member(manifest, "files", path);
  if (!files.is_array() || files.empty()) throw_error(Exit::data, "{}: \"files\" names no files", path);
  for (const Json& entry : files) {
    const std::string name = text(entry, "name", path);
    if (name.empty() || name[0] == '/' || name.find("..") != name.npos)
      throw_error(Exit::data, "{}: the name \"{}\" leads out of the folder", path, name);
    const std::string file = join_path(folder, name);
    if (!path_exists(file)) throw_error(Exit::data, "{}: {} is missing", folder, name);
    const uint64_t bytes = file_size(file);
    if (static_cast<int64_t>(bytes) != integer(entry, "bytes", path))
      throw_error(Exit::data, "{}: {} has {} bytes, but {} says {}", folder, name, bytes, kManifest,
                  integer(entry, "bytes", path));
    if (hash_file(file) != text(entry, "xxh3_128", path))
      throw_error(Exit::data, "{}: {} is damaged: its hash differs from the one in {}", folder, name, kManifest);
  }
}

CheckpointState read_state(const std::string& folder) {
  const std::string path = join_path(folder, "state.json");
  const Json json = read_format(path);
  CheckpointState state{.step = integer(json, "step", path),
                        .stage = text(json, "stage", path),
                        .stage_step = integer(json, "stage_step", path),
                        .recipe_hash = text(json, "recipe_hash", path),
                        .version = text(json, "version", path),
                        .counters = {}};
  const Json& counters = member(json, "counters", path);
  if (!counters.is_object()) throw_error(Exit::data, "{}: \"counters\" is no object", path);
  for (const auto& [name, value] : counters.items()) {
    if (value.is_null()) continue;  // once written for infinity
    if (!value.is_number()) throw_error(Exit::data, "{}: the counter \"{}\" is no number", path, name);
    state.counters[name] = value.get<double>();
  }
  return state;
}

CheckpointStore::CheckpointStore(std::string run_folder, int64_t keep)
    : run_(std::move(run_folder)), keep_(std::max<int64_t>(1, keep)) {}

std::string CheckpointStore::folder(int64_t step) const {
  return join_path(join_path(run_, "checkpoints"), step_name(step));
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> steps;
  const std::string all = join_path(run_, "checkpoints");
  if (!is_folder(all)) return steps;
  for (const std::string& name : list_folder(all)) {
    int64_t step = 0;
    if (!name.starts_with("step-")) continue;
    const char* const end = name.data() + name.size();
    if (const auto [at, error] = std::from_chars(name.data() + 5, end, step);
        error == std::errc{} && at == end && step >= 0)
      steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string CheckpointStore::save(const CheckpointContents& contents, const Marks& marks) {
  const std::string all = join_path(run_, "checkpoints"), final = folder(contents.state.step), aside = final + ".tmp";
  make_folders(all);
  for (const std::string& name : list_folder(all))
    if (name.ends_with(".tmp") || name.ends_with(".old")) remove_tree(join_path(all, name));

  uint64_t needed = uint64_t{1} << 20;
  for (const model::Model* m : {&contents.model, contents.reference})
    if (m) needed += m->params().value_bytes() + m->params().value_bytes() / 4;
  for (const NamedTensor& t : contents.optimizer)
    needed += static_cast<uint64_t>(t.tensor.size()) * dtype_bytes(t.stored);
  if (const uint64_t room = free_space(all); room < needed)
    throw_error(Exit::resources,
                "{}: a checkpoint needs {}, but the disk has {} left; the checkpoint before it stands. Make room, then "
                "run the same command again",
                all, format_bytes(needed), format_bytes(room));

  make_folders(aside);
  model::save_model(contents.model, aside);
  if (!contents.optimizer.empty()) write_safetensors(join_path(aside, "optimizer.safetensors"), contents.optimizer);
  if (contents.reference) {
    make_folders(join_path(aside, "reference"));
    model::save_model(*contents.reference, join_path(aside, "reference"));
    sync_folder(join_path(aside, "reference"));
  }
  if (contents.add_files) contents.add_files(aside);
  write_state(aside, contents.state);
  write_manifest(aside, contents.state);
  sync_folder(aside);
  verify_checkpoint(aside);

  if (path_exists(final)) {  // a damaged one that this attempt has passed over
    rename_path(final, final + ".old");
    rename_path(aside, final);
    remove_tree(final + ".old");
  } else {
    rename_path(aside, final);
  }
  sync_folder(all);
  mark(contents.state, marks);
  remove_old(contents.state.step);
  return final;
}

void CheckpointStore::mark(const CheckpointState& state, const Marks& marks) const {
  const std::string pointer = join_path("checkpoints", step_name(state.step));
  write_pointer(join_path(run_, "LATEST"), pointer);
  if (marks.best) write_pointer(join_path(run_, "BEST"), pointer);
  if (marks.stage_end) {
    make_folders(join_path(run_, "stages"));
    write_pointer(join_path(join_path(run_, "stages"), state.stage), pointer);
  }
}

std::vector<std::pair<std::string, std::string>> stage_ends(const std::string& run) {
  std::vector<std::pair<std::string, std::string>> ends;
  const std::string folder = join_path(run, "stages");
  if (!is_folder(folder)) return ends;
  for (const std::string& name : list_folder(folder))  // a crash may leave a torn pointer beside the others
    if (name.find(".tmp") == name.npos) ends.emplace_back(name, read_pointer(join_path(folder, name)).value_or(""));
  return ends;
}

void CheckpointStore::remove_old(int64_t newest) const {
  std::set<std::string> marked = {read_pointer(join_path(run_, "BEST")).value_or("")};
  for (const auto& [stage, target] : stage_ends(run_)) marked.insert(target);
  int64_t kept = 0;
  const std::vector<int64_t> all = steps();
  for (size_t i = all.size(); i-- > 0;) {
    if (all[i] <= newest && kept < keep_) {
      ++kept;
      continue;
    }
    if (marked.count(join_path("checkpoints", step_name(all[i])))) continue;
    remove_tree(folder(all[i]));
  }
}

std::optional<std::string> CheckpointStore::newest() const {
  const std::vector<int64_t> all = steps();
  for (size_t i = all.size(); i-- > 0;) {
    try {
      verify_checkpoint(folder(all[i]));
      read_state(folder(all[i]));
      return folder(all[i]);
    } catch (const Error& e) {
      log_warn("CHECKPOINT DAMAGED, trying the one before it. {}", e.what());
    }
  }
  if (!all.empty())
    throw_error(Exit::data, "{}: none of the {} checkpoints is whole; start afresh with --resume never",
                join_path(run_, "checkpoints"), all.size());
  return std::nullopt;
}

}  // namespace ponder::train
