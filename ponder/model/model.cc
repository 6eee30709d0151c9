#include "ponder/model/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ponder::model {

Block::Block(Params& params, const ModelConfig& c, int layer, MlaForm form) : eps_(static_cast<float>(c.rms_norm_eps)) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const int64_t d = c.hidden_size;
  attn_norm_ = &params.vector(prefix + "input_layernorm", {{prefix + "input_layernorm.weight", 0, {d}}}, d, 1);
  attention_ = make_attention(params, c, prefix + "self_attn.", layer, form);
  ffn_norm_ =
      &params.vector(prefix + "post_attention_layernorm", {{prefix + "post_attention_layernorm.weight", 0, {d}}}, d, 1);
  if (c.moe_layer(layer))
    moe_ = std::make_unique<Moe>(params, c, prefix + "mlp.", layer - c.first_k_dense_replace);
  else
    mlp_ = std::make_unique<Mlp>(params, c, prefix + "mlp.", c.intermediate_size, c.intermediate_size);
}

Tensor Block::forward(ops::Ctx& ctx, const Tensor& x, const Batch& batch, const ops::RopeTable& rope,
                      Observed* observed, Tensor into) const {
  const Tensor h = ops::add(ctx, x, attention_->forward(ctx, ops::rms_norm(ctx, x, *attn_norm_, eps_), batch, rope));
  const Tensor y = ops::rms_norm(ctx, h, *ffn_norm_, eps_);
  return ops::add(ctx, h, moe_ ? moe_->forward(ctx, y, batch.spans, observed) : mlp_->forward(ctx, y), into);
}

Model::Model(ModelConfig config, const ModelOptions& options)
    : config_(std::move(config)), form_(options.mla_form), params_(options.stored), rope_(config_) {
  if (!options.mtp) config_.num_nextn_predict_layers = 0;
  validate(config_);
  const int64_t v = config_.vocab_size, d = config_.hidden_size;
  embedding_ = &params_.matrix("embed", {{"model.embed_tokens.weight", 0, {v, d}}}, v, d, config_.init_embedding_std);
  embedding_->looked_up = true;
  embedding_->multiplied = config_.tie_word_embeddings;
  if (!embedding_->multiplied) embedding_->visited = 0;
  for (int l = 0; l < config_.num_hidden_layers; ++l)
    blocks_.push_back(std::make_unique<Block>(params_, config_, l, form_));
  final_norm_ = &params_.vector("norm", {{"model.norm.weight", 0, {d}}}, d, 1);
  head_ = config_.tie_word_embeddings
              ? embedding_
              : &params_.matrix("head", {{"lm_head.weight", 0, {v, d}}}, v, d, 1 / std::sqrt(double(d)));
  const size_t trunk = params_.list().size();
  for (int k = 0; k < config_.num_nextn_predict_layers; ++k) {
    const int layer = config_.num_hidden_layers + k;
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    Mtp m{};
    m.enorm = &params_.vector(prefix + "enorm", {{prefix + "enorm.weight", 0, {d}}}, d, 1);
    m.hnorm = &params_.vector(prefix + "hnorm", {{prefix + "hnorm.weight", 0, {d}}}, d, 1);
    m.eh_proj = &params_.matrix(prefix + "eh_proj", {{prefix + "eh_proj.weight", 0, {d, 2 * d}}}, d, 2 * d,
                                1 / std::sqrt(2.0 * double(d)));
    m.block = std::make_unique<Block>(params_, config_, layer, form_);
    m.head_norm = &params_.vector(prefix + "shared_head.norm", {{prefix + "shared_head.norm.weight", 0, {d}}}, d, 1);
    mtp_.push_back(std::move(m));
  }
  for (size_t i = trunk; i < params_.list().size(); ++i) params_.list()[i].visited = 0;
  if (!options.declare_only) params_.allocate(options.gradients);
}

namespace {
int64_t positions_needed(const Batch& b) {
  return b.positions.empty() ? 0 : *std::max_element(b.positions.begin(), b.positions.end()) + 1;
}
}  // namespace

Tensor Model::body(ops::Ctx& ctx, const Batch& batch, Observed* observed) const {
  const ops::RopeTable rope = rope_.table(positions_needed(batch));
  Tensor x = ops::embed(ctx, *embedding_, batch.tokens);
  if (!ctx.tape && !(observed && observed->residuals)) {
    // Nothing of a layer is read again: all layers take turns in the same memory, which stays in the cache and needs no
    // fresh pages (measured: a prompt of 512 tokens through SmolLM2 spent 44 % of its time on clearing pages).
    Tensor next = ctx.empty({x.rows(), x.cols()});
    for (const auto& block : blocks_) {
      const Arena::Mark mark = ctx.arena.mark();
      block->forward(ctx, x, batch, rope, observed, next);
      ctx.arena.release(mark);
      std::swap(x, next);
    }
    return x;
  }
  for (const auto& block : blocks_) {
    x = block->forward(ctx, x, batch, rope, observed);
    if (observed && observed->residuals) observed->residuals->push_back(x);
  }
  return x;
}

Tensor Model::final_norm(ops::Ctx& ctx, const Tensor& x) const {
  return ops::rms_norm(ctx, x, *final_norm_, static_cast<float>(config_.rms_norm_eps));
}

Tensor Model::head(ops::Ctx& ctx, const Tensor& h) const { return ops::linear(ctx, h, *head_); }

// NOTE: eh_proj of released checkpoints takes [embedding ; hidden], the reverse of the paper's equation 21.
Tensor Model::mtp(ops::Ctx& ctx, int k, const Tensor& h, const Batch& batch, Observed* observed) const {
  const Mtp& m = mtp_[static_cast<size_t>(k)];
  const float eps = static_cast<float>(config_.rms_norm_eps);
  const ops::RopeTable rope = rope_.table(positions_needed(batch));
  const Tensor e = ops::rms_norm(ctx, ops::embed(ctx, *embedding_, batch.tokens), *m.enorm, eps);
  const Tensor x = ops::linear(ctx, ops::concat(ctx, e, ops::rms_norm(ctx, h, *m.hnorm, eps)), *m.eh_proj);
  return ops::rms_norm(ctx, m.block->forward(ctx, x, batch, rope, observed), *m.head_norm, eps);
}

Observed Model::observe() const {
  Observed o;
  o.expert_counts.resize(static_cast<size_t>(config_.moe_layers() * config_.n_routed_experts));
  return o;
}

void Model::update_router_bias(std::span<const int64_t> counts, float speed) {
  const auto update = [&](const Moe* moe) {
    if (!moe || !moe->bias()) return;
    const int64_t experts = moe->bias()->value.size();
    const int64_t* c = counts.data() + moe->index() * experts;
    int64_t total = 0;
    for (int64_t e = 0; e < experts; ++e) total += c[e];
    for (int64_t e = 0; e < experts; ++e) {  // sign(mean - c), in integers
      const int64_t difference = total - c[e] * experts;
      moe->bias()->value.f32()[e] += speed * static_cast<float>((difference > 0) - (difference < 0));
    }
  };
  for (const auto& b : blocks_) update(b->moe());
  for (const Mtp& m : mtp_) update(m.block->moe());
}

int64_t Model::active_params() const {
  double n = 0;
  for (const ops::Param& p : params_.list()) n += static_cast<double>(p.value.size()) * p.visited;
  return std::llround(n);
}

}  // namespace ponder::model
