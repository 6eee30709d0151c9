// Weights in and out under the released tensor names (Hugging Face layout, one tensor per expert, shards and index).
#pragma once

#include <memory>
#include <string>

#include "ponder/model/model.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::model {

// Reads every parameter from a checkpoint. Missing or misshapen tensors are an Error (data) that names them; so are
// tensors that the model does not know, except MTP layers that were left out and duplicates of embedding and head.
void load_weights(Model& model, const Checkpoint& checkpoint);

// A folder with config.json and weights: the model, its memory allocated and filled.
std::unique_ptr<Model> load_model(const std::string& folder, const ModelOptions& options);

// config.json and model.safetensors into an existing folder, each written aside and renamed. `stored`: f32 or bf16.
void save_model(const Model& model, const std::string& folder, DType stored = DType::f32);

}  // namespace ponder::model
