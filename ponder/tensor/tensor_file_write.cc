#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "ponder/base/file.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder {

namespace {

uint64_t stored_bytes(const TensorSpec& t) {
  uint64_t bytes = stored_type_bytes(t.dtype);
  for (int64_t n : t.shape) bytes *= static_cast<uint64_t>(n);
  return bytes;
}

std::string make_header(std::span<const TensorSpec> tensors, std::span<const size_t> order, const Metadata& metadata) {
  std::string text = metadata.empty() ? "{" : "{\"__metadata__\":" + nlohmann::json(metadata).dump();
  uint64_t place = 0;
  for (size_t i : order) {
    const TensorSpec& t = tensors[i];
    const uint64_t end = place + stored_bytes(t);
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        nlohmann::json(t.name).dump(), stored_type_name(t.dtype), fmt::join(t.shape, ","), place, end);
    place = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data begins at a multiple of 8
  return text;
}

// One file with the tensors of these numbers.
void write_one(const std::string& path, std::span<const TensorSpec> tensors, std::vector<size_t> order,
               const FillTensor& fill, const Metadata& metadata) {
  std::set<std::string_view> names;
  for (size_t i : order) {
    const TensorSpec& t = tensors[i];
    PONDER_CHECK(names.insert(t.name).second && t.name != "__metadata__", "two tensors named {}", t.name);
    PONDER_CHECK(t.shape.size() <= kMaxRank, "{}: {} dimensions", t.name, t.shape.size());
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return stored_type_bytes(tensors[a].dtype) > stored_type_bytes(tensors[b].dtype);
  });
  const std::string header = make_header(tensors, order, metadata);
  if (header.size() > kMaxHeaderBytes)
    throw_error(Exit::data, "{}: a header of {} bytes is above the limit of {}", path, header.size(), kMaxHeaderBytes);

  write_file_atomic(path, [&](FileWriter& file) {
    const uint64_t length = header.size();
    file.write(&length, sizeof length);
    file.write(header);
    std::vector<std::byte> data;
    for (size_t i : order) {
      data.resize(stored_bytes(tensors[i]));
      fill(i, data);
      file.write(data.data(), data.size());
    }
  });
}

std::vector<size_t> numbers(size_t begin, size_t end) {
  std::vector<size_t> out;
  for (size_t i = begin; i < end; ++i) out.push_back(i);
  return out;
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const TensorSpec> tensors, const FillTensor& fill,
                       const Metadata& metadata) {
  write_one(path, tensors, numbers(0, tensors.size()), fill, metadata);
}

void write_checkpoint(const std::string& folder, std::span<const TensorSpec> tensors, const FillTensor& fill,
                      const Metadata& metadata, uint64_t max_shard_bytes) {
  std::vector<size_t> begins = {0};  // of the shards
  uint64_t total = 0, in_shard = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t bytes = stored_bytes(tensors[i]);
    if (in_shard && in_shard + bytes > max_shard_bytes) {
      begins.push_back(i);
      in_shard = 0;
    }
    in_shard += bytes;
    total += bytes;
  }
  const size_t shards = begins.size();
  if (shards == 1) return write_safetensors(join_path(folder, "model.safetensors"), tensors, fill, metadata);

  begins.push_back(tensors.size());
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total;
  std::map<std::string, std::string> weight_map;
  for (size_t s = 0; s < shards; ++s) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards);
    write_one(join_path(folder, name), tensors, numbers(begins[s], begins[s + 1]), fill, metadata);
    for (size_t i = begins[s]; i < begins[s + 1]; ++i) weight_map[tensors[i].name] = name;
  }
  index["weight_map"] = weight_map;
  write_file_atomic(join_path(folder, "model.safetensors.index.json"), index.dump(2) + "\n");
}

// --- Tensors in memory -------------------------------------------------------------------------------------------------

namespace {

StoredType stored_type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return StoredType::f32;
    case DType::bf16: return StoredType::bf16;
    case DType::f16: return StoredType::f16;
    case DType::i32: return StoredType::i32;
    case DType::f64: return StoredType::f64;
    case DType::i64: return StoredType::i64;
    case DType::u8: return StoredType::u8;
  }
  PONDER_CHECK(false, "dtype {}", static_cast<int>(dtype));
}

std::vector<TensorSpec> specs_of(std::span<const NamedTensor> tensors) {
  std::vector<TensorSpec> out;
  for (const NamedTensor& t : tensors) {
    const DType from = t.tensor.dtype;
    PONDER_CHECK(t.stored == from || (from == DType::f32 && (t.stored == DType::bf16 || t.stored == DType::f16)),
                 "{}: {} cannot be stored as {}", t.name, dtype_name(from), dtype_name(t.stored));
    out.push_back({t.name, stored_type_of(t.stored), {t.tensor.dim, t.tensor.dim + t.tensor.rank}});
  }
  return out;
}

// A tensor, row by row, as the file holds it.
void encode(const NamedTensor& named, std::span<std::byte> out) {
  const Tensor& t = named.tensor;
  const size_t row_bytes = static_cast<size_t>(t.cols()) * dtype_bytes(named.stored);
  for (int64_t r = 0; r < t.rows(); ++r) {
    std::byte* to = out.data() + static_cast<size_t>(r) * row_bytes;
    if (named.stored == t.dtype)
      std::memcpy(to, static_cast<const std::byte*>(t.data) + r * t.ld * int64_t(dtype_bytes(t.dtype)), row_bytes);
    else
      quantize(named.stored == DType::bf16 ? BlockType::bf16 : BlockType::f16, t.row(r), t.cols(), to);
  }
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata) {
  write_safetensors(
      path, specs_of(tensors), [&](size_t i, auto out) { encode(tensors[i], out); }, metadata);
}

void write_checkpoint(const std::string& folder, std::span<const NamedTensor> tensors, const Metadata& metadata,
                      uint64_t max_shard_bytes) {
  write_checkpoint(
      folder, specs_of(tensors), [&](size_t i, auto out) { encode(tensors[i], out); }, metadata, max_shard_bytes);
}

}  // namespace ponder
