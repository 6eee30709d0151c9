// What a model needs of a machine, known from its file alone: memory before it is loaded, bytes and operations a token.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "ponder/kernels/backend.h"
#include "ponder/model/model.h"
#include "ponder/model/source.h"
#include "ponder/model/weights.h"

namespace ponder::app {

// The weights of a stored model (model::load_stored).
struct WeightNeeds {
  int64_t packed = 0;                      // bytes in memory: matrices repacked for the backend, vectors as f32
  int64_t table = 0;                       // bytes of the embedding, whose rows are looked up in the mapped file
  double dense = 0;                        // bytes, in the file's types, of what every token multiplies with
  double routed = 0;                       // and of all routed experts
  int64_t routed_packed = 0;               // bytes of these in memory
  std::set<std::string> routed_rounded;    // their types without a kernel, which cannot stay in the file
  double dense_macs = 0, routed_macs = 0;  // likewise, in multiply-adds a token (routed: of all experts)
  int experts = 0, chosen = 0;
  // Bytes that a step over `rows` tokens reads, routing taken as even.
  double read(int64_t rows) const;
  double macs() const { return dense_macs + (experts ? routed_macs * chosen / experts : 0); }  // a token
};
WeightNeeds weight_needs(const model::WeightSource& source, const kernels::Backend& backend,
                         const model::ModelOptions& options);

// What is used with a model: so many sequences side by side, each of at most `context` tokens.
struct UseSize {
  int64_t context = 4096, sequences = 1;
};
// Bytes that are not the mapped file's, whose pages the system takes back when it needs them.
struct MemoryNeeds {
  int64_t weights = 0, pages = 0;
  int64_t experts = 0;                    // of the weights: routed experts, which may stay in the file,
  std::set<std::string> rounded_experts;  // but not if they have such types, for which there are no kernels
  int64_t scratch = 0;                    // of a step of EngineConfig::max_step_rows
  int64_t program = 0;                    // code, tokenizer, tables
  int64_t total() const { return weights + pages + scratch + program; }
};
// `room`: bytes of experts that are packed at most (model::load_stored).
MemoryNeeds memory_needs(const model::WeightSource& source, const kernels::Backend& backend,
                         const model::ModelOptions& options, const UseSize& use, int64_t room = model::kAllExperts);

// Bytes of routed experts that `available` bytes have room for beside everything else, an eighth left to the file's
// pages. Nothing: they do not fit in this way either, because of the rest or of their types.
std::optional<int64_t> room_for_experts(const MemoryNeeds& needs, int64_t available);
// To be called before anything is loaded; only loading and a short text are asked for. Returns the bytes of experts that
// are to be packed (model::load_stored): all, or, with `allow_paging`, what there is room for. Throws Error (resources)
// where neither fits: it says how much is missing and what would fit.
int64_t check_memory(const model::WeightSource& source, const kernels::Backend& backend,
                     const model::ModelOptions& options, bool allow_paging, int64_t available);
// What would fit into `available` bytes, as an advice: a shorter context, fewer sequences, a smaller type, experts that
// stay in the file.
std::string what_would_fit(const model::WeightSource& source, const MemoryNeeds& needs, const UseSize& use,
                           int64_t available);

}  // namespace ponder::app
