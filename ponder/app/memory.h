// What a model needs of a machine, known from its file alone: memory before it is loaded, bytes and operations a token.
#pragma once

#include <cstdint>
#include <string>

#include "ponder/kernels/backend.h"
#include "ponder/model/model.h"
#include "ponder/model/source.h"

namespace ponder::app {

// The weights of a stored model (model::load_stored).
struct WeightNeeds {
  int64_t packed = 0;                      // bytes in memory: matrices repacked for the backend, vectors as f32
  int64_t table = 0;                       // bytes of the embedding, whose rows are looked up in the mapped file
  double dense = 0;                        // bytes, in the file's types, of what every token multiplies with
  double routed = 0;                       // and of all routed experts
  double dense_macs = 0, routed_macs = 0;  // likewise, in multiply-adds a token (routed: of all experts)
  int experts = 0, chosen = 0;
  // Bytes that a step over `rows` tokens reads, routing taken as even.
  double read(int64_t rows) const;
  double macs() const { return dense_macs + (experts ? routed_macs * chosen / experts : 0); }  // a token
};
WeightNeeds weight_needs(const model::WeightSource& source, const kernels::Backend& backend,
                         const model::ModelOptions& options);

}  // namespace ponder::app
