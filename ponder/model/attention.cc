#include "ponder/model/attention.h"

#include <cstring>
#include <vector>

namespace ponder::model {

using ops::Param;
using ops::Slice;

namespace {

ops::KvRef kv_ref(const Batch& batch, int layer) { return {batch.kv->layout(), batch.spans, batch.kv->layer(layer)}; }

// Llama, Qwen2 (biases), Qwen3 (norms of q and k): one product for q, k and v.
class Gqa final : public Attention {
 public:
  Gqa(Params& params, const ModelConfig& c, const std::string& prefix, int layer)
      : layer_(layer),
        heads_(c.num_attention_heads),
        kv_heads_(c.num_key_value_heads),
        width_(c.head_width()),
        eps_(static_cast<float>(c.rms_norm_eps)),
        scale_(static_cast<float>(c.softmax_scale())) {
    const int64_t d = c.hidden_size, q = int64_t{heads_} * width_, kv = int64_t{kv_heads_} * width_;
    qkv_ = &params.matrix(prefix + "qkv",
                          {{prefix + "q_proj.weight", 0, {q, d}},
                           {prefix + "k_proj.weight", q * d, {kv, d}},
                           {prefix + "v_proj.weight", (q + kv) * d, {kv, d}}},
                          q + 2 * kv, d, fan_in_std(d));
    if (c.attention_bias)
      bias_ = &params.vector(
          prefix + "qkv_bias",
          {{prefix + "q_proj.bias", 0, {q}}, {prefix + "k_proj.bias", q, {kv}}, {prefix + "v_proj.bias", q + kv, {kv}}},
          q + 2 * kv, 0);
    if (c.qk_norm) {
      q_norm_ = &params.vector(prefix + "q_norm", {{prefix + "q_norm.weight", 0, {width_}}}, width_, 1);
      k_norm_ = &params.vector(prefix + "k_norm", {{prefix + "k_norm.weight", 0, {width_}}}, width_, 1);
    }
    o_ = &params.matrix(prefix + "o", {{prefix + "o_proj.weight", 0, {d, q}}}, d, q, output_std(c, q));
  }

  Tensor forward(ops::Ctx& ctx, const Tensor& x, const Batch& batch, const ops::RopeTable& rope) const override {
    const int64_t nq = int64_t{heads_} * width_, nkv = int64_t{kv_heads_} * width_;
    const Tensor qkv = ops::linear(ctx, x, *qkv_, bias_);
    Tensor q = qkv.columns(0, nq), k = qkv.columns(nq, nkv);
    const Tensor v = qkv.columns(nq + nkv, nkv);
    if (q_norm_) {
      ops::rms_norm_heads(ctx, q, *q_norm_, eps_);
      ops::rms_norm_heads(ctx, k, *k_norm_, eps_);
    }
    Tensor qk = qkv.columns(0, nq + nkv);  // heads of q and k have one width and rotate alike
    ops::rope_heads(ctx, qk, heads_ + kv_heads_, rope, batch.positions);
    return ops::linear(ctx, ops::attention(ctx, q, k, v, heads_, scale_, kv_ref(batch, layer_)), *o_);
  }

 private:
  int layer_, heads_, kv_heads_, width_;
  float eps_, scale_;
  Param *qkv_, *bias_ = nullptr, *q_norm_ = nullptr, *k_norm_ = nullptr, *o_;
};

// DeepSeek-V2 and later. The two norms of latents have epsilon 1e-6 whatever rms_norm_eps says (as in the released code).
class Mla final : public Attention {
 public:
  Mla(Params& params, const ModelConfig& c, const std::string& prefix, int layer, MlaForm form)
      : layer_(layer),
        form_(form),
        d_{c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank},
        q_lora_(c.q_lora_rank),
        scale_(static_cast<float>(c.softmax_scale())) {
    const int64_t d = c.hidden_size, q = int64_t{d_.heads} * (d_.nope + d_.rope), kv = d_.lora + d_.rope;
    const int64_t first = q_lora_ ? q_lora_ : q;
    a_ = &params.matrix(prefix + "a",
                        {{prefix + (q_lora_ ? "q_a_proj.weight" : "q_proj.weight"), 0, {first, d}},
                         {prefix + "kv_a_proj_with_mqa.weight", first * d, {kv, d}}},
                        first + kv, d, fan_in_std(d));
    if (q_lora_) {
      q_norm_ = &params.vector(prefix + "q_a_layernorm", {{prefix + "q_a_layernorm.weight", 0, {q_lora_}}}, q_lora_, 1);
      q_b_ = &params.matrix(prefix + "q_b", {{prefix + "q_b_proj.weight", 0, {q, q_lora_}}}, q, q_lora_,
                            fan_in_std(q_lora_));
    }
    kv_norm_ =
        &params.vector(prefix + "kv_a_layernorm", {{prefix + "kv_a_layernorm.weight", 0, {d_.lora}}}, d_.lora, 1);
    if (params.stored()) {
      const int64_t h = d_.heads;
      const auto half = [&](const char* name, int64_t n, int64_t k) {
        Param& p = params.matrix(prefix + name, {{prefix + name, 0, {h * n, k}}}, h * n, k, 0);
        p.matrices = {.batch = h, .n = n, .k = k, .offset = 0, .stride = n * k};
        return &p;
      };
      if (form != MlaForm::absorbed) k_b_ = half(kKb, d_.nope, d_.lora);
      if (form != MlaForm::expanded) k_b_transposed_ = half(kKbTransposed, d_.lora, d_.nope);
      if (form == MlaForm::by_token) k_b_->for_prompts = true;
      v_b_ = half(kVb, d_.v, d_.lora);
    } else {
      const int64_t head_rows = d_.nope + d_.v;
      k_b_ = k_b_transposed_ = v_b_ =
          &params.matrix(prefix + "kv_b", {{prefix + "kv_b_proj.weight", 0, {d_.heads * head_rows, d_.lora}}},
                         d_.heads * head_rows, d_.lora, fan_in_std(d_.lora));
      k_b_->matrices = {.batch = d_.heads,
                        .n = d_.v,
                        .k = d_.lora,
                        .offset = int64_t{d_.nope} * d_.lora,
                        .stride = head_rows * d_.lora};
    }
    o_ = &params.matrix(prefix + "o", {{prefix + "o_proj.weight", 0, {d, int64_t{d_.heads} * d_.v}}}, d,
                        int64_t{d_.heads} * d_.v, output_std(c, int64_t{d_.heads} * d_.v));
  }

  Tensor forward(ops::Ctx& ctx, const Tensor& x, const Batch& batch, const ops::RopeTable& rope) const override {
    const Tensor a = ops::linear(ctx, x, *a_);
    const int64_t kv = d_.lora + d_.rope;
    Tensor q = a.columns(0, a.cols() - kv);
    if (q_lora_) q = ops::linear(ctx, ops::rms_norm(ctx, q, *q_norm_, kLatentEps), *q_b_);
    const Tensor latent =
        ops::mla_latent(ctx, a.columns(a.cols() - kv, kv), *kv_norm_, kLatentEps, d_, rope, batch.positions);
    const ops::KvRef pages = kv_ref(batch, layer_);
    if (form_ == MlaForm::expanded) {
      const auto [k, v] = ops::mla_expand(ctx, latent, *k_b_, *v_b_, d_, {0, d_.heads});
      const Tensor q_rotated = ops::mla_expand_query(ctx, q, d_, rope, batch.positions);
      return ops::linear(ctx, ops::attention(ctx, q_rotated, k, v, d_.heads, scale_, pages), *o_);
    }
    if (batch.prompt_spans > 0) return ops::linear(ctx, by_token(ctx, q, latent, batch, rope, pages), *o_);
    const Tensor q_absorbed = ops::mla_absorb_query(ctx, q, *k_b_transposed_, d_, rope, batch.positions);
    const Tensor u = ops::attention(ctx, q_absorbed, latent, latent.columns(0, d_.lora), d_.heads, scale_, pages);
    return ops::linear(ctx, ops::mla_absorb_output(ctx, u, *v_b_, d_), *o_);
  }

 private:
  // The outputs of all heads: rows of prompts first, then the others.
  Tensor by_token(ops::Ctx& ctx, const Tensor& q, const Tensor& latent, const Batch& batch, const ops::RopeTable& rope,
                  ops::KvRef pages) const {
    const int64_t rows = q.rows();
    const kernels::Span& last = batch.spans[batch.prompt_spans - 1];
    const int64_t prompt = last.row + last.count;
    ops::store_kv(ctx, latent, latent.columns(0, d_.lora), pages);
    const Tensor out = ctx.empty({rows, int64_t{d_.heads} * d_.v});
    const auto positions = [&](int64_t begin, int64_t n) {
      return batch.positions.subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
    };
    pages.spans = batch.spans.first(batch.prompt_spans);
    const Tensor q_rotated = ops::mla_expand_query(ctx, q.row_range(0, prompt), d_, rope, positions(0, prompt));
    ops::mla_attend_latents(ctx, q_rotated, *k_b_, *v_b_, d_, scale_, pages, out.row_range(0, prompt));
    if (prompt == rows) return out;

    const int64_t n = rows - prompt;
    std::vector<kernels::Span> others(batch.spans.begin() + static_cast<int64_t>(batch.prompt_spans),
                                      batch.spans.end());
    for (kernels::Span& s : others) s.row -= static_cast<int32_t>(prompt);
    pages.spans = others;
    const Tensor q_absorbed =
        ops::mla_absorb_query(ctx, q.row_range(prompt, n), *k_b_transposed_, d_, rope, positions(prompt, n));
    const Tensor u = ctx.empty({n, int64_t{d_.heads} * d_.lora});
    ops::attend(ctx, q_absorbed, d_.heads, scale_, pages, u);
    const Tensor o = ops::mla_absorb_output(ctx, u, *v_b_, d_);
    for (int64_t r = 0; r < n; ++r)
      std::memcpy(out.row(prompt + r), o.row(r), static_cast<size_t>(o.cols()) * sizeof(float));
    return out;
  }

  static constexpr float kLatentEps = 1e-6f;
  int layer_;
  MlaForm form_;
  ops::MlaDims d_;
  int q_lora_;
  float scale_;
  Param *a_, *q_norm_ = nullptr, *q_b_ = nullptr, *kv_norm_, *k_b_ = nullptr, *k_b_transposed_ = nullptr, *v_b_, *o_;
};

}  // namespace

std::unique_ptr<Attention> make_attention(Params& params, const ModelConfig& config, const std::string& prefix,
                                          int layer, MlaForm form) {
  if (config.mla()) return std::make_unique<Mla>(params, config, prefix, layer, form);
  return std::make_unique<Gqa>(params, config, prefix, layer);
}

}  // namespace ponder::model
