// The shape of a model, under the names of Hugging Face's config.json. Every field is explicit: nothing is guessed from
// another one, except where config.json itself leaves a default (head_dim).
#pragma once

#include <string>

namespace ponder::model {

enum class RopeScaling { none, yarn, llama3 };

struct ModelConfig {
  std::string model_type = "deepseek_v3";  // deepseek_v3, deepseek_v2 (MLA); llama, qwen2, qwen3 (GQA)
  int vocab_size = 0;
  int hidden_size = 128;
  int intermediate_size = 256;  // width of a dense MLP
  int num_hidden_layers = 3;
  int num_attention_heads = 4;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  int max_position_embeddings = 4096;

  // Grouped-query attention
  int num_key_value_heads = 4;
  int head_dim = 0;                  // 0: hidden_size / num_attention_heads
  double partial_rotary_factor = 1;  // the first share of each head is rotated
  bool attention_bias = false;       // q, k, v (qwen2: true)
  bool qk_norm = false;              // RMSNorm per head on q and k (qwen3: true)

  // Multi-head latent attention
  int q_lora_rank = 0;  // 0: one q_proj
  int kv_lora_rank = 0;
  int qk_nope_head_dim = 0;
  int qk_rope_head_dim = 0;
  int v_head_dim = 0;

  // Rotary embedding
  double rope_theta = 10000;
  std::string rope_scaling = "none";  // none, yarn, llama3
  double rope_factor = 1;
  int original_max_position_embeddings = 0;
  double beta_fast = 32, beta_slow = 1, mscale = 1, mscale_all_dim = 0;  // yarn
  double attention_factor = 0;  // yarn: of cosines and sines; 0: what factor and mscales give (rope.h)
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3

  // Mixture of experts: layers from first_k_dense_replace on, if n_routed_experts > 0
  int n_routed_experts = 0;
  int n_shared_experts = 0;
  int num_experts_per_tok = 0;
  int moe_intermediate_size = 0;
  int first_k_dense_replace = 0;
  int n_group = 1;
  int topk_group = 1;
  std::string topk_method = "noaux_tc";  // noaux_tc, greedy, group_limited_greedy
  std::string scoring_func = "sigmoid";  // sigmoid, softmax
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;

  int num_nextn_predict_layers = 0;  // multi-token prediction modules

  // Initial values of a model made from nothing: embedding N(0, s^2), matrices N(0, 1 / fan_in), the outputs of attention
  // and MLP scaled by init_output_scale / sqrt(layers).
  double init_embedding_std = 0.05;
  double init_output_scale = 0.5;

  bool mla() const { return kv_lora_rank > 0; }
  bool moe_layer(int layer) const { return n_routed_experts > 0 && layer >= first_k_dense_replace; }
  // Rounded down, as in transformers.
  int rotary_width() const { return static_cast<int>(head_width() * partial_rotary_factor); }
  int head_width() const { return head_dim ? head_dim : hidden_size / num_attention_heads; }
  int moe_layers() const;  // layers with experts, MTP modules included
  int kv_layers() const { return num_hidden_layers + num_nextn_predict_layers; }
  double softmax_scale() const;

  template <class V>
  void fields(V& v) {
    v.field("model_type", model_type,
            {.help = "architecture", .choices = {"deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"}});
    v.field("vocab_size", vocab_size, {.help = "rows of the embedding; 0: as the tokenizer has"});
    v.field("hidden_size", hidden_size, {.help = "width of the residual stream"});
    v.field("intermediate_size", intermediate_size, {.help = "width of a dense MLP"});
    v.field("num_hidden_layers", num_hidden_layers, {.help = "layers"});
    v.field("num_attention_heads", num_attention_heads, {.help = "query heads"});
    v.field("rms_norm_eps", rms_norm_eps, {.help = "epsilon of RMSNorm"});
    v.field("tie_word_embeddings", tie_word_embeddings, {.help = "the head is the embedding"});
    v.field("max_position_embeddings", max_position_embeddings, {.help = "longest context"});
    v.field("num_key_value_heads", num_key_value_heads, {.help = "key/value heads (GQA)"});
    v.field("head_dim", head_dim, {.help = "width of a head (GQA); 0: hidden_size / num_attention_heads"});
    v.field("partial_rotary_factor", partial_rotary_factor, {.help = "share of a head that is rotated (GQA)"});
    v.field("attention_bias", attention_bias, {.help = "biases of q, k, v (GQA)"});
    v.field("qk_norm", qk_norm, {.help = "RMSNorm of q and k per head (GQA)"});
    v.field("q_lora_rank", q_lora_rank, {.help = "query latent (MLA); 0: none"});
    v.field("kv_lora_rank", kv_lora_rank, {.help = "key/value latent; > 0 selects MLA"});
    v.field("qk_nope_head_dim", qk_nope_head_dim, {.help = "unrotated part of a query head (MLA)"});
    v.field("qk_rope_head_dim", qk_rope_head_dim, {.help = "rotated part of a query head (MLA)"});
    v.field("v_head_dim", v_head_dim, {.help = "width of a value head (MLA)"});
    v.field("rope_theta", rope_theta, {.help = "base of the rotary frequencies"});
    v.field("rope_scaling", rope_scaling, {.help = "context extension", .choices = {"none", "yarn", "llama3"}});
    v.field("rope_factor", rope_factor, {.help = "context extension factor"});
    v.field("original_max_position_embeddings", original_max_position_embeddings,
            {.help = "context before the extension"});
    v.field("beta_fast", beta_fast, {.help = "YaRN"});
    v.field("beta_slow", beta_slow, {.help = "YaRN"});
    v.field("mscale", mscale, {.help = "YaRN"});
    v.field("mscale_all_dim", mscale_all_dim,
            {.help = "YaRN: the softmax scale is multiplied by (0.1 m ln factor + 1)^2"});
    v.field("attention_factor", attention_factor,
            {.help = "YaRN: factor of cosines and sines; 0: 0.1 ln factor + 1, or the ratio of the mscales"});
    v.field("low_freq_factor", low_freq_factor, {.help = "llama3 scaling"});
    v.field("high_freq_factor", high_freq_factor, {.help = "llama3 scaling"});
    v.field("n_routed_experts", n_routed_experts, {.help = "routed experts of a layer; 0: dense"});
    v.field("n_shared_experts", n_shared_experts, {.help = "shared experts of a layer"});
    v.field("num_experts_per_tok", num_experts_per_tok, {.help = "experts that a token visits"});
    v.field("moe_intermediate_size", moe_intermediate_size, {.help = "width of an expert"});
    v.field("first_k_dense_replace", first_k_dense_replace, {.help = "leading layers with a dense MLP"});
    v.field("n_group", n_group, {.help = "groups of experts"});
    v.field("topk_group", topk_group, {.help = "groups that a token may use"});
    v.field("topk_method", topk_method,
            {.help = "how experts are chosen", .choices = {"noaux_tc", "greedy", "group_limited_greedy"}});
    v.field("scoring_func", scoring_func, {.help = "scores of experts", .choices = {"sigmoid", "softmax"}});
    v.field("norm_topk_prob", norm_topk_prob, {.help = "gates sum to 1 before scaling"});
    v.field("routed_scaling_factor", routed_scaling_factor, {.help = "factor of the gates"});
    v.field("num_nextn_predict_layers", num_nextn_predict_layers, {.help = "multi-token prediction modules"});
    v.field("init_embedding_std", init_embedding_std, {.help = "standard deviation of initial embeddings"});
    v.field("init_output_scale", init_output_scale,
            {.help = "initial scale of attention and MLP outputs, over sqrt(layers)"});
  }
};

// Throws Error (data) that names the field where a config contradicts itself or asks for what is not supported.
void validate(const ModelConfig& config);

// Hugging Face's config.json, read and written. `place` names the file in errors.
ModelConfig parse_config_json(const std::string& json, const std::string& place);
// `fp8`: the weights beside it are FP8 with scales of 128 x 128 blocks.
std::string config_json(const ModelConfig& config, bool fp8 = false);

}  // namespace ponder::model
