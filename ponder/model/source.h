// A checkpoint in any format, under the released (Hugging Face) tensor names: a folder or file of safetensors, or GGUF.
//
// Models, conversion and commands ask for tensors by their released name and get views of the mapped file, in the type
// that the file has; how a format names, splits, stacks or permutes them is known here only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/model/config.h"
#include "ponder/tensor/quantized.h"

namespace ponder {
class GgufFile;
}

namespace ponder::model {

struct StoredTensor {
  Quantized matrix;                // a vector is one row
  std::vector<int64_t> shape;      // as released: [rows, cols] or [n]
  std::vector<int32_t> row_order;  // row i of the tensor is row row_order[i] of `matrix`; empty: as they stand
  std::shared_ptr<void> memory;    // what `matrix` points into, where it is no view of the file

  // Row `i` of `shape` in `matrix`; its numbers, or all numbers in released order, expanded exactly.
  int64_t stored_row(int64_t i) const { return row_order.empty() ? i : row_order[static_cast<size_t>(i)]; }
  void read_row(int64_t i, float* out) const { dequantize_row(matrix, stored_row(i), out); }
  void read_f32(float* out) const;
};

// The layer of "model.layers.N. ..."; -1 for other names.
int layer_of(std::string_view name);

class WeightSource {
 public:
  // A folder with config.json, or a .gguf file (any part of a split one). Errors name the file and what is missing. MTP
  // modules that are announced but not there at all (many releases leave them out) are taken off, with a warning.
  static std::unique_ptr<WeightSource> open(const std::string& path);
  // Safetensors of a model whose shape is known otherwise.
  static std::unique_ptr<WeightSource> open(const std::string& path, const ModelConfig& config);
  virtual ~WeightSource() = default;

  virtual const std::string& path() const = 0;
  const ModelConfig& config() const { return config_; }
  // Released names, in file order: what could be converted. Halves of kv_b (attention.h) are named where the file has
  // only them.
  virtual std::vector<std::string> names() const = 0;
  // `matrix.data` null: not there. Of kv_b_proj every half is found, whichever way the file holds it; what has to be
  // transposed keeps its type if that is plain (F32, F16, BF16), and becomes F32 otherwise.
  StoredTensor find(const std::string& name) const;
  // The file, if it is GGUF: its metadata hold a tokenizer, too.
  virtual const GgufFile* gguf() const { return nullptr; }
  // Bytes of all tensors in the file.
  virtual int64_t bytes() const = 0;

 protected:
  // What the file has under this very name.
  virtual StoredTensor find_stored(const std::string& name) const = 0;

  ModelConfig config_;

 private:
  void drop_absent_mtp();
  StoredTensor joined(const StoredTensor& k_transposed, const StoredTensor& v_b) const;
};

}  // namespace ponder::model
