// Safetensors, the house format of weights: read by mapping, written aside and renamed.
//
// A file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and the numbers
// (github.com/huggingface/safetensors, "Format"). A file is hostile until proven: `open` checks every size with checked
// arithmetic before anything points into the data: header at most 100 MB, no duplicate name, no overlap, no hole,
// size == shape x dtype. Whatever is wrong is an Error (Exit::data) that names the file and the tensor; nothing is
// allocated from a number in the file. After that, entries are plain views of the mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/tensor/quantized.h"
#include "ponder/tensor/tensor.h"

namespace ponder {

// What a file may hold: the numbers of DType, FP8, and types that are recognised, so that a checkpoint can be listed and
// its other tensors used.
enum class StoredType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean
};
const char* stored_type_name(StoredType type);  // F64, F32, ..., BOOL
size_t stored_type_bytes(StoredType type);
std::optional<BlockType> block_type(StoredType type);  // F32, F16, BF16 and F8_E4M3 have one

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensors = size_t{1} << 17;  // DeepSeek-V3 has 92,000 in all its shards

struct TensorEntry {
  std::string name;
  StoredType dtype = StoredType::f32;
  int rank = 0;  // 0: one number
  int64_t dim[kMaxRank] = {};
  std::span<const std::byte> bytes;  // little-endian, row-major; any alignment

  int64_t size() const;              // elements; exact, checked at open
  std::string shape_string() const;  // "[128, 64]"
};

// Copy an entry out as a number type. f32: from F32, BF16, F16 exactly; from F64 rounded to nearest even. f64: the
// same, all exactly. i32, i64: from I32, I64, U8; a value that does not fit is an Error. `out` has entry.size()
// elements. FP8 means nothing without its scales: Checkpoint::matrix has both.
void read_f32(const TensorEntry& entry, float* out);
void read_f64(const TensorEntry& entry, double* out);
void read_i32(const TensorEntry& entry, int32_t* out);
void read_i64(const TensorEntry& entry, int64_t* out);

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path);
  // The same from bytes that the caller keeps alive; `path` is only for messages.
  static SafetensorsFile parse(std::span<const std::byte> bytes, const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorEntry>& entries() const { return entries_; }  // in the order of their data
  const TensorEntry* find(std::string_view name) const;                 // null: not there
  const TensorEntry& at(std::string_view name) const;                   // Error: not there
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::string path_;
  std::shared_ptr<const class MappedFile> mapping_;
  std::vector<TensorEntry> entries_;
  std::vector<uint32_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

// A model's tensors, wherever the release put them: one .safetensors file, or a folder with model.safetensors, or with
// model.safetensors.index.json and the shards it names, or with a single .safetensors of another name.
class Checkpoint {
 public:
  static Checkpoint open(const std::string& folder_or_file);
  Checkpoint(Checkpoint&&) = default;
  Checkpoint& operator=(Checkpoint&&) = default;
  Checkpoint(const Checkpoint&) = delete;  // entries() point into files()
  Checkpoint& operator=(const Checkpoint&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<const TensorEntry*>& entries() const { return entries_; }  // sorted by name
  const TensorEntry* find(std::string_view name) const;
  const TensorEntry& at(std::string_view name) const;
  // A tensor of two dimensions as stored weights: F32, F16, BF16, or F8_E4M3 with its scales from the tensor
  // NAME_scale_inv, F32 [ceil(rows / 128), ceil(cols / 128)] (DeepSeek-V3's files). A view into this checkpoint.
  Quantized matrix(std::string_view name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  Checkpoint() = default;
  void add_index(const std::string& folder, const std::string& index_path);
  void align_scales();

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::vector<const TensorEntry*> entries_;
  std::map<const TensorEntry*, std::vector<float>> aligned_scales_;  // copies of those at odd addresses of their file
};

// --- Writing -----------------------------------------------------------------------------------------------------------

// What to write, as it is stored. `fill(i, out)` writes the bytes of tensor i when its turn comes, each once, in the
// order of the file, so that no model has to be in memory whole.
struct TensorSpec {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<int64_t> shape;
};
using FillTensor = std::function<void(size_t i, std::span<std::byte> out)>;

using Metadata = std::map<std::string, std::string>;

// Writes one file, whole or not at all: aside, fsync, rename. Wide types come first, so that all data is aligned.
void write_safetensors(const std::string& path, std::span<const TensorSpec> tensors, const FillTensor& fill,
                       const Metadata& metadata = {});

// Writes model.safetensors into an existing folder, or, where the tensors are larger than max_shard_bytes,
// model-0000i-of-0000n.safetensors and, last, model.safetensors.index.json. A tensor is never split.
inline constexpr uint64_t kShardBytes = uint64_t{5} << 30;
void write_checkpoint(const std::string& folder, std::span<const TensorSpec> tensors, const FillTensor& fill,
                      const Metadata& metadata = {}, uint64_t max_shard_bytes = kShardBytes);

// The same for tensors in memory.
struct NamedTensor {
  std::string name;
  Tensor tensor;
  DType stored;  // tensor.dtype, or for f32 tensors also bf16 or f16 (rounded to nearest even)
};
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata = {});
void write_checkpoint(const std::string& folder, std::span<const NamedTensor> tensors, const Metadata& metadata = {},
                      uint64_t max_shard_bytes = kShardBytes);

}  // namespace ponder
