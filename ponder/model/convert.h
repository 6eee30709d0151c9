// A checkpoint in another format or another type: what `ponder convert`, `quantize`, `merge` and `model init` write.
//
// Tensors are read, rounded and written one after the other, so a model larger than memory can be converted. Vectors,
// routers and their biases stay F32 (F32 or BF16 in safetensors, as released); what keeps its type keeps its bits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ponder/base/threads.h"
#include "ponder/model/source.h"
#include "ponder/tensor/gguf.h"

namespace ponder::model {

// "keep" (types stay), the name of a type (f32, bf16, q8_0, ...: all matrices), "fp8", or "q4_k_m": llama.cpp's mixture
// of Q4_K with Q6_K for the head and, in half of the layers, for v and down projections. Error (usage): unknown.
class TypeScheme {
 public:
  explicit TypeScheme(const std::string& name);
  const std::string& name() const { return name_; }
  bool fp8() const { return name_ == "fp8"; }
  // The type of a matrix [rows, cols] of type `from` under a released name. GGUF has no FP8: it becomes BF16 there.
  BlockType matrix_type(const std::string& released, const ModelConfig& config, int64_t cols, BlockType from,
                        bool gguf) const;

 private:
  std::string name_;
  BlockType type_ = BlockType::f32;
};
std::vector<std::string> type_schemes();  // for messages and completion

using ConvertProgress = std::function<void(int64_t done, int64_t of, const std::string& tensor)>;

// `metadata` is added to what the config says (a key of it wins): the tokenizer, most of all. If the tensors are larger
// than `max_bytes`, NAME.gguf becomes NAME-00001-of-0000N.gguf and so on, split between tensors as llama.cpp splits; the
// first file, which holds the metadata, is written last. Returns the path to open: the first file.
std::string write_gguf_model(const WeightSource& source, const std::string& path, const TypeScheme& scheme,
                             const std::vector<std::pair<std::string, GgufValue>>& metadata, ThreadPool& pool,
                             const ConvertProgress& progress = {}, uint64_t max_bytes = UINT64_MAX);
// config.json and model*.safetensors into an existing folder. Block types of GGUF are expanded to BF16 unless the scheme
// says another type that safetensors has (F32, F16, BF16, FP8).
void write_safetensors_model(const WeightSource& source, const std::string& folder, const TypeScheme& scheme,
                             ThreadPool& pool, const ConvertProgress& progress = {},
                             uint64_t max_shard_bytes = uint64_t{5} << 30);

// Random numbers in a model's shape: every tensor is a function of (seed, its name), spread as `Params::initialize`
// would spread it. Of tensors with more than `distinct_rows` rows the later rows repeat the first ones (0: none do):
// benchmarks of large shapes need bytes, not different ones.
std::unique_ptr<WeightSource> random_source(const ModelConfig& config, uint64_t seed, int64_t distinct_rows = 0);

}  // namespace ponder::model
