// GGUF, the format of llama.cpp: read by mapping (versions 2 and 3, split files too), written aside and renamed.
//
// A file is a magic, a version, counts, key/value metadata, a table of tensors (name, dims with the fastest first, block
// type, offset) and the aligned data (github.com/ggml-org/ggml, docs/gguf.md). A file is hostile until proven: `open`
// checks every length against what is left of the file before it is used, and metadata may not cost more memory than the
// size of the file and 12 MB. Whatever is wrong is an Error (Exit::data) that names file, key or tensor, and byte offset.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ponder/tensor/quantized.h"

namespace ponder {

// A metadata value. Integers of every width are int64_t, both floats are double. A uint64 above 2^63 - 1, or a list with
// one, is kept as it is (other programs write them); looking it up as an integer is an Error.
struct GgufValue {
  using Strings = std::vector<std::string>;
  using Integers = std::vector<int64_t>;
  using Floats = std::vector<double>;
  using Unsigned = std::vector<uint64_t>;
  std::variant<int64_t, double, bool, std::string, Strings, Integers, Floats, std::vector<bool>, uint64_t, Unsigned>
      value;
};

// A tensor with its dims slowest first, as everywhere in ponder: rows() x cols() of blocks.
struct GgufTensor {
  std::string name;
  BlockType type = BlockType::f32;
  int rank = 0;
  int64_t dim[kMaxRank] = {};
  const std::byte* data = nullptr;  // in the mapping
  int64_t bytes = 0;

  int64_t cols() const { return rank ? dim[rank - 1] : 1; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= dim[i];
    return n;
  }
  Quantized matrix() const;  // rows() x cols()
  std::string shape_string() const;
};

class GgufFile {
 public:
  // A file, or any part of a split one (NAME-00001-of-00003.gguf): then all parts are opened.
  static GgufFile open(const std::string& path);
  // From bytes that the caller keeps alive; `path` is only for messages.
  static GgufFile parse(std::span<const std::byte> bytes, const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  bool has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }
  // Typed look-ups. Without `otherwise` a missing key is an Error; a value of another type always is.
  int64_t integer(std::string_view key, std::optional<int64_t> otherwise = {}) const;
  double number(std::string_view key, std::optional<double> otherwise = {}) const;
  bool boolean(std::string_view key, std::optional<bool> otherwise = {}) const;
  const std::string& text(std::string_view key) const;
  const std::vector<std::string>& strings(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in file order, parts one after the other
  const GgufTensor* find(std::string_view name) const;
  const GgufTensor& at(std::string_view name) const;  // Error: not there

 private:
  std::optional<uint32_t> index_names();  // a tensor whose name occurred before, if any
  const GgufValue* value(std::string_view key, bool optional) const;
  [[noreturn]] void wrong_kind(std::string_view key, const char* wanted) const;
  template <class T>
  const T& get(std::string_view key, const T* otherwise, const char* wanted) const;

  std::string path_;
  std::vector<std::shared_ptr<const class MappedFile>> mappings_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint32_t> by_name_;
};

// What to write: an integer becomes uint32 where it fits (else uint64, or a signed type), a list of integers int32 or
// int64, floats float32, as llama.cpp expects. `fill` writes a tensor's `bytes` when its turn comes, so that no model has
// to be in memory whole. A type that GGUF lacks (FP8), a name or a key that occurs twice, rows that are no whole blocks
// are mistakes of the caller.
struct GgufWrite {
  std::vector<std::pair<std::string, GgufValue>> metadata;  // in this order
  struct Item {
    std::string name;
    BlockType type;
    std::vector<int64_t> shape;  // slowest first
  };
  std::vector<Item> tensors;
};
// Aside, fsync, rename. `fill(i, out)`: the data of tensor i.
void write_gguf(const std::string& path, const GgufWrite& content,
                const std::function<void(size_t i, std::span<std::byte> out)>& fill);

}  // namespace ponder
