#include "ponder/train/trainer.h"

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/model/source.h"

namespace ponder::train {
namespace {

// MTP modules that are not in the loss stay as they are: not even weight decay changes them.
std::vector<Slot> slots_of(model::Model& model, bool with_mtp) {
  std::vector<Slot> slots;
  const int layers = model.config().num_hidden_layers;
  for (ops::Param& p : model.params().list())
    if (p.trainable && (with_mtp || model::layer_of(p.name) < layers)) {
      PONDER_CHECK(p.grad, "{} has no gradient: the model was made without", p.name);
      slots.push_back({p.name, p.value.f32(), p.grad.f32(), p.value.size(), p.decay});
    }
  return slots;
}

// Targets of MTP module k (0-based) in an example.
int64_t mtp_predictions(const Example& e, int k) {
  return std::max<int64_t>(0, static_cast<int64_t>(e.ids.size()) - std::max<int64_t>(e.loss_from, k + 2));
}

}  // namespace

Trainer::Trainer(model::Model& model, const kernels::Backend& backend, const TrainConfig& config, int64_t total_steps)
    : model_(model),
      config_(config),
      schedule_(config.schedule, total_steps),
      pass_(model, backend),
      optimizer_(slots_of(model, config.mtp_loss_weight > 0), config.adamw, backend) {
  const model::ModelConfig& c = model.config();
  if (config.router_bias_update_speed > 0 && c.n_routed_experts > 0 && c.topk_method != "noaux_tc")
    throw_error(Exit::data, "router_bias_update_speed = {}: a router with topk_method = \"{}\" has no bias to be moved",
                config.router_bias_update_speed, c.topk_method);
}

void Trainer::begin() {
  model_.params().zero_gradients();
  pass_.reset_expert_counts();
}

UpdateReport Trainer::update(int64_t step, double loss) {
  UpdateReport r;
  r.learning_rate = schedule_.rate(step);
  const AdamW::Report report = optimizer_.step(r.learning_rate, std::isfinite(loss));
  r.grad_norm = report.grad_norm;
  r.skipped = !report.applied;
  if (r.skipped) {
    r.offender = report.first_broken.empty() ? "the loss" : "the gradient of " + report.first_broken;
    return r;
  }
  if (config_.router_bias_update_speed > 0)
    model_.update_router_bias(pass_.expert_counts(), static_cast<float>(config_.router_bias_update_speed));
  model_.params().bump_version();
  return r;
}

void Trainer::expert_load(double* max_violation, double* dead_experts) const {
  *max_violation = *dead_experts = 0;
  const int64_t experts = model_.config().n_routed_experts;
  const auto counts = pass_.expert_counts();
  for (size_t first = 0; experts > 0 && first < counts.size(); first += static_cast<size_t>(experts)) {
    const auto layer = counts.subspan(first, static_cast<size_t>(experts));
    int64_t total = 0, most = 0;
    for (int64_t c : layer) {
      total += c;
      most = std::max(most, c);
      *dead_experts += c == 0;
    }
    if (total > 0)
      *max_violation = std::max(*max_violation, static_cast<double>(most * experts) / static_cast<double>(total) - 1);
    else
      *dead_experts -= static_cast<double>(experts);  // a layer that did not run (MTP where it is not trained)
  }
}

StepReport Trainer::step(std::span<const Example> examples, int64_t step, bool last_token) {
  StepReport r;
  const int modules = config_.mtp_loss_weight > 0 ? model_.mtp_modules() : 0;
  double mtp_n[8] = {};
  for (const Example& e : examples) {
    r.predictions += e.predictions();
    r.tokens += static_cast<int64_t>(e.ids.size());
    for (int k = 0; k < modules; ++k) mtp_n[k] += static_cast<double>(mtp_predictions(e, k));
  }
  begin();
  const PassOptions options{
      .mtp = modules > 0,
      .last_token = last_token,
      .balance_weight = static_cast<float>(config_.router_aux_loss_coef / static_cast<double>(examples.size()))};
  for (auto rest = examples; !rest.empty();) {
    const auto part = next_micro_batch(rest, config_.micro_batch_tokens);
    rest = rest.subspan(part.size());
    const Pass::Result out = pass_.forward(part, options);
    for (float l : out.logp) r.loss -= l;
    dlogp_.assign(out.logp.size(), static_cast<float>(-1.0 / static_cast<double>(r.predictions)));
    dmtp_.clear();
    size_t next = 0;
    for (int k = 0; k < modules; ++k) {
      size_t n = 0;
      for (const Example& e : part) n += static_cast<size_t>(mtp_predictions(e, k));
      const double weight = 1.0 / (modules * mtp_n[k]);
      for (size_t i = 0; i < n; ++i) r.mtp_loss -= weight * out.mtp_logp[next + i];
      dmtp_.insert(dmtp_.end(), n, static_cast<float>(-config_.mtp_loss_weight * weight));
      next += n;
    }
    r.balance += out.balance;
    r.flops += 3 * out.flops;
    pass_.backward(dlogp_, {}, dmtp_);
  }
  r.loss /= static_cast<double>(r.predictions);
  r.balance /= static_cast<double>(examples.size());
  static_cast<UpdateReport&>(r) = update(step, r.loss + config_.mtp_loss_weight * r.mtp_loss + r.balance);
  expert_load(&r.max_violation, &r.dead_experts);
  return r;
}

double Trainer::evaluate(std::span<const Example> examples, int64_t* predictions) {
  double loss = 0;
  int64_t n = 0;
  for (const auto part : micro_batches(examples, config_.micro_batch_tokens)) {
    const auto logp = pass_.forward(part, {.gradients = false}).logp;
    for (float l : logp) loss -= l;
    n += static_cast<int64_t>(logp.size());
  }
  if (predictions) *predictions = n;
  return n > 0 ? loss / static_cast<double>(n) : 0;
}

}  // namespace ponder::train
