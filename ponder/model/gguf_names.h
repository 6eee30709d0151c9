// GGUF's way of writing a model down: metadata for config.json, names for names (llama.cpp's conventions for the
// architectures llama, qwen2, qwen3 and deepseek2). Used in both directions.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ponder/model/config.h"
#include "ponder/tensor/gguf.h"

namespace ponder::model {

// Where GGUF keeps a released tensor: experts of a layer are stacked in one.
struct GgufPlace {
  std::string name;
  int expert = -1;
};
// Nothing for a name that GGUF has no place for.
std::optional<GgufPlace> gguf_place(const std::string& released);
// The released name (of expert `expert`, where it is a stack of them) of a GGUF tensor; nothing for what is no weight of
// the model (rope_freqs, layers of other architectures).
std::optional<std::string> released_name(const std::string& gguf, int expert);
bool is_expert_stack(const std::string& gguf);

// Row i of a released q or k projection is row order[i] of its GGUF tensor: architecture llama keeps the two halves of
// every head interleaved, as its rotary embedding wants adjacent pairs. Empty: rows stand as released.
std::vector<int32_t> gguf_row_order(const std::string& released, const ModelConfig& config);

ModelConfig config_from_gguf(const GgufFile& file);
// Error (data) that begins with `name`: a rotary embedding that config_from_gguf would not read back as it is.
std::vector<std::pair<std::string, GgufValue>> gguf_metadata(const ModelConfig& config, const std::string& name);
// The divisors of rope_freqs.weight for llama3 scaling; empty: none.
std::vector<float> gguf_rope_divisors(const ModelConfig& config);

}  // namespace ponder::model
