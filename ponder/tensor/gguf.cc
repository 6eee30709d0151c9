#include "ponder/tensor/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "ponder/base/file.h"
#include "ponder/tensor/gguf_format.h"
#include "ponder/tensor/tensor_io.h"

namespace ponder {

namespace {

using gguf::ValueType;

// What a parsed file may cost in memory beyond its mapping: its own size plus this. Metadata of many empty strings or
// one-byte integers would otherwise be many times as large in memory as in the file.
constexpr uint64_t kSpare = 12 << 20;
constexpr uint64_t kMaxTensors = 1 << 20;

// Reads the bytes of a file from front to back; whatever is wrong names the place.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(path), budget_(bytes.size() + kSpare) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }
  std::string context;  // what is being read: "metadata 'x'", "tensor 'y'"

  template <class... Args>
  [[noreturn]] void fail(uint64_t at, fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(Exit::data, "{}: {}{}{} (byte {})", path_, context, context.empty() ? "" : ": ",
                fmt::format(format, std::forward<Args>(args)...), at);
  }

  const std::byte* take(uint64_t bytes, const char* what) {
    if (bytes > left()) fail(at_, "{} of {} bytes, but only {} are left: is the file cut short?", what, bytes, left());
    const std::byte* p = bytes_.data() + at_;
    at_ += bytes;
    return p;
  }
  template <class T>
  T number(const char* what) {
    T x;
    std::memcpy(&x, take(sizeof x, what), sizeof x);
    return x;
  }
  std::string_view text(const char* what) {
    const auto bytes = number<uint64_t>(what);
    return {reinterpret_cast<const char*>(take(bytes, what)), bytes};
  }
  // How many of something that takes at least `min_bytes` each; `cost` is what one costs in memory.
  uint64_t count(uint64_t n, uint64_t min_bytes, uint64_t cost, const char* what) {
    if (n > left() / min_bytes) fail(at_, "{} {}, but only {} bytes are left: is the file cut short?", n, what, left());
    spend(n * cost);
    return n;
  }
  void spend(uint64_t bytes) {
    if (bytes > budget_) fail(at_, "the metadata is out of proportion to the file of {} bytes", bytes_.size());
    budget_ -= bytes;
  }
  void spend_text(uint64_t bytes) {
    if (bytes > 15) spend(bytes + 24);  // longer ones lie in a block of their own
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t at_ = 0, budget_;
};

// --- Metadata --------------------------------------------------------------------------------------------------------

template <class T>
int64_t read_integer(Cursor& in) {
  return static_cast<int64_t>(in.number<T>("an integer"));
}

bool read_boolean(Cursor& in) {
  const uint64_t at = in.at();
  const auto x = in.number<uint8_t>("a boolean");
  if (x > 1) in.fail(at, "a boolean is 0 or 1, not {}", x);
  return x;
}

std::string read_string(Cursor& in) {
  const std::string_view s = in.text("a string");
  in.spend_text(s.size());
  return std::string(s);
}

template <class Out, class T, class Read>
GgufValue read_array(Cursor& in, uint64_t n, uint64_t min_bytes, Read&& read) {
  in.count(n, min_bytes, sizeof(T), "elements of an array");
  Out out;
  out.reserve(n);
  for (uint64_t i = 0; i < n; ++i) out.push_back(read(in));
  return {std::move(out)};
}

// One value, or `n` of them.
template <class Array, class Read>
GgufValue read_values(Cursor& in, std::optional<uint64_t> n, uint64_t min_bytes, Read&& read) {
  if (!n) return {read(in)};
  return read_array<Array, typename Array::value_type>(in, *n, min_bytes, read);
}

template <class T>
GgufValue read_integers(Cursor& in, std::optional<uint64_t> n) {
  return read_values<GgufValue::Integers>(in, n, sizeof(T), read_integer<T>);
}
// As signed integers, unless one is above their range.
GgufValue read_unsigned(Cursor& in, std::optional<uint64_t> n) {
  GgufValue read = read_integers<uint64_t>(in, n);
  if (const auto* x = std::get_if<int64_t>(&read.value)) {
    if (*x < 0) return {static_cast<uint64_t>(*x)};
  } else if (const auto& list = std::get<GgufValue::Integers>(read.value);
             std::any_of(list.begin(), list.end(), [](int64_t i) { return i < 0; })) {
    in.spend(list.size() * sizeof(uint64_t));
    return {GgufValue::Unsigned(list.begin(), list.end())};
  }
  return read;
}
template <class T>
GgufValue read_floats(Cursor& in, std::optional<uint64_t> n) {
  return read_values<GgufValue::Floats>(in, n, sizeof(T),
                                        [](Cursor& c) { return static_cast<double>(c.number<T>("a number")); });
}

GgufValue read_value(Cursor& in) {
  const uint64_t at = in.at();
  auto type = static_cast<ValueType>(in.number<uint32_t>("a type"));
  std::optional<uint64_t> n;
  if (type == ValueType::array) {
    type = static_cast<ValueType>(in.number<uint32_t>("a type"));
    if (type == ValueType::array) in.fail(at, "an array of arrays cannot be read");
    n = in.number<uint64_t>("the length of an array");
  }
  switch (type) {
    case ValueType::u8: return read_integers<uint8_t>(in, n);
    case ValueType::i8: return read_integers<int8_t>(in, n);
    case ValueType::u16: return read_integers<uint16_t>(in, n);
    case ValueType::i16: return read_integers<int16_t>(in, n);
    case ValueType::u32: return read_integers<uint32_t>(in, n);
    case ValueType::i32: return read_integers<int32_t>(in, n);
    case ValueType::u64: return read_unsigned(in, n);
    case ValueType::i64: return read_integers<int64_t>(in, n);
    case ValueType::f32: return read_floats<float>(in, n);
    case ValueType::f64: return read_floats<double>(in, n);
    case ValueType::boolean: return read_values<std::vector<bool>>(in, n, 1, read_boolean);
    case ValueType::string: return read_values<GgufValue::Strings>(in, n, 8, read_string);
    case ValueType::array: break;
  }
  in.fail(at, "value type {} is not known (0 to 12 are)", static_cast<uint32_t>(type));
}

using Metadata = std::map<std::string, GgufValue, std::less<>>;

void read_metadata(Cursor& in, uint64_t n, Metadata& metadata) {
  constexpr uint64_t kMinBytes = 8 + 1 + 4 + 1, kCost = 6 * sizeof(void*) + sizeof(Metadata::value_type);
  in.count(n, kMinBytes, kCost, "keys of metadata");
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t at = in.at();
    const std::string_view key = in.text("a key");
    if (key.empty()) in.fail(at, "key {} is empty", i);
    in.context = "metadata " + shown(key);
    in.spend_text(key.size());
    if (metadata.find(key) != metadata.end()) in.fail(at, "occurs twice");
    metadata.emplace(key, read_value(in));
    in.context.clear();
  }
}

// --- Tensors ---------------------------------------------------------------------------------------------------------

struct Placed {
  uint32_t tensor;
  uint64_t at;      // of its entry in the table
  uint64_t offset;  // from the beginning of the data
};

uint64_t checked_bytes(const Cursor& in, uint64_t at, const GgufTensor& t) {
  const BlockSpec& spec = block_spec(t.type);
  int64_t numbers = 1, bytes = 0;
  bool overflow = false;
  for (int i = 0; i < t.rank; ++i) overflow |= __builtin_mul_overflow(numbers, t.dim[i], &numbers);
  if (t.cols() % spec.elements)
    in.fail(at, "rows of {} numbers are not whole blocks of {} ({})", t.cols(), spec.elements, spec.name);
  overflow |= __builtin_mul_overflow(numbers / spec.elements, int64_t{spec.bytes}, &bytes);
  if (overflow) in.fail(at, "shape {} is too large", t.shape_string());
  return static_cast<uint64_t>(bytes);
}

// Those that can be read, by name and number.
std::string ggml_types() {
  std::string out;
  for (int i = 0; i < kBlockTypes; ++i)
    if (const BlockSpec& spec = block_spec(static_cast<BlockType>(i)); spec.ggml_type >= 0)
      out += fmt::format("{}{} {}", out.empty() ? "" : ", ", spec.ggml_type, spec.name);
  return out;
}

Placed read_tensor(Cursor& in, GgufTensor& t) {
  Placed place{0, in.at(), 0};
  t.name = in.text("the name of a tensor");
  in.spend_text(t.name.size());
  in.context = "tensor " + shown(t.name);
  const auto rank = in.number<uint32_t>("the number of dimensions");
  if (rank > kMaxRank) in.fail(place.at, "{} dimensions, at most {} can be read", rank, kMaxRank);
  t.rank = static_cast<int>(rank);
  for (int i = t.rank; i-- > 0;) {  // the fastest comes first in the file
    const auto n = in.number<uint64_t>("a dimension");
    if (n == 0 || n > uint64_t{std::numeric_limits<int64_t>::max()}) in.fail(place.at, "a dimension of {}", n);
    t.dim[i] = static_cast<int64_t>(n);
  }
  const auto type = in.number<uint32_t>("a type");
  const auto known = block_type_of_ggml(type);
  if (!known) in.fail(place.at, "type {} of ggml cannot be read (supported: {})", type, ggml_types());
  t.type = *known;
  t.bytes = static_cast<int64_t>(checked_bytes(in, place.at, t));
  place.offset = in.number<uint64_t>("an offset");
  in.context.clear();
  return place;
}

// Proves that every tensor lies in the data, aligned, and none on another.
void place_tensors(const Cursor& in, uint64_t alignment, std::span<const std::byte> data, std::vector<Placed>& places,
                   std::vector<GgufTensor>& tensors, uint64_t data_at) {
  std::sort(places.begin(), places.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.offset, a.tensor) < std::tie(b.offset, b.tensor);
  });
  uint64_t end = 0;
  const GgufTensor* before = nullptr;
  for (const Placed& p : places) {
    GgufTensor& t = tensors[p.tensor];
    const auto name = shown(t.name);
    const auto bytes = static_cast<uint64_t>(t.bytes);
    if (p.offset % alignment) in.fail(p.at, "tensor {}: offset {} is no multiple of {}", name, p.offset, alignment);
    if (p.offset > data.size() || bytes > data.size() - p.offset)
      in.fail(p.at, "tensor {}: {} bytes at {} + {} lie outside the file of {} bytes: is it cut short?", name, bytes,
              data_at, p.offset, data_at + data.size());
    if (before && p.offset < end) in.fail(p.at, "tensors {} and {} overlap", shown(before->name), name);
    t.data = data.data() + p.offset;
    end = p.offset + bytes;
    before = &t;
  }
}

uint64_t alignment_of(const Cursor& in, const GgufFile& file) {
  const int64_t alignment = file.integer(gguf::kAlignmentKey, gguf::kDefaultAlignment);
  if (alignment < 1 || alignment > 1 << 30 || !std::has_single_bit(static_cast<uint64_t>(alignment)))
    in.fail(in.at(), "{} is {}, not a power of two below 2^30", gguf::kAlignmentKey, alignment);
  return static_cast<uint64_t>(alignment);
}

}  // namespace

Quantized GgufTensor::matrix() const {
  return {.type = type, .rows = rows(), .cols = cols(), .data = data, .row_bytes = block_row_bytes(type, cols())};
}

std::string GgufTensor::shape_string() const { return fmt::format("[{}]", fmt::join(dim, dim + rank, ", ")); }

GgufFile GgufFile::parse(std::span<const std::byte> bytes, const std::string& path) {
  GgufFile file;
  file.path_ = path;
  Cursor in(bytes, file.path_);
  if (bytes.size() < 4 || std::memcmp(in.take(4, "the magic"), gguf::kMagic, 4) != 0)
    throw_error(Exit::data, "{}: not a GGUF file: it does not begin with 'GGUF'", path);
  const auto version = in.number<uint32_t>("the version");
  if (version && !(version & 0xFFFF))
    in.fail(4, "a big-endian file (version {}) is not supported; convert it to little-endian", version >> 24);
  if (version != 2 && version != 3) in.fail(4, "GGUF version {} is not supported, only 2 and 3", version);
  const auto tensors = in.number<uint64_t>("the number of tensors");
  const auto keys = in.number<uint64_t>("the number of keys");
  read_metadata(in, keys, file.metadata_);

  constexpr uint64_t kMinBytes = 8 + 4 + 4 + 8, kCost = sizeof(GgufTensor) + sizeof(Placed) + sizeof(uint32_t);
  if (tensors > kMaxTensors) in.fail(8, "{} tensors are above the limit of {}", tensors, kMaxTensors);
  in.count(tensors, kMinBytes, kCost, "tensors");
  file.tensors_.resize(tensors);
  std::vector<Placed> places;
  places.reserve(tensors);
  for (uint32_t i = 0; i < tensors; ++i) {
    places.push_back(read_tensor(in, file.tensors_[i]));
    places.back().tensor = i;
  }
  const uint64_t alignment = alignment_of(in, file);
  const uint64_t data_at = std::min<uint64_t>(gguf::aligned(in.at(), alignment), bytes.size());
  if (const auto twice = file.index_names())
    in.fail(places[*twice].at, "tensor {} occurs twice", shown(file.tensors_[*twice].name));
  place_tensors(in, alignment, bytes.subspan(data_at), places, file.tensors_, data_at);
  return file;
}

std::optional<uint32_t> GgufFile::index_names() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  const auto name = [&](uint32_t i) -> const std::string& { return tensors_[i].name; };
  std::sort(by_name_.begin(), by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  for (size_t i = 1; i < by_name_.size(); ++i)
    if (name(by_name_[i - 1]) == name(by_name_[i])) return std::max(by_name_[i - 1], by_name_[i]);
  return std::nullopt;
}

// --- Split files -----------------------------------------------------------------------------------------------------

namespace {

constexpr const char *kSplitCount = "split.count", *kSplitNumber = "split.no", *kSplitTensors = "split.tensors.count";

std::string part_suffix(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// The paths of all parts, from that of one. Every part that is missing is named.
std::vector<std::string> part_paths(const std::string& path, int64_t number, int64_t count) {
  if (count > 99999 || number < 0 || number >= count)
    throw_error(Exit::data, "{}: {} is {} of {}", path, kSplitNumber, number, count);
  const std::string suffix = part_suffix(number, count);
  if (!path.ends_with(suffix))
    throw_error(Exit::data, "{}: part {} of {} must have a name that ends in {}, as the others are found by theirs",
                path, number + 1, count, suffix);
  const std::string stem = path.substr(0, path.size() - suffix.size());
  std::vector<std::string> paths;
  std::string missing;
  for (int64_t i = 0; i < count; ++i) {
    paths.push_back(stem + part_suffix(i, count));
    if (!path_exists(paths.back())) missing += (missing.empty() ? "" : ", ") + base_name(paths.back());
    if (missing.size() > 1000) break;
  }
  if (!missing.empty()) throw_error(Exit::data, "{}: parts are missing: {}", path, missing);
  return paths;
}

}  // namespace

GgufFile GgufFile::open(const std::string& path) {
  const auto open_part = [](const std::string& name) {
    auto mapping = std::make_shared<const MappedFile>(name);
    GgufFile part = parse(mapping->bytes(), name);
    part.mappings_.push_back(std::move(mapping));
    return part;
  };
  GgufFile opened = open_part(path);
  const int64_t count = opened.integer(kSplitCount, 1);
  if (count <= 1) return opened;

  const int64_t number = opened.integer(kSplitNumber);
  const auto paths = part_paths(path, number, count);
  GgufFile whole;
  for (int64_t i = 0; i < count; ++i) {
    GgufFile part = i == number ? std::move(opened) : open_part(paths[static_cast<size_t>(i)]);
    if (part.integer(kSplitNumber) != i || part.integer(kSplitCount) != count)
      throw_error(Exit::data, "{}: says that it is part {} of {}", part.path_, part.integer(kSplitNumber) + 1,
                  part.integer(kSplitCount));
    if (i == 0) {  // the first part has the metadata of all
      whole = std::move(part);
      continue;
    }
    std::move(part.tensors_.begin(), part.tensors_.end(), std::back_inserter(whole.tensors_));
    whole.mappings_.push_back(std::move(part.mappings_[0]));
  }
  const auto tensors = static_cast<int64_t>(whole.tensors_.size());
  if (const int64_t wanted = whole.integer(kSplitTensors, tensors); wanted != tensors)
    throw_error(Exit::data, "{}: {} is {}, but the parts have {} tensors", whole.path_, kSplitTensors, wanted, tensors);
  if (const auto twice = whole.index_names())
    throw_error(Exit::data, "{}: tensor {} occurs in two parts", whole.path_, shown(whole.tensors_[*twice].name));
  return whole;
}

// --- Look-ups --------------------------------------------------------------------------------------------------------

namespace {

const char* kind_of(const GgufValue& value) {
  constexpr const char* kKinds[] = {"an integer",
                                    "a number",
                                    "a boolean",
                                    "a text",
                                    "texts",
                                    "a list of integers",
                                    "a list of numbers",
                                    "a list of booleans",
                                    "an integer above 2^63 - 1",
                                    "a list with an integer above 2^63 - 1"};
  static_assert(std::size(kKinds) == std::variant_size_v<decltype(value.value)>);
  return kKinds[value.value.index()];
}

}  // namespace

const GgufValue* GgufFile::value(std::string_view key, bool optional) const {
  const auto it = metadata_.find(key);
  if (it != metadata_.end()) return &it->second;
  if (!optional) throw_error(Exit::data, "{}: metadata {} is missing", path_, shown(key));
  return nullptr;
}

void GgufFile::wrong_kind(std::string_view key, const char* wanted) const {
  throw_error(Exit::data, "{}: metadata {}: expected {}, found {}", path_, shown(key), wanted,
              kind_of(metadata_.find(key)->second));
}

template <class T>
const T& GgufFile::get(std::string_view key, const T* otherwise, const char* wanted) const {
  const GgufValue* found = value(key, otherwise != nullptr);
  if (!found) return *otherwise;
  if (const T* x = std::get_if<T>(&found->value)) return *x;
  wrong_kind(key, wanted);
}

int64_t GgufFile::integer(std::string_view key, std::optional<int64_t> otherwise) const {
  return get<int64_t>(key, otherwise ? &*otherwise : nullptr, "an integer");
}

double GgufFile::number(std::string_view key, std::optional<double> otherwise) const {
  const GgufValue* found = value(key, otherwise.has_value());
  if (!found) return *otherwise;
  if (const auto* x = std::get_if<int64_t>(&found->value)) return static_cast<double>(*x);
  return get<double>(key, nullptr, "a number");
}

bool GgufFile::boolean(std::string_view key, std::optional<bool> otherwise) const {
  return get<bool>(key, otherwise ? &*otherwise : nullptr, "a boolean");
}

const std::string& GgufFile::text(std::string_view key) const { return get<std::string>(key, nullptr, "a text"); }

const std::vector<std::string>& GgufFile::strings(std::string_view key) const {
  return get<GgufValue::Strings>(key, nullptr, "texts");
}

std::vector<int64_t> GgufFile::integers(std::string_view key) const {
  return get<GgufValue::Integers>(key, nullptr, "a list of integers");
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  if (const auto* x = std::get_if<GgufValue::Integers>(&value(key, false)->value)) return {x->begin(), x->end()};
  return get<GgufValue::Floats>(key, nullptr, "a list of numbers");
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return it != by_name_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

const GgufTensor& GgufFile::at(std::string_view name) const {
  if (const GgufTensor* t = find(name)) return *t;
  throw_error(Exit::data, "{}: tensor {} is missing", path_, shown(name));
}

}  // namespace ponder
