#include "ponder/tensor/tensor_file.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "ponder/base/file.h"
#include "ponder/base/json_events.h"
#include "ponder/tensor/float16.h"
#include "ponder/tensor/tensor_io.h"

namespace ponder {

static_assert(std::endian::native == std::endian::little, "tensor files are little-endian and are read in place");

namespace {

constexpr size_t kMaxMetadata = 10'000;

struct TypeInfo {
  const char* name;
  size_t bytes;
};
constexpr TypeInfo kTypes[] = {{"F64", 8},     {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1},
                               {"F8_E5M2", 1}, {"I64", 8}, {"I32", 4}, {"I16", 2},  {"I8", 1},
                               {"U64", 8},     {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}};

std::string type_names() {
  std::string out;
  for (const TypeInfo& t : kTypes) out += (out.empty() ? "" : ", ") + std::string(t.name);
  return out;
}

std::optional<StoredType> stored_type(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i)
    if (name == kTypes[i].name) return static_cast<StoredType>(i);
  return std::nullopt;
}

// --- Header ---------------------------------------------------------------------------------------------------------

class HeaderReader {
 public:
  HeaderReader(JsonPlace& place, std::span<const std::byte> data, std::vector<TensorEntry>& tensors, Metadata& metadata)
      : place_(place), data_(data), tensors_(tensors), metadata_(metadata) {}

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_float(double, const std::string& text) { return unexpected(shown(text)); }
  bool number_integer(int64_t value) { return unexpected(fmt::format("{}", value)); }
  bool number_unsigned(uint64_t value) {
    if (at_ == At::shape) {
      TensorEntry& e = tensor();
      if (e.rank == kMaxRank) fail("more than {} dimensions", kMaxRank);
      if (value > uint64_t{std::numeric_limits<int64_t>::max()}) fail("dimension {} is too large", value);
      e.dim[e.rank++] = static_cast<int64_t>(value);
    } else if (at_ == At::offsets) {
      if (offsets_ == 2) fail("data_offsets has more than two numbers");
      (offsets_++ ? end_ : begin_) = value;
    } else {
      return unexpected(fmt::format("{}", value));
    }
    return on();
  }
  bool string(std::string& value) {
    if (at_ == At::metadata) {
      if (metadata_.size() == kMaxMetadata) fail("more than {} entries of __metadata__", kMaxMetadata);
      if (!metadata_.emplace(key_, value).second) fail("metadata {} occurs twice", shown(key_));
    } else if (at_ == At::tensor && key_ == "dtype") {
      const auto type = stored_type(value);
      if (!type) fail("dtype {} is not known ({} are)", shown(value), type_names());
      tensor().dtype = *type;
    } else {
      return unexpected(shown(value));
    }
    return on();
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
      tensors_.emplace_back().name = key_;
      seen_ = 0;
      at_ = At::tensor;
    } else {
      return unexpected("an object");
    }
    return on();
  }
  bool key(std::string& value) {
    key_ = value;
    if (at_ != At::tensor) return on();
    const unsigned bit = value == "dtype" ? 1u : value == "shape" ? 2u : value == "data_offsets" ? 4u : 0u;
    if (!bit) fail("unknown field {}", shown(value));
    if (seen_ & bit) fail("{} occurs twice", value);
    seen_ |= bit;
    return on();
  }
  bool end_object() {
    if (at_ == At::tensor) finish_tensor();
    at_ = at_ == At::top ? At::start : At::top;
    return on();
  }
  bool start_array(size_t) {
    if (at_ != At::tensor || key_ == "dtype") return unexpected("an array");
    at_ = key_ == "shape" ? At::shape : At::offsets;
    offsets_ = 0;
    return on();
  }
  bool end_array() {
    if (at_ == At::offsets && offsets_ != 2) fail("data_offsets needs two numbers");
    at_ = At::tensor;
    return on();
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) {
    place_.fail("the header is not valid JSON");
  }

 private:
  enum class At { start, top, metadata, tensor, shape, offsets };

  // size == shape x dtype, in arithmetic that cannot wrap, and all of it in the file.
  void finish_tensor() {
    if (seen_ != 7) fail("needs dtype, shape and data_offsets");
    TensorEntry& e = tensor();
    if (end_ < begin_ || end_ > data_.size())
      fail("data_offsets [{}, {}] lie outside the {} bytes of data{}", begin_, end_, data_.size(),
           end_ > data_.size() ? ": is the file cut short?" : "");
    uint64_t bytes = stored_type_bytes(e.dtype);
    bool overflow = false;
    for (int i = 0; i < e.rank; ++i) overflow |= __builtin_mul_overflow(bytes, uint64_t(e.dim[i]), &bytes);
    if (overflow || bytes > uint64_t{std::numeric_limits<int64_t>::max()})
      fail("shape {} is too large", e.shape_string());
    if (end_ - begin_ != bytes)
      fail("{} {} needs {} bytes, data_offsets span {}", stored_type_name(e.dtype), e.shape_string(), bytes,
           end_ - begin_);
    e.bytes = data_.subspan(begin_, end_ - begin_);
  }

  TensorEntry& tensor() { return tensors_.back(); }
  bool on() {
    place_.last_event = place_.at;
    return true;
  }
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    const bool inside = at_ == At::tensor || at_ == At::shape || at_ == At::offsets;
    place_.fail("header{}: {}", inside ? ": tensor " + shown(tensor().name) : "",
                fmt::format(format, std::forward<Args>(args)...));
  }
  bool unexpected(const std::string& what) {
    fail("{} was not expected{}", what, key_.empty() ? "" : " at " + shown(key_));
    return false;
  }

  JsonPlace& place_;
  std::span<const std::byte> data_;
  std::vector<TensorEntry>& tensors_;
  Metadata& metadata_;
  At at_ = At::start;
  std::string key_;
  unsigned seen_ = 0;
  int offsets_ = 0;
  uint64_t begin_ = 0, end_ = 0;
  bool seen_metadata_ = false;
};

// Sorts by place and proves that the tensors tile the data, which begins at byte `data_at`: no overlap, no hole, nothing
// left over.
void check_tiling(const std::string& path, std::vector<TensorEntry>& tensors, std::span<const std::byte> data,
                  size_t data_at) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tuple(a.bytes.data(), a.bytes.size(), std::string_view(a.name)) <
           std::tuple(b.bytes.data(), b.bytes.size(), std::string_view(b.name));
  });
  size_t place = 0;
  for (const TensorEntry& t : tensors) {
    const auto begin = static_cast<size_t>(t.bytes.data() - data.data());
    if (begin != place)
      throw_error(Exit::data, "{}: tensor {} begins at {} of the data, but the one before ends at {}: {} (byte {})",
                  path, shown(t.name), begin, place, begin < place ? "they overlap" : "there is a hole",
                  data_at + begin);
    place = begin + t.bytes.size();
  }
  if (place != data.size())
    throw_error(Exit::data, "{}: {} bytes of data belong to no tensor (byte {})", path, data.size() - place,
                data_at + place);
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
    throw_error(Exit::data, "{}: a header of {} bytes is above the limit of {}: not a safetensors file? (byte 0)", path,
                header_bytes, kMaxHeaderBytes);
  if (header_bytes > bytes.size())
    throw_error(Exit::data, "{}: the header of {} bytes is cut short at {} (byte {})", path, header_bytes, bytes.size(),
                sizeof header_bytes + bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), header_bytes);
  if (!text.starts_with('{')) throw_error(Exit::data, "{}: the header does not begin with '{{' (byte 8)", path);

  SafetensorsFile file;
  file.path_ = path;
  JsonPlace place{.path = file.path_, .text = text, .first = sizeof header_bytes};
  const auto data = bytes.subspan(header_bytes);
  // Grown as they come, they would be there twice while they move.
  constexpr size_t kMinBytes = 48;  // "a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
  file.entries_.reserve(std::min(kMaxTensors, text.size() / kMinBytes + 1));
  HeaderReader reader(place, data, file.entries_, file.metadata_);
  read_events(place, reader);
  check_tiling(path, file.entries_, data, sizeof header_bytes + header_bytes);

  file.by_name_.resize(file.entries_.size());
  std::iota(file.by_name_.begin(), file.by_name_.end(), 0u);
  const auto name = [&](uint32_t i) -> const std::string& { return file.entries_[i].name; };
  std::sort(file.by_name_.begin(), file.by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  const auto byte_of = [&](uint32_t i) { return sizeof header_bytes + (file.entries_[i].bytes.data() - bytes.data()); };
  for (size_t i = 1; i < file.by_name_.size(); ++i)
    if (name(file.by_name_[i - 1]) == name(file.by_name_[i]))
      throw_error(Exit::data, "{}: tensor {} occurs twice (its data at bytes {} and {})", path,
                  shown(name(file.by_name_[i])), byte_of(file.by_name_[i - 1]), byte_of(file.by_name_[i]));
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

}  // namespace ponder
