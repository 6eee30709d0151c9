// Weights in and out under the released tensor names (Hugging Face layout, one tensor per expert, shards and index).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ponder/model/model.h"
#include "ponder/model/source.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::model {

// Nothing in a file may be left unread without a reason: an Error (data) that names a tensor which `model` does not have,
// except MTP layers that were left out and duplicates of embedding and head.
void check_names(const Model& model, const WeightSource& source);

// Every parameter of a trainable model, expanded exactly to f32. Missing or misshapen tensors are an Error (data) that
// names them; so are tensors that the model does not know (check_names).
void load_weights(Model& model, const WeightSource& source);

// Every parameter of a stored model (ModelOptions::stored): vectors as f32, matrices repacked for `backend` in the type
// that they have, all threads at work. The model keeps `source`: rows of the embedding are read from its mapping, and so
// are routed experts for which there is no room: at most `experts` bytes of them are packed, first layers first. The
// numbers are the same; but types without a kernel (multiplied_type) cannot stay in the file.
using LoadProgress = std::function<void(int64_t done, int64_t of)>;
constexpr int64_t kAllExperts = INT64_MAX;
void load_stored(Model& model, std::shared_ptr<const WeightSource> source, const kernels::Backend& backend,
                 const LoadProgress& progress = {}, int64_t experts = kAllExperts);

// The type that a matrix of `type` with rows of `k` numbers is multiplied in: its own; Q8_0 where the backend has no
// kernel for that, or F32 where such rows are no whole blocks.
BlockType multiplied_type(const kernels::Backend& backend, BlockType type, int64_t k);

// A checkpoint (WeightSource::open) as a trainable model, its memory allocated and filled.
std::unique_ptr<Model> load_model(const std::string& path, const ModelOptions& options);

// config.json and model.safetensors into an existing folder, each written aside and renamed. `stored`: f32 or bf16.
void save_model(const Model& model, const std::string& folder, DType stored = DType::f32);

}  // namespace ponder::model
