#include "ponder/tensor/tensor_file.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "ponder/base/file.h"
#include "ponder/tensor/float16.h"
#include "ponder/tensor/tensor_io.h"

namespace ponder {

static_assert(std::endian::native == std::endian::little, "tensor files are little-endian and are read in place");

namespace {

constexpr const char* kScaleSuffix = "_scale_inv";
constexpr size_t kMaxTensors = size_t{1} << 17;  // DeepSeek-V3 has 92,000 in all its shards

struct TypeInfo {
  const char* name;
  size_t bytes;
};
constexpr TypeInfo kTypes[] = {{"F64", 8},     {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1},
                               {"F8_E5M2", 1}, {"I64", 8}, {"I32", 4}, {"I16", 2},  {"I8", 1},
                               {"U64", 8},     {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}};

std::optional<StoredType> stored_type(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i)
    if (name == kTypes[i].name) return static_cast<StoredType>(i);
  return std::nullopt;
}

// --- Header ---------------------------------------------------------------------------------------------------------

struct ParsedTensor {
  TensorEntry entry;
  uint64_t begin = 0, end = 0;
};

// Receives the events of nlohmann's parser (which uses no recursion), so that a header costs its tensors and no tree.
class HeaderReader {
 public:
  HeaderReader(const std::string& path, std::vector<ParsedTensor>& tensors, Metadata& metadata)
      : path_(path), tensors_(tensors), metadata_(metadata) {}

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_float(double, const std::string& text) { return unexpected(shown(text)); }
  bool number_integer(int64_t value) { return unexpected(fmt::format("{}", value)); }
  bool number_unsigned(uint64_t value) {
    if (at_ == At::shape) {
      TensorEntry& e = tensor().entry;
      if (e.rank == kMaxRank) fail("more than {} dimensions", kMaxRank);
      if (value > uint64_t{std::numeric_limits<int64_t>::max()}) fail("dimension {} is too large", value);
      e.dim[e.rank++] = static_cast<int64_t>(value);
    } else if (at_ == At::offsets) {
      if (offsets_ == 2) fail("data_offsets has more than two numbers");
      (offsets_++ ? tensor().end : tensor().begin) = value;
    } else {
      return unexpected(fmt::format("{}", value));
    }
    return true;
  }
  bool string(std::string& value) {
    if (at_ == At::metadata) {
      if (!metadata_.emplace(key_, value).second) fail("metadata {} occurs twice", shown(key_));
    } else if (at_ == At::tensor && key_ == "dtype") {
      const auto type = stored_type(value);
      if (!type) fail("dtype {} is not known", shown(value));
      tensor().entry.dtype = *type;
    } else {
      return unexpected(shown(value));
    }
    return true;
  }
  bool binary(nlohmann::json::binary_t&) { return unexpected("binary"); }
  bool start_object(size_t) {
    if (at_ == At::start) {
      at_ = At::top;
    } else if (at_ == At::top && key_ == "__metadata__") {
      if (seen_metadata_) fail("__metadata__ occurs twice");
      seen_metadata_ = true;
      at_ = At::metadata;
    } else if (at_ == At::top) {
      if (tensors_.size() == kMaxTensors) fail("more than {} tensors", kMaxTensors);
      tensors_.emplace_back().entry.name = key_;
      seen_ = 0;
      at_ = At::tensor;
    } else {
      return unexpected("an object");
    }
    return true;
  }
  bool key(std::string& value) {
    key_ = value;
    if (at_ != At::tensor) return true;
    const unsigned bit = value == "dtype" ? 1u : value == "shape" ? 2u : value == "data_offsets" ? 4u : 0u;
    if (!bit) fail("unknown field {}", shown(value));
    if (seen_ & bit) fail("{} occurs twice", value);
    seen_ |= bit;
    return true;
  }
  bool end_object() {
    if (at_ == At::tensor && seen_ != 7) fail("needs dtype, shape and data_offsets");
    at_ = at_ == At::top ? At::start : At::top;
    return true;
  }
  bool start_array(size_t) {
    if (at_ != At::tensor || key_ == "dtype") return unexpected("an array");
    at_ = key_ == "shape" ? At::shape : At::offsets;
    offsets_ = 0;
    return true;
  }
  bool end_array() {
    if (at_ == At::offsets && offsets_ != 2) fail("data_offsets needs two numbers");
    at_ = At::tensor;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    throw_error(Exit::data, "{}: the header is not valid JSON (byte {} of it)", path_, position);
  }

 private:
  enum class At { start, top, metadata, tensor, shape, offsets };

  ParsedTensor& tensor() { return tensors_.back(); }
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    const bool inside = at_ == At::tensor || at_ == At::shape || at_ == At::offsets;
    throw_error(Exit::data, "{}: header{}: {}", path_, inside ? ": tensor " + shown(tensor().entry.name) : "",
                fmt::format(format, std::forward<Args>(args)...));
  }
  bool unexpected(const std::string& what) {
    fail("{} was not expected{}", what, key_.empty() ? "" : " at " + shown(key_));
    return false;
  }

  const std::string& path_;
  std::vector<ParsedTensor>& tensors_;
  Metadata& metadata_;
  At at_ = At::start;
  std::string key_;
  unsigned seen_ = 0;
  int offsets_ = 0;
  bool seen_metadata_ = false;
};

// size == shape x dtype, in arithmetic that cannot wrap.
void check_size(const std::string& path, const ParsedTensor& t) {
  uint64_t bytes = stored_type_bytes(t.entry.dtype);
  bool overflow = false;
  for (int i = 0; i < t.entry.rank; ++i) overflow |= __builtin_mul_overflow(bytes, uint64_t(t.entry.dim[i]), &bytes);
  if (overflow || bytes > uint64_t{std::numeric_limits<int64_t>::max()})
    throw_error(Exit::data, "{}: tensor {}: shape {} is too large", path, shown(t.entry.name), t.entry.shape_string());
  if (t.end - t.begin != bytes)
    throw_error(Exit::data, "{}: tensor {}: {} {} needs {} bytes, data_offsets span {}", path, shown(t.entry.name),
                stored_type_name(t.entry.dtype), t.entry.shape_string(), bytes, t.end - t.begin);
}

// Sorts by place and proves that the tensors tile the data: no overlap, no hole, nothing left over.
void check_tiling(const std::string& path, std::vector<ParsedTensor>& tensors, uint64_t data_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const ParsedTensor& a, const ParsedTensor& b) {
    return std::tie(a.begin, a.end, a.entry.name) < std::tie(b.begin, b.end, b.entry.name);
  });
  uint64_t place = 0;
  for (const ParsedTensor& t : tensors) {
    if (t.end < t.begin || t.end > data_bytes)
      throw_error(Exit::data, "{}: tensor {}: data_offsets [{}, {}] lie outside the {} bytes of data{}", path,
                  shown(t.entry.name), t.begin, t.end, data_bytes,
                  t.end > data_bytes ? " (is the file cut short?)" : "");
    if (t.begin != place)
      throw_error(Exit::data, "{}: tensor {} begins at {}, but the one before ends at {}: {}", path,
                  shown(t.entry.name), t.begin, place, t.begin < place ? "they overlap" : "there is a hole");
    check_size(path, t);
    place = t.end;
  }
  if (place != data_bytes)
    throw_error(Exit::data, "{}: {} bytes of data belong to no tensor", path, data_bytes - place);
}

}  // namespace

std::optional<BlockType> block_type(StoredType type) {
  switch (type) {
    case StoredType::f32: return BlockType::f32;
    case StoredType::f16: return BlockType::f16;
    case StoredType::bf16: return BlockType::bf16;
    case StoredType::f8_e4m3: return BlockType::fp8;
    default: return std::nullopt;
  }
}

const char* stored_type_name(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }
size_t stored_type_bytes(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }

int64_t TensorEntry::size() const { return static_cast<int64_t>(bytes.size() / stored_type_bytes(dtype)); }

std::string TensorEntry::shape_string() const { return fmt::format("[{}]", fmt::join(dim, dim + rank, ", ")); }

// --- Reading --------------------------------------------------------------------------------------------------------

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& path) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes)
    throw_error(Exit::data, "{}: {} bytes are too few for a safetensors file", path, bytes.size());
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  bytes = bytes.subspan(sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes)
    throw_error(Exit::data, "{}: a header of {} bytes is above the limit of {}: not a safetensors file?", path,
                header_bytes, kMaxHeaderBytes);
  if (header_bytes > bytes.size())
    throw_error(Exit::data, "{}: the header of {} bytes is cut short at {}", path, header_bytes, bytes.size());
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  if (!header_bytes || *text != '{') throw_error(Exit::data, "{}: the header does not begin with '{{'", path);

  SafetensorsFile file;
  file.path_ = path;
  std::vector<ParsedTensor> tensors;
  HeaderReader reader(file.path_, tensors, file.metadata_);
  nlohmann::json::sax_parse(text, text + header_bytes, &reader);
  const auto data = bytes.subspan(header_bytes);
  check_tiling(path, tensors, data.size());

  file.entries_.reserve(tensors.size());
  for (ParsedTensor& t : tensors) {
    t.entry.bytes = data.subspan(t.begin, t.end - t.begin);
    file.entries_.push_back(std::move(t.entry));
  }
  file.by_name_.resize(tensors.size());
  std::iota(file.by_name_.begin(), file.by_name_.end(), 0u);
  const auto name = [&](uint32_t i) -> const std::string& { return file.entries_[i].name; };
  std::sort(file.by_name_.begin(), file.by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  for (size_t i = 1; i < file.by_name_.size(); ++i)
    if (name(file.by_name_[i - 1]) == name(file.by_name_[i]))
      throw_error(Exit::data, "{}: tensor {} occurs twice", path, shown(name(file.by_name_[i])));
  return file;
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  auto mapping = std::make_shared<const MappedFile>(path);
  SafetensorsFile file = parse(mapping->bytes(), path);
  file.mapping_ = std::move(mapping);
  return file;
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view n) { return entries_[i].name < n; });
  return it != by_name_.end() && entries_[*it].name == name ? &entries_[*it] : nullptr;
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
  if (const TensorEntry* e = find(name)) return *e;
  throw_error(Exit::data, "{}: tensor {} is missing", path_, shown(name));
}

namespace {

template <class From, class To, class Convert>
void convert(const TensorEntry& entry, To* out, Convert&& f) {
  const std::byte* p = entry.bytes.data();
  for (int64_t i = 0, n = entry.size(); i < n; ++i, p += sizeof(From)) {
    From x;
    std::memcpy(&x, p, sizeof x);  // data may lie at any alignment
    out[i] = f(x);
  }
}

[[noreturn]] void cannot_read(const TensorEntry& entry, const char* as) {
  const bool f8 = entry.dtype == StoredType::f8_e4m3 || entry.dtype == StoredType::f8_e5m2;
  throw_error(Exit::data, "tensor {}: {} cannot be read as {}{}", shown(entry.name), stored_type_name(entry.dtype), as,
              f8 ? ": its scales are another tensor; read it as a matrix of the checkpoint" : "");
}

template <class Real>
void read_real(const TensorEntry& entry, Real* out, const char* as) {
  switch (entry.dtype) {
    case StoredType::f64: return convert<double>(entry, out, [](double x) { return static_cast<Real>(x); });
    case StoredType::f32: return convert<float>(entry, out, [](float x) { return static_cast<Real>(x); });
    case StoredType::f16: return convert<uint16_t>(entry, out, [](uint16_t x) { return Real{f16_to_f32(x)}; });
    case StoredType::bf16: return convert<uint16_t>(entry, out, [](uint16_t x) { return Real{bf16_to_f32(x)}; });
    default: cannot_read(entry, as);
  }
}

template <class Int>
void read_integer(const TensorEntry& entry, Int* out, const char* as) {
  switch (entry.dtype) {
    case StoredType::i64:
      return convert<int64_t>(entry, out, [&](int64_t x) {
        if (x != static_cast<Int>(x))
          throw_error(Exit::data, "tensor {}: {} does not fit into {}", shown(entry.name), x, as);
        return static_cast<Int>(x);
      });
    case StoredType::i32: return convert<int32_t>(entry, out, [](int32_t x) { return Int{x}; });
    case StoredType::u8: return convert<uint8_t>(entry, out, [](uint8_t x) { return Int{x}; });
    default: cannot_read(entry, as);
  }
}

}  // namespace

void read_f32(const TensorEntry& entry, float* out) { read_real(entry, out, "F32"); }
void read_f64(const TensorEntry& entry, double* out) { read_real(entry, out, "F64"); }
void read_i32(const TensorEntry& entry, int32_t* out) { read_integer(entry, out, "I32"); }
void read_i64(const TensorEntry& entry, int64_t* out) { read_integer(entry, out, "I64"); }

// --- Checkpoints ----------------------------------------------------------------------------------------------------

namespace {

// Picks {"weight_map": {tensor: shard, ...}} out of an index, whatever stands beside it.
class IndexReader {
 public:
  IndexReader(const std::string& path, std::map<std::string, std::string>& shards) : path_(path), shards_(shards) {}

  bool null() { return other(); }
  bool boolean(bool) { return other(); }
  bool number_integer(int64_t) { return other(); }
  bool number_unsigned(uint64_t) { return other(); }
  bool number_float(double, const std::string&) { return other(); }
  bool binary(nlohmann::json::binary_t&) { return other(); }
  bool string(std::string& shard) {
    if (!in_map()) return true;
    // A shard is a file beside the index; a path in its name could reach anywhere.
    if (!shard.ends_with(".safetensors") || shard.find('/') != shard.npos || shard.find('\0') != shard.npos)
      throw_error(Exit::data, "{}: tensor {}: {} is not the name of a .safetensors file", path_, shown(key_),
                  shown(shard));
    if (!shards_.emplace(key_, shard).second) throw_error(Exit::data, "{}: tensor {} occurs twice", path_, shown(key_));
    return true;
  }
  bool key(std::string& value) {
    key_ = value;
    if (depth_ == 1) weight_map_ = value == "weight_map";
    return true;
  }
  bool start_object(size_t) { return in_map() ? other() : open(depth_ == 1 && weight_map_); }
  bool start_array(size_t) { return in_map() || depth_ == 0 ? other() : open(false); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    throw_error(Exit::data, "{}: not valid JSON (byte {})", path_, position);
  }
  bool found() const { return found_; }

 private:
  bool in_map() const { return depth_ == 2 && map_; }
  bool other() {
    if (in_map() || depth_ == 0)
      throw_error(Exit::data, "{}: not an index: expected {{\"weight_map\": {{tensor: file, ...}}}}", path_);
    return true;
  }
  bool open(bool map) {
    if (depth_ == 1) map_ = map;
    if (map && std::exchange(found_, true)) throw_error(Exit::data, "{}: weight_map occurs twice", path_);
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  const std::string& path_;
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
  IndexReader reader(path, shards);
  nlohmann::json::sax_parse(file.text(), &reader);
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
