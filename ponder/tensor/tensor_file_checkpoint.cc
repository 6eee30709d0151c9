// Checkpoint: the tensors of a model in one file or in shards with an index.
#include <algorithm>
#include <map>

#include "ponder/base/file.h"
#include "ponder/base/json_events.h"
#include "ponder/tensor/tensor_file.h"
#include "ponder/tensor/tensor_io.h"

namespace ponder {

namespace {

constexpr const char* kScaleSuffix = "_scale_inv";
constexpr int kMaxDepth = 64;

// Picks {"weight_map": {tensor: shard, ...}} out of an index, whatever stands beside it.
class IndexReader {
 public:
  IndexReader(JsonPlace& place, std::map<std::string, std::string>& shards) : place_(place), shards_(shards) {}

  bool null() { return other(); }
  bool boolean(bool) { return other(); }
  bool number_integer(int64_t) { return other() && on(); }
  bool number_unsigned(uint64_t) { return other() && on(); }
  bool number_float(double, const std::string&) { return other() && on(); }
  bool binary(nlohmann::json::binary_t&) { return other(); }
  bool string(std::string& shard) {
    if (!in_map()) return on();
    // A shard is a file beside the index; a path in its name could reach anywhere.
    if (!shard.ends_with(".safetensors") || shard.find('/') != shard.npos || shard.find('\0') != shard.npos)
      place_.fail("tensor {}: {} is not the name of a .safetensors file", shown(key_), shown(shard));
    if (shards_.size() == kMaxTensors) place_.fail("more than {} tensors", kMaxTensors);
    if (!shards_.emplace(key_, shard).second) place_.fail("tensor {} occurs twice", shown(key_));
    return on();
  }
  bool key(std::string& value) {
    key_ = value;
    if (depth_ == 1) weight_map_ = value == "weight_map";
    return on();
  }
  bool start_object(size_t) { return in_map() ? other() : open(depth_ == 1 && weight_map_); }
  bool start_array(size_t) { return in_map() || depth_ == 0 ? other() : open(false); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) { place_.fail("not valid JSON"); }
  bool found() const { return found_; }

 private:
  bool in_map() const { return depth_ == 2 && map_; }
  // The parser lets go of what it has collected at texts and numbers only.
  bool on() {
    place_.last_event = place_.at;
    return true;
  }
  bool other() {
    if (in_map() || depth_ == 0) place_.fail("not an index: expected {{\"weight_map\": {{tensor: file, ...}}}}");
    return true;
  }
  bool open(bool map) {
    if (depth_ == 1) map_ = map;
    if (map && std::exchange(found_, true)) place_.fail("weight_map occurs twice");
    if (++depth_ > kMaxDepth) place_.fail("more than {} levels of nesting", kMaxDepth);
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  JsonPlace& place_;
  std::map<std::string, std::string>& shards_;
  std::string key_;
  int depth_ = 0;
  bool weight_map_ = false, map_ = false, found_ = false;
};

std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const MappedFile file(path);
  if (file.size() > kMaxHeaderBytes)
    throw_error(Exit::data, "{}: an index of {} bytes is above the limit of {}", path, file.size(), kMaxHeaderBytes);
  std::map<std::string, std::string> shards;
  JsonPlace place{.path = path, .text = file.text()};
  IndexReader reader(place, shards);
  read_events(place, reader);
  if (!reader.found()) throw_error(Exit::data, "{}: not an index: it has no weight_map", path);
  return shards;
}

}  // namespace

void Checkpoint::add_index(const std::string& folder, const std::string& index_path) {
  const auto weight_map = read_weight_map(index_path);
  std::map<std::string, size_t> shards;  // shard -> place in files_
  std::string missing;
  for (const auto& [name, shard] : weight_map) shards.emplace(shard, 0);
  for (auto& [shard, place] : shards) {
    const std::string path = join_path(folder, shard);
    if (!path_exists(path)) {
      missing += (missing.empty() ? "" : ", ") + shown(shard);
      continue;
    }
    place = files_.size();
    files_.push_back(SafetensorsFile::open(path));
  }
  if (!missing.empty()) throw_error(Exit::data, "{}: shards are missing: {}", index_path, missing);
  for (const auto& [name, shard] : weight_map) entries_.push_back(&files_[shards[shard]].at(name));
}

Checkpoint Checkpoint::open(const std::string& folder_or_file) {
  Checkpoint c;
  c.path_ = folder_or_file;
  std::string file = folder_or_file;
  if (is_folder(folder_or_file)) {
    const std::string index = join_path(folder_or_file, "model.safetensors.index.json");
    file = join_path(folder_or_file, "model.safetensors");
    if (!path_exists(file) && path_exists(index)) {
      c.add_index(folder_or_file, index);
      c.align_scales();
      return c;
    }
    if (!path_exists(file)) {
      std::vector<std::string> found = list_folder(folder_or_file);
      std::erase_if(found, [](const std::string& name) { return !name.ends_with(".safetensors"); });
      if (found.size() != 1)
        throw_error(Exit::data,
                    "{}: expected model.safetensors, model.safetensors.index.json or one .safetensors file, found {} "
                    "of the last",
                    folder_or_file, found.size());
      file = join_path(folder_or_file, found[0]);
    }
  }
  c.files_.push_back(SafetensorsFile::open(file));
  for (const TensorEntry& e : c.files_[0].entries()) c.entries_.push_back(&e);
  std::sort(c.entries_.begin(), c.entries_.end(), [](auto* a, auto* b) { return a->name < b->name; });
  c.align_scales();
  return c;
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), name,
                                   [](const TensorEntry* e, std::string_view n) { return e->name < n; });
  return it != entries_.end() && (*it)->name == name ? *it : nullptr;
}

const TensorEntry& Checkpoint::at(std::string_view name) const {
  if (const TensorEntry* e = find(name)) return *e;
  throw_error(Exit::data, "{}: tensor {} is missing", path_, shown(name));
}

void Checkpoint::align_scales() {
  for (const TensorEntry* e : entries_) {
    const bool aligned = reinterpret_cast<uintptr_t>(e->bytes.data()) % alignof(float) == 0;
    if (aligned || e->dtype != StoredType::f32 || !e->name.ends_with(kScaleSuffix)) continue;
    auto& copy = aligned_scales_[e];
    copy.resize(static_cast<size_t>(e->size()));
    read_f32(*e, copy.data());
  }
}

Quantized Checkpoint::matrix(std::string_view name) const {
  const TensorEntry& e = at(name);
  const auto type = block_type(e.dtype);
  if (!type || e.rank != 2)
    throw_error(Exit::data, "{}: tensor {}: {} {} is not a matrix of F32, F16, BF16 or F8_E4M3", path_, shown(name),
                stored_type_name(e.dtype), e.shape_string());
  Quantized w{.type = *type, .rows = e.dim[0], .cols = e.dim[1], .data = e.bytes.data()};
  w.row_bytes = block_row_bytes(w.type, w.cols);
  if (w.type != BlockType::fp8) return w;

  const std::string companion = std::string(name) + kScaleSuffix;
  const TensorEntry* scales = find(companion);
  const int64_t rows = (w.rows + kScaleBlock - 1) / kScaleBlock, cols = (w.cols + kScaleBlock - 1) / kScaleBlock;
  const std::string wanted = fmt::format("F32 [{}, {}]", rows, cols);
  if (!scales)
    throw_error(Exit::data, "{}: tensor {}: {} {} needs the scales {} {}, which are missing", path_, shown(name),
                stored_type_name(e.dtype), e.shape_string(), shown(companion), wanted);
  if (scales->dtype != StoredType::f32 || scales->rank != 2 || scales->dim[0] != rows || scales->dim[1] != cols)
    throw_error(Exit::data, "{}: tensor {}: expected {} (one for every {} x {} numbers), found {} {}", path_,
                shown(companion), wanted, kScaleBlock, kScaleBlock, stored_type_name(scales->dtype),
                scales->shape_string());
  const auto copy = aligned_scales_.find(scales);
  w.scales = copy != aligned_scales_.end() ? copy->second.data() : reinterpret_cast<const float*>(scales->bytes.data());
  w.scales_ld = cols;
  return w;
}

}  // namespace ponder
