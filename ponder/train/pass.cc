#include "ponder/train/pass.h"

#include <algorithm>

namespace ponder::train {

Pass::Pass(model::Model& model, const kernels::Backend& backend)
    : model_(model),
      tape_(arena_),
      ctx_{backend, arena_},
      observed_(model.observe()),
      mtp_rows_(static_cast<size_t>(model.mtp_modules())),
      mtp_scratch_(static_cast<size_t>(model.mtp_modules())) {
  PONDER_CHECK(model.mtp_modules() <= 8, "{} MTP modules", model.mtp_modules());
}

void Pass::reset_expert_counts() { std::fill(observed_.expert_counts.begin(), observed_.expert_counts.end(), 0); }

Pass::Result Pass::forward(std::span<const Example> examples, const PassOptions& options) {
  arena_.reset();
  tape_.clear();
  ctx_.tape = options.gradients ? &tape_ : nullptr;
  ctx_.flops = 0;
  observed_.balance_weight = options.balance_weight;
  observed_.balance = 0;
  const size_t keep = options.last_token ? 0 : 1;  // tokens cut off at the end of each example

  rows_.clear(), logit_rows_.clear(), targets_.clear();
  for (const Example& e : examples) {
    PONDER_CHECK(e.loss_from >= 1 && e.predictions() >= 1, "an example of {} tokens with loss_from {} predicts nothing",
                 e.ids.size(), e.loss_from);
    const int32_t first = static_cast<int32_t>(rows_.rows());
    rows_.add(e.ids.first(e.ids.size() - keep));
    for (size_t t = static_cast<size_t>(e.loss_from); t < e.ids.size(); ++t) {
      logit_rows_.push_back(first + static_cast<int32_t>(t) - 1);
      targets_.push_back(e.ids[t]);
    }
  }
  const model::Batch batch = rows_.batch(pages_, model_.page_layout());
  const Tensor x = model_.body(ctx_, batch, &observed_);
  const bool mtp = options.mtp && model_.mtp_modules() > 0;
  Tensor h_all, h;
  if (mtp) {
    h_all = model_.final_norm(ctx_, x);
    h = ops::gather_rows(ctx_, h_all, logit_rows_);
  } else {
    h = model_.final_norm(ctx_, ops::gather_rows(ctx_, x, logit_rows_));
  }
  out_ = ops::token_log_prob(ctx_, model_.head(ctx_, h), targets_, options.temperature, options.entropy);

  mtp_logp_.clear();
  Tensor previous = h_all;
  for (int k = 0; k < (mtp ? model_.mtp_modules() : 0); ++k) {
    // Row i of module k: previous output of token i and the embedding of token i + k + 1; it predicts token i + k + 2.
    // Rows that have no next token are left out; `gather` finds the others among the rows of module k - 1.
    MtpScratch& m = mtp_scratch_[static_cast<size_t>(k)];
    model::SequenceBatch& rows = mtp_rows_[static_cast<size_t>(k)];
    m.gather.clear(), m.logit_rows.clear(), m.targets.clear();
    rows.clear();
    int32_t source = 0;  // first row of the example in `previous`
    for (const Example& e : examples) {
      const int64_t length = static_cast<int64_t>(e.ids.size());
      const int64_t before =
          k == 0 ? length - static_cast<int64_t>(keep) : std::max<int64_t>(length - k - static_cast<int64_t>(keep), 0);
      const int64_t count = std::max<int64_t>(length - k - 1 - static_cast<int64_t>(keep), 0);
      const int32_t first = static_cast<int32_t>(rows.rows());
      if (count > 0) rows.add(e.ids.subspan(static_cast<size_t>(k) + 1, static_cast<size_t>(count)));
      for (int64_t i = 0; i < count; ++i) m.gather.push_back(source + static_cast<int32_t>(i));
      for (int64_t t = std::max<int64_t>(e.loss_from, k + 2); t < length;
           ++t)  // target t is predicted by row t - k - 2
        if (t - k - 2 < count) {
          m.logit_rows.push_back(first + static_cast<int32_t>(t - k - 2));
          m.targets.push_back(e.ids[static_cast<size_t>(t)]);
        }
      source += static_cast<int32_t>(before);
    }
    mtp_out_[k] = {};
    if (m.logit_rows.empty()) break;
    const model::Batch next = rows.batch(mtp_pages_, model_.page_layout());
    previous = model_.mtp(ctx_, k, ops::gather_rows(ctx_, previous, m.gather), next, &observed_);
    const Tensor logits = model_.head(ctx_, ops::gather_rows(ctx_, previous, m.logit_rows));
    mtp_out_[k] = ops::token_log_prob(ctx_, logits, m.targets, options.temperature, false).logp_R;
    mtp_logp_.insert(mtp_logp_.end(), mtp_out_[k].f32(), mtp_out_[k].f32() + mtp_out_[k].size());
  }

  Result r;
  r.logp = {out_.logp_R.f32(), targets_.size()};
  if (options.entropy) r.entropy = {out_.entropy_R.f32(), targets_.size()};
  r.mtp_logp = mtp_logp_;
  r.balance = observed_.balance;
  r.flops = ctx_.flops;
  return r;
}

void Pass::backward(std::span<const float> dlogp, std::span<const float> dentropy, std::span<const float> dmtp_logp) {
  PONDER_CHECK(ctx_.tape && dlogp.size() == targets_.size(), "backward of {} predictions after a forward of {}",
               dlogp.size(), targets_.size());
  tape_.seed(out_.logp_R, dlogp.data());
  if (!dentropy.empty()) tape_.seed(out_.entropy_R, dentropy.data());
  if (!dmtp_logp.empty()) {
    PONDER_CHECK(dmtp_logp.size() == mtp_logp_.size(), "{} MTP gradients for {} predictions", dmtp_logp.size(),
                 mtp_logp_.size());
    const float* next = dmtp_logp.data();
    for (int k = 0; k < model_.mtp_modules() && mtp_out_[k]; ++k) {
      tape_.seed(mtp_out_[k], next);
      next += mtp_out_[k].size();
    }
  }
  tape_.backward(ctx_);
}

std::span<const Example> next_micro_batch(std::span<const Example> examples, int64_t tokens) {
  size_t end = 0;
  int64_t sum = 0;
  while (end < examples.size() && (end == 0 || sum + static_cast<int64_t>(examples[end].ids.size()) <= tokens))
    sum += static_cast<int64_t>(examples[end++].ids.size());
  return examples.first(end);
}

std::vector<std::span<const Example>> micro_batches(std::span<const Example> examples, int64_t tokens) {
  std::vector<std::span<const Example>> parts;
  for (; !examples.empty(); examples = examples.subspan(parts.back().size()))
    parts.push_back(next_micro_batch(examples, tokens));
  return parts;
}

}  // namespace ponder::train
