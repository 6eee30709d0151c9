// Small random models for tests that cross modules.
#pragma once

#include <memory>

#include "ponder/kernels/backend.h"
#include "ponder/model/model.h"

namespace ponder::test {

// Every V3 feature: MLA without query latent, a dense and two MoE layers with groups and a shared expert, one MTP module.
inline model::ModelConfig tiny_v3() {
  model::ModelConfig c;
  c.vocab_size = 53;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 3;
  c.kv_lora_rank = 20;
  c.qk_nope_head_dim = 10;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 12;
  c.n_routed_experts = 8;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 24;
  c.first_k_dense_replace = 1;
  c.n_group = 4;
  c.topk_group = 2;
  c.num_nextn_predict_layers = 1;
  c.init_embedding_std = 0.3;
  c.init_output_scale = 1;
  return c;
}

// Grouped queries, biases, norms of q and k, partial rotation, tied head.
inline model::ModelConfig tiny_dense() {
  model::ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = 53;
  c.hidden_size = 36;
  c.intermediate_size = 40;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 6;
  c.num_key_value_heads = 2;
  c.head_dim = 12;
  c.partial_rotary_factor = 0.5;
  c.attention_bias = true;
  c.qk_norm = true;
  c.tie_word_embeddings = true;
  c.init_embedding_std = 0.3;
  c.init_output_scale = 1;
  return c;
}

inline std::unique_ptr<model::Model> make_model(const model::ModelConfig& config, const model::ModelOptions& options,
                                                uint64_t seed = 1) {
  auto m = std::make_unique<model::Model>(config, options);
  m->params().initialize(seed);
  return m;
}

}  // namespace ponder::test
