#include "ponder/model/config.h"

#include <cmath>

#include "ponder/base/json_value.h"
#include "ponder/tensor/quantized.h"

namespace ponder::model {

int ModelConfig::moe_layers() const {
  int n = 0;
  for (int l = 0; l < kv_layers(); ++l) n += moe_layer(l);
  return n;
}

// 1 / sqrt(query width), times m^2 under YaRN with m = 0.1 mscale_all_dim ln(factor) + 1 (reference code of DeepSeek-V3).
double ModelConfig::softmax_scale() const {
  if (!mla()) return 1 / std::sqrt(double(head_width()));
  const double m = rope_scaling == "yarn" && rope_factor > 1 ? 0.1 * mscale_all_dim * std::log(rope_factor) + 1 : 1;
  return m * m / std::sqrt(double(qk_nope_head_dim + qk_rope_head_dim));
}

void validate(const ModelConfig& c) {
  const auto need = [](bool ok, const char* what) {
    if (!ok) throw_error(Exit::data, "model config: {}", what);
  };
  // Far beyond any model, and small enough that no product of two widths leaves 31 bits.
  constexpr int kMaxWidth = 1 << 20;
  const auto width = [](int n) { return n > 0 && n <= kMaxWidth; };
  need(c.vocab_size > 0 && c.vocab_size < (1 << 24), "vocab_size must be in 1 .. 16777215");
  need(width(c.hidden_size), "hidden_size must be in 1 .. 2^20");
  need(width(c.intermediate_size), "intermediate_size must be in 1 .. 2^20");
  need(c.num_hidden_layers > 0 && c.num_hidden_layers <= 10000, "num_hidden_layers must be in 1 .. 10000");
  need(width(c.num_attention_heads), "num_attention_heads must be in 1 .. 2^20");
  need(c.num_nextn_predict_layers >= 0 && c.num_nextn_predict_layers <= 8,
       "num_nextn_predict_layers must be in 0 .. 8");
  for (const double x :
       {c.rms_norm_eps, c.rope_theta, c.rope_factor, c.beta_fast, c.beta_slow, c.mscale, c.mscale_all_dim,
        c.attention_factor, c.low_freq_factor, c.high_freq_factor, c.routed_scaling_factor})
    need(std::isfinite(x), "a number is not finite");
  need(c.rms_norm_eps >= 0, "rms_norm_eps must not be negative");
  need(c.rope_theta > 0, "rope_theta must be positive");
  need(c.rope_scaling == "none" || c.original_max_position_embeddings > 0,
       "rope_scaling needs original_max_position_embeddings");
  need(c.rope_scaling == "none" || c.rope_factor > 0, "rope_scaling needs a positive factor");
  need(c.attention_factor >= 0, "attention_factor must not be negative");
  const auto all_heads = [&](int dim) { return width(dim) && int64_t{dim} * c.num_attention_heads <= kMaxWidth; };
  if (c.mla()) {
    need(width(c.qk_nope_head_dim) && width(c.v_head_dim), "MLA needs qk_nope_head_dim and v_head_dim");
    need(width(c.qk_rope_head_dim) && c.qk_rope_head_dim % 2 == 0, "MLA needs an even qk_rope_head_dim");
    need(all_heads(c.qk_nope_head_dim + c.qk_rope_head_dim) && all_heads(c.qk_nope_head_dim + c.v_head_dim),
         "num_attention_heads heads of qk_nope_head_dim and qk_rope_head_dim or v_head_dim are wider than 2^20");
    need(width(c.kv_lora_rank) && c.q_lora_rank >= 0 && c.q_lora_rank <= kMaxWidth,
         "kv_lora_rank and q_lora_rank must be at most 2^20");
  } else {
    need(c.num_key_value_heads > 0 && c.num_attention_heads % c.num_key_value_heads == 0,
         "num_attention_heads must be a multiple of num_key_value_heads");
    need(c.head_dim > 0 || c.hidden_size % c.num_attention_heads == 0,
         "hidden_size must be a multiple of num_attention_heads, or head_dim given");
    need(all_heads(c.head_width()), "num_attention_heads heads of head_dim are wider than 2^20");
    need(c.partial_rotary_factor > 0 && c.partial_rotary_factor <= 1, "partial_rotary_factor must be in (0, 1]");
    need(c.rotary_width() >= 2 && c.rotary_width() % 2 == 0, "the rotated part of a head must be even, and 2 at least");
  }
  if (c.n_routed_experts > 0) {
    need(c.n_routed_experts <= 1024, "n_routed_experts must be at most 1024");
    need(c.num_experts_per_tok > 0 && c.num_experts_per_tok <= c.n_routed_experts,
         "num_experts_per_tok must be in 1 .. n_routed_experts");
    need(width(c.moe_intermediate_size), "moe_intermediate_size must be in 1 .. 2^20");
    need(c.n_shared_experts >= 0 && int64_t{c.n_shared_experts} * c.moe_intermediate_size <= kMaxWidth,
         "n_shared_experts experts of moe_intermediate_size are wider than 2^20");
    need(c.first_k_dense_replace >= 0, "first_k_dense_replace must not be negative");
    need(c.n_group > 0 && c.n_group <= 64, "n_group must be in 1 .. 64");
    need(c.n_routed_experts % c.n_group == 0, "n_routed_experts must be a multiple of n_group");
    need(c.topk_group > 0 && c.topk_group <= c.n_group, "topk_group must be in 1 .. n_group");
    need(c.topk_group * (c.n_routed_experts / c.n_group) >= c.num_experts_per_tok,
         "the kept groups hold fewer than num_experts_per_tok experts");
    need(c.topk_method != "noaux_tc" || c.n_group == 1 || c.n_routed_experts / c.n_group >= 2,
         "noaux_tc scores groups by two experts");
  }
}

namespace {

// Reads fields of one JSON object with errors that name file and field.
class Reader {
 public:
  Reader(const Json& object, const std::string& place) : object_(object), place_(place) {}

  template <class T>
  void operator()(const char* key, T& to) const {
    const auto it = object_.find(key);
    if (it == object_.end() || it->is_null()) return;
    if constexpr (std::is_same_v<T, bool>) {
      if (!it->is_boolean()) fail(key, "a boolean");
      to = it->get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
      if (!it->is_number_integer() || it->get<int64_t>() < 0 || it->get<int64_t>() > (int64_t{1} << 30))
        fail(key, "an integer in 0 .. 2^30");
      to = static_cast<T>(it->get<int64_t>());
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!it->is_number()) fail(key, "a number");
      to = it->get<double>();
    } else {
      if (!it->is_string() || it->template get_ref<const std::string&>().size() > 80)
        fail(key, "a string of at most 80 bytes");
      to = it->get<std::string>();
    }
  }
  [[noreturn]] void fail(const char* key, const char* expected) const {
    throw_error(Exit::data, "{}: field \"{}\" must be {}", place_, key, expected);
  }

 private:
  const Json& object_;
  const std::string& place_;
};

}  // namespace

ModelConfig parse_config_json(const std::string& text, const std::string& place) {
  const Json root =
      parse_json(text, place, 1, {.max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = size_t{1} << 16});
  if (!root.is_object()) throw_error(Exit::data, "{}: not a JSON object", place);
  const Reader read(root, place);
  ModelConfig c;
  c.model_type.clear();
  read("model_type", c.model_type);
  if (c.model_type.empty()) read.fail("model_type", "given: it names the architecture");
  const bool deepseek = c.model_type == "deepseek_v3" || c.model_type == "deepseek_v2";
  if (!deepseek && c.model_type != "llama" && c.model_type != "qwen2" && c.model_type != "qwen3")
    throw_error(Exit::data,
                "{}: model_type \"{}\" is not supported (supported: deepseek_v3, deepseek_v2, llama, qwen2, qwen3)",
                place, c.model_type);
  std::string act = "silu";
  read("hidden_act", act);
  if (act != "silu") throw_error(Exit::data, "{}: hidden_act \"{}\" is not supported (supported: silu)", place, act);
  if (const auto it = root.find("quantization_config"); it != root.end() && !it->is_null()) {
    if (!it->is_object()) read.fail("quantization_config", "an object");
    const Reader quantization(*it, place);
    std::string method;
    quantization("quant_method", method);
    const auto block = it->find("weight_block_size");
    if (method != "fp8" || block == it->end() || *block != Json({kScaleBlock, kScaleBlock}))
      throw_error(Exit::data,
                  "{}: quantization_config \"{}\" is not supported (supported: fp8 with weight_block_size [128, 128]; "
                  "GGUF files of block types)",
                  place, method);
  }

  read("vocab_size", c.vocab_size);
  read("hidden_size", c.hidden_size);
  read("intermediate_size", c.intermediate_size);
  read("num_hidden_layers", c.num_hidden_layers);
  read("num_attention_heads", c.num_attention_heads);
  read("rms_norm_eps", c.rms_norm_eps);
  read("tie_word_embeddings", c.tie_word_embeddings);
  read("max_position_embeddings", c.max_position_embeddings);
  c.num_key_value_heads = c.num_attention_heads;
  read("num_key_value_heads", c.num_key_value_heads);
  read("rope_theta", c.rope_theta);
  read("init_embedding_std", c.init_embedding_std);
  read("init_output_scale", c.init_output_scale);
  if (deepseek) {
    read("q_lora_rank", c.q_lora_rank);
    read("kv_lora_rank", c.kv_lora_rank);
    read("qk_nope_head_dim", c.qk_nope_head_dim);
    read("qk_rope_head_dim", c.qk_rope_head_dim);
    read("v_head_dim", c.v_head_dim);
    if (c.kv_lora_rank <= 0) throw_error(Exit::data, "{}: {} needs kv_lora_rank", place, c.model_type);
    bool bias = false, interleave = true;
    read("attention_bias", bias);
    read("rope_interleave", interleave);
    if (bias) throw_error(Exit::data, "{}: attention_bias is not supported for {}", place, c.model_type);
    if (!interleave) throw_error(Exit::data, "{}: rope_interleave = false is not supported", place);
    if (c.model_type == "deepseek_v2") {
      c.topk_method = "greedy";
      c.scoring_func = "softmax";
      c.norm_topk_prob = false;
    }
    read("n_routed_experts", c.n_routed_experts);
    read("n_shared_experts", c.n_shared_experts);
    read("num_experts_per_tok", c.num_experts_per_tok);
    read("moe_intermediate_size", c.moe_intermediate_size);
    read("first_k_dense_replace", c.first_k_dense_replace);
    read("n_group", c.n_group);
    read("topk_group", c.topk_group);
    read("topk_method", c.topk_method);
    read("scoring_func", c.scoring_func);
    read("norm_topk_prob", c.norm_topk_prob);
    read("routed_scaling_factor", c.routed_scaling_factor);
    read("num_nextn_predict_layers", c.num_nextn_predict_layers);
    int frequency = 1;
    read("moe_layer_freq", frequency);
    if (frequency != 1)
      throw_error(Exit::data, "{}: moe_layer_freq {} is not supported (supported: 1)", place, frequency);
    if (c.scoring_func != "sigmoid" && c.scoring_func != "softmax")
      throw_error(Exit::data, "{}: scoring_func \"{}\" is not supported (supported: sigmoid, softmax)", place,
                  c.scoring_func);
    if (c.topk_method != "noaux_tc" && c.topk_method != "greedy" && c.topk_method != "group_limited_greedy")
      throw_error(Exit::data,
                  "{}: topk_method \"{}\" is not supported (supported: noaux_tc, greedy, group_limited_greedy)", place,
                  c.topk_method);
  } else {
    read("head_dim", c.head_dim);
    read("partial_rotary_factor", c.partial_rotary_factor);
    c.attention_bias = c.model_type == "qwen2";
    if (c.model_type != "qwen2") read("attention_bias", c.attention_bias);
    c.qk_norm = c.model_type == "qwen3";
    read("qk_norm", c.qk_norm);
    bool mlp_bias = false, sliding = false;
    read("mlp_bias", mlp_bias);
    read("use_sliding_window", sliding);
    if (mlp_bias) throw_error(Exit::data, "{}: mlp_bias is not supported", place);
    if (sliding) throw_error(Exit::data, "{}: use_sliding_window is not supported", place);
  }
  // transformers 5 has moved everything about rope into rope_parameters.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const auto it = root.find(name);
    if (it == root.end() || it->is_null()) continue;
    if (!it->is_object()) read.fail(name, "an object");
    const Reader scaling(*it, place);
    scaling("rope_theta", c.rope_theta);
    scaling("partial_rotary_factor", c.partial_rotary_factor);
    std::string type;
    scaling("type", type);
    scaling("rope_type", type);
    if (type != "default" && !(type.empty() && it->contains("rope_theta"))) {
      if (type != "yarn" && type != "llama3")
        throw_error(Exit::data, "{}: {} of type \"{}\" is not supported (supported: yarn, llama3)", place, name, type);
      c.rope_scaling = type;
      scaling("factor", c.rope_factor);
      scaling("original_max_position_embeddings", c.original_max_position_embeddings);
      scaling("beta_fast", c.beta_fast);
      scaling("beta_slow", c.beta_slow);
      scaling("mscale", c.mscale);
      scaling("mscale_all_dim", c.mscale_all_dim);
      scaling("attention_factor", c.attention_factor);
      scaling("low_freq_factor", c.low_freq_factor);
      scaling("high_freq_factor", c.high_freq_factor);
    }
  }
  try {
    validate(c);
  } catch (const Error& e) {
    throw_error(Exit::data, "{}: {}", place, e.what());
  }
  return c;
}

std::string config_json(const ModelConfig& c, bool fp8) {
  Json j;
  const bool deepseek = c.mla();
  j["model_type"] = c.model_type;
  j["architectures"] = {c.model_type == "deepseek_v3"   ? "DeepseekV3ForCausalLM"
                        : c.model_type == "deepseek_v2" ? "DeepseekV2ForCausalLM"
                        : c.model_type == "qwen2"       ? "Qwen2ForCausalLM"
                        : c.model_type == "qwen3"       ? "Qwen3ForCausalLM"
                                                        : "LlamaForCausalLM"};
  j["hidden_act"] = "silu";
  j["torch_dtype"] = "float32";
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = deepseek ? c.num_attention_heads : c.num_key_value_heads;
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["rope_theta"] = c.rope_theta;
  j["init_embedding_std"] = c.init_embedding_std;
  j["init_output_scale"] = c.init_output_scale;
  if (deepseek) {
    j["attention_bias"] = false;
    j["q_lora_rank"] = c.q_lora_rank ? Json(c.q_lora_rank) : Json();
    j["kv_lora_rank"] = c.kv_lora_rank;
    j["qk_nope_head_dim"] = c.qk_nope_head_dim;
    j["qk_rope_head_dim"] = c.qk_rope_head_dim;
    j["v_head_dim"] = c.v_head_dim;
    j["n_routed_experts"] = c.n_routed_experts;
    j["n_shared_experts"] = c.n_shared_experts;
    j["num_experts_per_tok"] = c.num_experts_per_tok;
    j["moe_intermediate_size"] = c.moe_intermediate_size;
    j["first_k_dense_replace"] = c.first_k_dense_replace;
    j["moe_layer_freq"] = 1;
    j["n_group"] = c.n_group;
    j["topk_group"] = c.topk_group;
    j["topk_method"] = c.topk_method;
    j["scoring_func"] = c.scoring_func;
    j["norm_topk_prob"] = c.norm_topk_prob;
    j["routed_scaling_factor"] = c.routed_scaling_factor;
    j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  } else {
    if (c.head_dim) j["head_dim"] = c.head_dim;
    j["attention_bias"] = c.attention_bias;
    j["partial_rotary_factor"] = c.partial_rotary_factor;
    j["qk_norm"] = c.qk_norm;
  }
  if (c.rope_scaling == "none") {
    j["rope_scaling"] = nullptr;
  } else {
    Json& s = j["rope_scaling"];
    s["rope_type"] = s["type"] = c.rope_scaling;
    s["factor"] = c.rope_factor;
    s["original_max_position_embeddings"] = c.original_max_position_embeddings;
    if (c.rope_scaling == "yarn") {
      s["beta_fast"] = c.beta_fast;
      s["beta_slow"] = c.beta_slow;
      s["mscale"] = c.mscale;
      s["mscale_all_dim"] = c.mscale_all_dim;
      if (c.attention_factor > 0) s["attention_factor"] = c.attention_factor;
    } else {
      s["low_freq_factor"] = c.low_freq_factor;
      s["high_freq_factor"] = c.high_freq_factor;
    }
  }
  if (fp8)
    j["quantization_config"] = {{"quant_method", "fp8"},
                                {"fmt", "e4m3"},
                                {"activation_scheme", "dynamic"},
                                {"weight_block_size", {kScaleBlock, kScaleBlock}}};
  return j.dump(2) + "\n";
}

}  // namespace ponder::model
