#include "ponder/model/gguf_names.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "ponder/base/error.h"
#include "ponder/model/rope.h"

namespace ponder::model {
namespace {

struct Pair {
  std::string_view released, gguf;
};
constexpr Pair kGlobals[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};
// Behind "model.layers.N." and "blk.N.".
constexpr Pair kLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_a_proj.weight", "attn_q_a.weight"},
    {"self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"},
    {"self_attn.q_b_proj.weight", "attn_q_b.weight"},
    {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight"},
    {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"},
    {"self_attn.kv_b_proj.weight", "attn_kv_b.weight"},
    {"self_attn.k_b_proj.transposed", "attn_k_b.weight"},
    {"self_attn.v_b_proj.weight", "attn_v_b.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
    {"mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight"},
    {"enorm.weight", "nextn.enorm.weight"},
    {"hnorm.weight", "nextn.hnorm.weight"},
    {"eh_proj.weight", "nextn.eh_proj.weight"},
    {"embed_tokens.weight", "nextn.embed_tokens.weight"},
    {"shared_head.norm.weight", "nextn.shared_head_norm.weight"},
    {"shared_head.head.weight", "nextn.shared_head_head.weight"},
};
// Behind "mlp.experts.E.".
constexpr Pair kExpert[] = {
    {"gate_proj.weight", "ffn_gate_exps.weight"},
    {"up_proj.weight", "ffn_up_exps.weight"},
    {"down_proj.weight", "ffn_down_exps.weight"},
};

// Takes `prefix`, a whole number and a dot off the front of `s`.
std::optional<int> take_number(std::string_view& s, std::string_view prefix) {
  if (!s.starts_with(prefix)) return {};
  int n = 0;
  const auto [end, error] = std::from_chars(s.data() + prefix.size(), s.data() + s.size(), n);
  if (error != std::errc() || n < 0 || end == s.data() + s.size() || *end != '.') return {};
  s.remove_prefix(static_cast<size_t>(end + 1 - s.data()));
  return n;
}

template <size_t N>
const Pair* find(const Pair (&table)[N], std::string_view Pair::*side, std::string_view name) {
  for (const Pair& p : table)
    if (p.*side == name) return &p;
  return nullptr;
}

}  // namespace

std::optional<GgufPlace> gguf_place(const std::string& released) {
  if (const Pair* p = find(kGlobals, &Pair::released, released)) return GgufPlace{std::string(p->gguf)};
  std::string_view rest = released;
  const auto layer = take_number(rest, "model.layers.");
  if (!layer) return {};
  const std::string prefix = fmt::format("blk.{}.", *layer);
  if (const Pair* p = find(kLayer, &Pair::released, rest)) return GgufPlace{prefix + std::string(p->gguf)};
  if (const auto expert = take_number(rest, "mlp.experts."))
    if (const Pair* p = find(kExpert, &Pair::released, rest)) return GgufPlace{prefix + std::string(p->gguf), *expert};
  return {};
}

bool is_expert_stack(const std::string& gguf) { return gguf.ends_with("_exps.weight"); }

std::optional<std::string> released_name(const std::string& gguf, int expert) {
  if (const Pair* p = find(kGlobals, &Pair::gguf, gguf)) return std::string(p->released);
  std::string_view rest = gguf;
  const auto layer = take_number(rest, "blk.");
  if (!layer) return {};
  const std::string prefix = fmt::format("model.layers.{}.", *layer);
  if (const Pair* p = find(kLayer, &Pair::gguf, rest)) return prefix + std::string(p->released);
  if (const Pair* p = find(kExpert, &Pair::gguf, rest))
    return fmt::format("{}mlp.experts.{}.{}", prefix, expert, p->released);
  return {};
}

std::vector<int32_t> gguf_row_order(const std::string& released, const ModelConfig& c) {
  if (c.model_type != "llama") return {};
  const bool q = released.find(".q_proj.") != released.npos, k = released.find(".k_proj.") != released.npos;
  if (!q && !k) return {};
  const int heads = q ? c.num_attention_heads : c.num_key_value_heads, width = c.head_width(), half = width / 2;
  std::vector<int32_t> order(static_cast<size_t>(heads * width));
  for (int h = 0; h < heads; ++h)
    for (int s = 0; s < 2; ++s)
      for (int j = 0; j < half; ++j) order[static_cast<size_t>(h * width + s * half + j)] = h * width + 2 * j + s;
  return order;
}

std::vector<float> gguf_rope_divisors(const ModelConfig& c) {
  if (c.rope_scaling != "llama3") return {};
  ModelConfig plain = c;
  plain.rope_scaling = "none";
  const std::vector<double> scaled = rope_frequencies(c), f = rope_frequencies(plain);
  std::vector<float> divisors(f.size());
  for (size_t i = 0; i < f.size(); ++i) divisors[i] = static_cast<float>(f[i] / scaled[i]);
  return divisors;
}

namespace {

// GGUF holds what llama3 scaling makes of the frequencies, not its four numbers. Released models have low and high
// factors 1 and 4 and an original context that is a power of two: with one of these the divisors come out the same.
// False: they do not. `c` has no scaling yet.
bool recover_llama3(ModelConfig& c, const std::vector<float>& divisors) {
  if (divisors.empty() || divisors.size() != rope_frequencies(c).size()) return false;
  c.rope_factor = *std::max_element(divisors.begin(), divisors.end());
  if (c.rope_factor == 1) return true;
  c.rope_scaling = "llama3";
  c.low_freq_factor = 1;
  c.high_freq_factor = 4;
  for (int original = 32; c.rope_factor > 1 && original <= (1 << 24); original *= 2) {
    c.original_max_position_embeddings = original;
    const std::vector<float> made = gguf_rope_divisors(c);
    if (std::equal(made.begin(), made.end(), divisors.begin(),
                   [](float a, float b) { return std::abs(a - b) <= 1e-4f * std::abs(b); }))
      return true;
  }
  return false;
}

// Numbers that llama.cpp computes with and we do not: only their neutral values can be taken.
void check_neutral(const ModelConfig& c, const GgufFile& file, const std::string& arch) {
  const auto check = [&](const char* name, auto&& neutral, const char* meaning) {
    const std::string key = arch + "." + name;
    if (!file.has(key)) return;
    if (const double x = file.number(key); !neutral(x))
      throw_error(Exit::data, "{}: {} is {}: {} is not supported", file.path(), key, x, meaning);
  };
  const auto is = [](double value) { return [value](double x) { return std::abs(x - value) <= 1e-5 * value; }; };
  check("rope.scaling.attn_factor", is(1), "another factor of the rotary embedding");
  check(
      "attention.scale", [&](double x) { return x == 0 || is(c.softmax_scale())(x); }, "another scale of attention");
  check(
      "logit_scale", [&](double x) { return x == 0 || is(1)(x); }, "a scale of the logits");
  check(
      "attention.sliding_window", [&](double x) { return x <= 0 || x >= c.max_position_embeddings; },
      "attention to a part of the context");
}

}  // namespace

ModelConfig config_from_gguf(const GgufFile& file) {
  const std::string& arch = file.text("general.architecture");
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3" && arch != "deepseek2")
    throw_error(Exit::data, "{}: architecture \"{}\" is not supported (supported: llama, qwen2, qwen3, deepseek2)",
                file.path(), arch);
  const auto key = [&](const char* name) { return arch + "." + name; };
  const auto whole = [&](const char* name, std::optional<int64_t> otherwise = {}) {
    const int64_t n = file.integer(key(name), otherwise);
    if (n < 0 || n > (int64_t{1} << 30))
      throw_error(Exit::data, "{}: {} is {}, expected 0 .. 2^30", file.path(), key(name), n);
    return static_cast<int>(n);
  };
  ModelConfig c;
  c.model_type = arch;
  c.vocab_size = static_cast<int>(std::min<int64_t>(file.at("token_embd.weight").rows(), 1 << 30));
  c.hidden_size = whole("embedding_length");
  c.num_hidden_layers = whole("block_count");
  c.num_attention_heads = whole("attention.head_count");
  c.num_key_value_heads = whole("attention.head_count_kv", c.num_attention_heads);
  c.rms_norm_eps = file.number(key("attention.layer_norm_rms_epsilon"));
  c.max_position_embeddings = whole("context_length");
  c.rope_theta = file.number(key("rope.freq_base"), 10000.0);
  c.tie_word_embeddings = !file.find("output.weight");
  const int experts = whole("expert_count", 0);
  c.intermediate_size = whole("feed_forward_length", experts ? std::optional<int64_t>(1) : std::nullopt);

  if (arch != "deepseek2") {
    if (experts)
      throw_error(Exit::data, "{}: {} with experts is not supported (experts: deepseek2)", file.path(), arch);
    const int width = c.num_attention_heads ? c.hidden_size / c.num_attention_heads : 0;
    c.head_dim = whole("attention.key_length", width);
    if (const int v = whole("attention.value_length", c.head_dim); v != c.head_dim)
      throw_error(Exit::data, "{}: keys of width {} with values of width {} are not supported", file.path(), c.head_dim,
                  v);
    if (c.head_dim > 0) {
      const int rotary = whole("rope.dimension_count", c.head_dim);
      c.partial_rotary_factor = rotary / static_cast<double>(c.head_dim);
      if (c.rotary_width() < rotary) c.partial_rotary_factor = std::nextafter(c.partial_rotary_factor, 1);  // 120 / 176
    }
    c.attention_bias = arch == "qwen2" || file.find("blk.0.attn_q.bias") != nullptr;
    c.qk_norm = file.find("blk.0.attn_q_norm.weight") != nullptr;
  } else {
    c.q_lora_rank = whole("attention.q_lora_rank", 0);
    c.kv_lora_rank = whole("attention.kv_lora_rank");
    if (c.kv_lora_rank == 0) throw_error(Exit::data, "{}: {} is 0", file.path(), key("attention.kv_lora_rank"));
    c.qk_rope_head_dim = whole("rope.dimension_count");
    const bool split = file.has(key("attention.key_length_mla"));
    c.qk_nope_head_dim = whole(split ? "attention.key_length_mla" : "attention.key_length") - c.qk_rope_head_dim;
    c.v_head_dim = whole(split ? "attention.value_length_mla" : "attention.value_length");
    c.num_key_value_heads = c.num_attention_heads;
    c.n_routed_experts = experts;
    c.num_experts_per_tok = whole("expert_used_count", 0);
    c.n_shared_experts = whole("expert_shared_count", 0);
    c.moe_intermediate_size = whole("expert_feed_forward_length", 0);
    c.first_k_dense_replace = whole("leading_dense_block_count", 0);
    const double scale = file.number(key("expert_weights_scale"), 1.0);
    c.routed_scaling_factor = scale == 0 ? 1 : scale;
    c.norm_topk_prob = file.boolean(key("expert_weights_norm"), false);
    const int gating = whole("expert_gating_func", 1);
    if (gating != 1 && gating != 2)
      throw_error(Exit::data, "{}: {} {} is not supported (supported: 1 softmax, 2 sigmoid)", file.path(),
                  key("expert_gating_func"), gating);
    c.scoring_func = gating == 2 ? "sigmoid" : "softmax";
    c.num_nextn_predict_layers = whole("nextn_predict_layers", 0);
    c.num_hidden_layers -= c.num_nextn_predict_layers;  // block_count has both
    const bool biased = file.find(fmt::format("blk.{}.exp_probs_b.bias", c.first_k_dense_replace)) != nullptr;
    c.model_type = biased || gating == 2 ? "deepseek_v3" : "deepseek_v2";
    // Files older than the group keys: the groups of the models that were released.
    const bool v3 = biased && experts == 256, v2 = !biased && experts == 160;
    c.n_group = whole("expert_group_count", v3 || v2 ? 8 : 1);
    c.topk_group = whole("expert_group_used_count", v3 ? 4 : v2 ? 3 : 1);
    c.n_group = std::max(c.n_group, 1), c.topk_group = std::max(c.topk_group, 1);
    c.topk_method = biased ? "noaux_tc" : c.n_group > 1 ? "group_limited_greedy" : "greedy";
  }

  const std::string scaling = file.has(key("rope.scaling.type")) ? file.text(key("rope.scaling.type")) : "none";
  const double factor = file.number(key("rope.scaling.factor"), 1.0);
  if (scaling == "yarn") {
    c.rope_scaling = "yarn";
    c.rope_factor = factor;
    c.original_max_position_embeddings = whole("rope.scaling.original_context_length");
    c.beta_fast = file.number(key("rope.scaling.yarn_beta_fast"), 32.0);
    c.beta_slow = file.number(key("rope.scaling.yarn_beta_slow"), 1.0);
    // Stored is 0.1 mscale_all_dim; released models have mscale equal to it, so cosines keep their size.
    if (c.mla())
      c.mscale = c.mscale_all_dim =
          std::round(file.number(key("rope.scaling.yarn_log_multiplier"), 0.0) * 10 * 1e6) / 1e6;
  } else if (scaling != "none" && factor != 1) {
    throw_error(Exit::data, "{}: rope scaling \"{}\" is not supported (supported: yarn, llama3)", file.path(), scaling);
  }
  try {
    validate(c);
  } catch (const Error& e) {
    throw_error(Exit::data, "{}: {}", file.path(), e.what());
  }
  check_neutral(c, file, arch);
  const GgufTensor* divisors = file.find("rope_freqs.weight");
  if (divisors && c.rope_scaling == "none") {
    std::vector<float> numbers(static_cast<size_t>(divisors->cols()));
    dequantize_row(divisors->matrix(), 0, numbers.data());
    if (!recover_llama3(c, numbers))
      throw_error(Exit::data, "{}: rope_freqs.weight is not the scaling of Llama 3.1 (supported: that, yarn, none)",
                  file.path());
  }
  return c;
}

namespace {

// The error of a rotary embedding of which GGUF, as we and llama.cpp read it, would make another one.
void check_rope_fits_gguf(const ModelConfig& c, const std::string& name) {
  if (c.rope_scaling == "yarn") {
    ModelConfig read = c;
    read.attention_factor = 0;
    read.mscale = c.mla() ? c.mscale_all_dim : 1;
    if (!c.mla()) read.mscale_all_dim = 0;
    const double factor = rope_magnitude(c), otherwise = rope_magnitude(read);
    if (!(std::abs(factor - otherwise) <= 1e-6 * otherwise))
      throw_error(
          Exit::data,
          "{}: YaRN's factor of cosines and sines is {:.6g} (attention_factor {:g}, mscale {:g}, mscale_all_dim "
          "{:g}); GGUF has no place for it, a reader would take {:.6g}. Write safetensors (a folder) instead",
          name, factor, c.attention_factor, c.mscale, c.mscale_all_dim, otherwise);
  } else if (c.rope_scaling == "llama3") {
    ModelConfig read = c;
    read.rope_scaling = "none";
    if (!recover_llama3(read, gguf_rope_divisors(c)))
      throw_error(Exit::data,
                  "{}: the llama3 scaling (factor {:g}, low_freq_factor {:g}, high_freq_factor {:g}, "
                  "original_max_position_embeddings {}) could not be read back: GGUF holds only what it makes of the "
                  "frequencies, from which factors 1 and 4 and a power of two are found. Write safetensors (a folder) "
                  "instead",
                  name, c.rope_factor, c.low_freq_factor, c.high_freq_factor, c.original_max_position_embeddings);
  }
}

}  // namespace

std::vector<std::pair<std::string, GgufValue>> gguf_metadata(const ModelConfig& c, const std::string& name) {
  check_rope_fits_gguf(c, name);
  std::vector<std::pair<std::string, GgufValue>> m;
  const std::string arch = c.mla() ? "deepseek2" : c.model_type;
  const auto put = [&](const char* key, auto value) { m.push_back({arch + "." + key, GgufValue{value}}); };
  const auto whole = [&](const char* key, int64_t n) { put(key, n); };
  m.push_back({"general.architecture", GgufValue{arch}});
  m.push_back({"general.name", GgufValue{name}});
  whole("block_count", c.kv_layers());
  whole("context_length", c.max_position_embeddings);
  whole("embedding_length", c.hidden_size);
  whole("feed_forward_length", c.intermediate_size);
  whole("attention.head_count", c.num_attention_heads);
  put("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  put("rope.freq_base", c.rope_theta);
  whole("vocab_size", c.vocab_size);
  if (!c.mla()) {
    const int width = c.head_width();
    whole("attention.head_count_kv", c.num_key_value_heads);
    whole("attention.key_length", width);
    whole("attention.value_length", width);
    whole("rope.dimension_count", c.rotary_width());
  } else {
    whole("attention.head_count_kv", 1);
    if (c.q_lora_rank) whole("attention.q_lora_rank", c.q_lora_rank);
    whole("attention.kv_lora_rank", c.kv_lora_rank);
    whole("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
    whole("attention.value_length", c.kv_lora_rank);
    whole("attention.key_length_mla", c.qk_nope_head_dim + c.qk_rope_head_dim);
    whole("attention.value_length_mla", c.v_head_dim);
    whole("rope.dimension_count", c.qk_rope_head_dim);
    if (c.n_routed_experts) {
      whole("leading_dense_block_count", c.first_k_dense_replace);
      whole("expert_count", c.n_routed_experts);
      whole("expert_used_count", c.num_experts_per_tok);
      whole("expert_shared_count", c.n_shared_experts);
      whole("expert_feed_forward_length", c.moe_intermediate_size);
      put("expert_weights_scale", c.routed_scaling_factor);
      put("expert_weights_norm", c.norm_topk_prob);
      whole("expert_gating_func", c.scoring_func == "sigmoid" ? 2 : 1);
      if (c.topk_method != "greedy") {
        whole("expert_group_count", c.n_group);
        whole("expert_group_used_count", c.topk_group);
      }
    } else {
      whole("leading_dense_block_count", c.num_hidden_layers);
    }
    if (c.num_nextn_predict_layers) whole("nextn_predict_layers", c.num_nextn_predict_layers);
  }
  if (c.rope_scaling == "yarn") {
    put("rope.scaling.type", std::string("yarn"));
    put("rope.scaling.factor", c.rope_factor);
    whole("rope.scaling.original_context_length", c.original_max_position_embeddings);
    if (c.beta_fast != 32) put("rope.scaling.yarn_beta_fast", c.beta_fast);
    if (c.beta_slow != 1) put("rope.scaling.yarn_beta_slow", c.beta_slow);
    if (c.mla()) put("rope.scaling.yarn_log_multiplier", 0.1 * c.mscale_all_dim);
  }
  return m;
}

}  // namespace ponder::model
