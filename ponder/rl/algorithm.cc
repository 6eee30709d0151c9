#include "ponder/rl/algorithm.h"

#include <algorithm>
#include <cmath>

#include "ponder/base/error.h"

namespace ponder::rl {
namespace {

constexpr double kNull = std::numeric_limits<double>::quiet_NaN();

// --- parts of both ---------------------------------------------------------------------------------------------------

// DeepSeekMath (Shao et al. 2024), section 4.1.2: (r - mean) / std, with eps. Null or without spread: 0.
double standardized(double r, const Moments& m, double eps) {
  return std::isnan(r) || !(m.std > 0) ? 0 : (r - m.mean) / (m.std + eps);
}

template <class Real>
bool is_loss_token(const AnswerBatch<Real>& b, int64_t t) {
  return b.mask.empty() || b.mask[t];
}

struct Kl {
  double value, slope;  // slope: d value / d l
};

// Schulman 2020, "Approximating KL divergence": estimators of KL(pi_theta || pi_ref) from x = l - l_ref on samples of
// pi_theta. k1 = x; k2 = x^2 / 2; k3 = exp(-x) + x - 1 (DeepSeekMath (4), R1 (2)).
Kl kl_estimate(double logp, double ref_logp, KlEstimator estimator) {
  const double x = std::clamp(logp - ref_logp, -kFarLogRatio, kFarLogRatio);
  const double inside = x == logp - ref_logp ? 1 : 0;
  switch (estimator) {
    case KlEstimator::k1: return {x, inside};
    case KlEstimator::k2: return {x * x / 2, x * inside};
    case KlEstimator::k3: return {std::exp(-x) + x - 1, (1 - std::exp(-x)) * inside};
  }
  return {};
}

// --- advantages ------------------------------------------------------------------------------------------------------

// GDPO (Liu et al. 2026): each reward standardized in its group, then weighted and summed.
std::vector<double> normalize_each(std::span<const double> rewards, int64_t functions, const AdvantageOptions& o) {
  std::vector<double> normal(rewards.size(), kNull), column(static_cast<size_t>(o.num_generations));
  const int64_t answers = static_cast<int64_t>(rewards.size()) / functions;
  for (int64_t f = 0; f < functions; ++f) {
    for (int64_t g = 0; g < answers; g += o.num_generations) {
      for (int64_t i = 0; i < o.num_generations; ++i) column[i] = rewards[(g + i) * functions + f];
      const Moments m = moments(column, o.spread);
      for (int64_t i = 0; i < o.num_generations; ++i)
        if (!std::isnan(column[i])) normal[(g + i) * functions + f] = standardized(column[i], m, o.eps);
    }
  }
  return normal;
}

// Ahmadian et al. 2024 (RLOO): r_i - mean of the others = (r_i - mean) n / (n - 1).
double leave_one_out(double r, const Moments& m) {
  return std::isnan(r) || m.n < 2 ? 0 : (r - m.mean) * static_cast<double>(m.n) / static_cast<double>(m.n - 1);
}

// Hu 2025 (REINFORCE++): the return-to-go of (score at the last loss token) - beta kl at every loss token, gamma = 1.
template <class Real>
std::vector<double> returns_to_go(std::span<const double> score, const AnswerBatch<Real>& b,
                                  const AdvantageOptions& o) {
  std::vector<double> u(static_cast<size_t>(b.tokens()), kNull);
  for (int64_t i = 0; i < b.answers(); ++i) {
    double to_go = score[i];  // null stays null
    for (int64_t t = b.offsets[i + 1] - 1; t >= b.offsets[i]; --t) {
      if (!is_loss_token(b, t)) continue;
      if (o.beta != 0) to_go -= o.beta * kl_estimate(b.old_logp[t], b.ref_logp[t], o.kl).value;
      u[t] = to_go;
    }
  }
  return u;
}

// KL in the reward of a whole answer: r_i - beta sum_t kl.
template <class Real>
void subtract_kl(std::vector<double>& reward, const AnswerBatch<Real>& b, const AdvantageOptions& o) {
  for (int64_t i = 0; i < b.answers(); ++i)
    for (int64_t t = b.offsets[i]; t < b.offsets[i + 1]; ++t)
      if (is_loss_token(b, t)) reward[i] -= o.beta * kl_estimate(b.old_logp[t], b.ref_logp[t], o.kl).value;
}

}  // namespace

Moments moments(std::span<const double> x, Spread spread) {
  Moments m;
  double sum = 0, low = std::numeric_limits<double>::infinity(), high = -low;
  for (double v : x) {
    if (std::isnan(v)) continue;
    ++m.n;
    sum += v;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  const int64_t divisor = spread == Spread::sample ? m.n - 1 : m.n;
  m.mean = low == high ? low : sum / static_cast<double>(std::max<int64_t>(m.n, 1));
  double squares = 0;
  for (double v : x) squares += std::isnan(v) ? 0 : (v - m.mean) * (v - m.mean);
  m.std = divisor > 0 ? std::sqrt(squares / static_cast<double>(divisor)) : kNull;
  return m;
}

double weighted_sum(std::span<const double> row, std::span<const double> weights) {
  double sum = 0;
  bool any = false;
  for (size_t f = 0; f < row.size(); ++f) {
    if (std::isnan(row[f])) continue;
    sum += (weights.empty() ? 1 : weights[f]) * row[f];
    any = true;
  }
  return any ? sum : kNull;
}

template <class Real>
Advantages advantages(std::span<const double> rewards, const AnswerBatch<Real>& batch, const AdvantageOptions& o) {
  const int64_t functions = std::max<int64_t>(static_cast<int64_t>(o.reward_weights.size()), 1), G = o.num_generations;
  const int64_t answers = static_cast<int64_t>(rewards.size()) / functions;
  PONDER_CHECK(G > 0 && answers * functions == static_cast<int64_t>(rewards.size()) && answers % G == 0,
               "{} rewards do not form groups of {} answers x {} functions", rewards.size(), G, functions);
  const bool per_token =
      o.estimator == Estimator::reinforce_plus_plus || o.estimator == Estimator::reinforce_plus_plus_baseline;

  Advantages a;
  for (int64_t i = 0; i < answers; ++i)
    a.reward.push_back(weighted_sum(rewards.subspan(i * functions, functions), o.reward_weights));
  if (o.beta != 0 && !per_token) subtract_kl(a.reward, batch, o);
  const std::span<const double> r = a.reward;
  const Moments all = moments(r, o.spread);
  a.reward_mean = all.mean;
  a.reward_std = std::isnan(all.std) ? 0 : all.std;

  std::vector<Moments> group;
  for (int64_t g = 0; g < answers; g += G) {
    group.push_back(moments(r.subspan(g, G), o.spread));
    a.informative.push_back(group.back().std > 0);
    a.frac_reward_zero_std += group.back().std == 0 ? static_cast<double>(G) / static_cast<double>(answers) : 0;
  }

  a.advantage.resize(answers);
  if (o.estimator == Estimator::rloo) {
    for (int64_t i = 0; i < answers; ++i) a.advantage[i] = leave_one_out(r[i], group[i / G]);
  } else if (per_token) {
    std::vector<double> score(r.begin(), r.end());
    if (o.estimator == Estimator::reinforce_plus_plus_baseline)
      for (int64_t i = 0; i < answers; ++i) score[i] -= group[i / G].mean;
    a.advantage = returns_to_go(score, batch, o);
    const Moments tokens = moments(a.advantage, o.spread);
    for (double& u : a.advantage) u = standardized(u, tokens, o.eps);
  } else if (o.aggregation == Aggregation::normalize_then_sum) {
    const std::vector<double> normal = normalize_each(rewards, functions, o);
    std::vector<double> sum(answers);
    for (int64_t i = 0; i < answers; ++i)
      sum[i] = weighted_sum(std::span(normal).subspan(i * functions, functions), o.reward_weights);
    const Moments m = moments(sum, o.spread);
    for (int64_t i = 0; i < answers; ++i) a.advantage[i] = standardized(sum[i], m, o.eps);
    a.frac_reward_zero_std = m.std == 0;
  } else {
    for (int64_t i = 0; i < answers; ++i) {
      const Moments& m = group[i / G];
      switch (o.scale_rewards) {
        case ScaleRewards::group: a.advantage[i] = standardized(r[i], m, o.eps); break;  // R1 (3)
        case ScaleRewards::batch: a.advantage[i] = standardized(r[i], {m.n, m.mean, all.std}, o.eps); break;
        case ScaleRewards::none: a.advantage[i] = std::isnan(r[i]) ? 0 : r[i] - m.mean; break;  // Dr. GRPO
      }
    }
    if (o.scale_rewards == ScaleRewards::batch) a.frac_reward_zero_std = all.std == 0;
  }
  return a;
}

// --- the policy loss -------------------------------------------------------------------------------------------------

namespace {

template <class Real>
bool is_dropped(const AnswerBatch<Real>& b, const LossOptions& o, int64_t i) {
  return o.mask_truncated && !b.truncated.empty() && b.truncated[i];
}

// The indices of an answer's loss tokens.
template <class Real>
std::vector<int64_t> loss_tokens(const AnswerBatch<Real>& b, const LossOptions& o, int64_t i) {
  std::vector<int64_t> tokens;
  if (is_dropped(b, o, i)) return tokens;
  for (int64_t t = b.offsets[i]; t < b.offsets[i + 1]; ++t)
    if (is_loss_token(b, t)) tokens.push_back(t);
  return tokens;
}

// What one token of an answer with n loss tokens weighs in the step's loss: DAPO (Yu et al. 2025), GRPO (Shao et al.
// 2024), Dr. GRPO (Liu et al. 2025); bnpo is dapo within each micro-batch. Empty denominators count as 1.
double token_weight(const LossOptions& o, const StepTotals& s, double n, double micro_batch_tokens) {
  const auto over = [](double x) { return 1 / std::max(x, 1.0); };
  switch (o.loss_type) {
    case LossType::dapo:
    case LossType::cispo: return over(s.tokens);
    case LossType::grpo: return over(s.answers) * over(n);
    case LossType::dr_grpo: return over(s.answers * o.max_completion_length);
    case LossType::bnpo: return over(s.micro_batches) * over(micro_batch_tokens);
  }
  return 0;
}

// A token's objective J and its derivatives with respect to log rho and, directly, to l.
struct Surrogate {
  double value, d_log_ratio, d_logp;
  bool low, high;  // clipped below (A < 0) or above (A > 0)
};

// PPO (Schulman et al. 2017), (7), with DAPO's own upper bound and the cap delta of dual-clip PPO (Ye et al. 2020):
// J = min(min(rho, delta) A, clip(rho, 1 - epsilon, 1 + epsilon_high) A).
Surrogate clipped_surrogate(double rho, double advantage, const LossOptions& o) {
  const double bottom = 1 - o.epsilon, top = 1 + o.epsilon_high;
  const double capped = o.delta ? std::min(rho, *o.delta) : rho, clipped = std::clamp(rho, bottom, top);
  const double chosen = capped * advantage < clipped * advantage ? capped : clipped;
  const bool below = capped<bottom, above = capped> top;
  return {.value = chosen * advantage,
          .d_log_ratio = chosen == rho ? rho * advantage : 0,
          .d_logp = 0,
          .low = below && advantage < 0,
          .high = above && advantage > 0};
}

// CISPO (MiniMax-M1, Chen et al. 2025, (4)): J = stopgrad(min(rho, epsilon_high)) A l: every token keeps a gradient.
Surrogate cispo_surrogate(double rho, double advantage, double logp, const LossOptions& o) {
  const double weight = std::min(rho, o.epsilon_high);
  return {.value = weight * advantage * logp,
          .d_log_ratio = 0,
          .d_logp = weight * advantage,
          .low = false,
          .high = rho > o.epsilon_high && advantage > 0};
}

// DeepSeek-V3.2, section 3.1: how far the policy has left an answer, mean_t (l_sampled - l). Where that is above the
// threshold, nothing is learnt from tokens with A < 0.
template <class Real>
double drift(const AnswerBatch<Real>& b, std::span<const int64_t> tokens) {
  const auto sampled = b.sampling_logp.empty() ? b.old_logp : b.sampling_logp;
  double sum = 0;
  if (!sampled.empty())
    for (int64_t t : tokens) sum += double{sampled[t]} - b.logp[t];
  return sum / static_cast<double>(tokens.size());
}

void check_sizes(bool ok, const char* what) { PONDER_CHECK(ok, "policy_loss: {} has the wrong size", what); }

template <class Real>
void check_batch(const AnswerBatch<Real>& b, const LossOptions& o, const StepTotals& totals, size_t dlogp,
                 size_t dentropy) {
  const size_t n = static_cast<size_t>(b.tokens()), answers = static_cast<size_t>(b.answers());
  const bool wants_entropy = o.entropy_coef != 0 || std::isfinite(totals.entropy_threshold);
  check_sizes(b.logp.size() == n && dlogp == n, "logp");
  check_sizes(b.old_logp.empty() || b.old_logp.size() == n, "old_logp");
  check_sizes(b.ref_logp.size() == n || o.beta == 0, "ref_logp");
  check_sizes(b.sampling_logp.empty() || b.sampling_logp.size() == n, "sampling_logp");
  check_sizes(b.entropy.size() == n || (b.entropy.empty() && !wants_entropy), "entropy");
  check_sizes(dentropy == n || o.entropy_coef == 0, "dentropy");
  check_sizes(b.mask.empty() || b.mask.size() == n, "mask");
  check_sizes(b.truncated.empty() || b.truncated.size() == answers, "truncated");
  check_sizes(b.advantage.size() == n || b.advantage.size() == answers, "advantage");
}

}  // namespace

template <class Real>
void StepTotals::add(const AnswerBatch<Real>& batch, const LossOptions& options) {
  for (int64_t i = 0; i < batch.answers(); ++i) {
    for (int64_t t : loss_tokens(batch, options, i)) {
      tokens += 1;
      entropy_tokens += batch.entropy.empty() || batch.entropy[t] >= entropy_threshold;
    }
  }
  answers += static_cast<double>(batch.answers());
  micro_batches += 1;
}

template <class Real>
void add_loss_entropies(const AnswerBatch<Real>& batch, const LossOptions& options, std::vector<double>& entropies) {
  for (int64_t i = 0; i < batch.answers(); ++i)
    for (int64_t t : loss_tokens(batch, options, i)) entropies.push_back(batch.entropy[t]);
}

double entropy_threshold(std::vector<double> entropies, double top) {
  if (entropies.empty()) return -std::numeric_limits<double>::infinity();
  std::sort(entropies.begin(), entropies.end());
  const double place = (1 - top) * static_cast<double>(entropies.size() - 1);
  const size_t below = static_cast<size_t>(place), above = std::min(below + 1, entropies.size() - 1);
  return entropies[below] + (place - static_cast<double>(below)) * (entropies[above] - entropies[below]);
}

template <class Real>
double policy_loss(const AnswerBatch<Real>& b, const LossOptions& o, const StepTotals& totals, std::span<Real> dlogp,
                   std::span<Real> dentropy, LossMetrics& metrics) {
  check_batch(b, o, totals, dlogp.size(), dentropy.size());
  std::fill(dlogp.begin(), dlogp.end(), Real{0});
  std::fill(dentropy.begin(), dentropy.end(), Real{0});
  const bool by_sequence = o.level == Level::sequence, token_advantage = b.advantage.size() == b.logp.size();
  const double entropy_weight = o.entropy_coef / std::max(totals.entropy_tokens, 1.0);
  double micro_batch_tokens = 0, loss = 0;
  for (int64_t i = 0; i < b.answers(); ++i) micro_batch_tokens += static_cast<double>(loss_tokens(b, o, i).size());

  for (int64_t i = 0; i < b.answers(); ++i) {
    const std::vector<int64_t> tokens = loss_tokens(b, o, i);
    const double n = static_cast<double>(tokens.size()), weight = token_weight(o, totals, n, micro_batch_tokens);
    metrics.units += by_sequence ? 1 : n;
    if (tokens.empty()) continue;

    const auto log_ratio = [&](int64_t t) { return b.old_logp.empty() ? 0.0 : double{b.logp[t]} - b.old_logp[t]; };
    double mean_log_ratio = 0;  // GSPO (Zheng et al. 2025), (7): s_i = exp(mean_t (l - l_old))
    for (int64_t t : tokens) mean_log_ratio += log_ratio(t) / n;

    const bool has_left = o.off_policy_mask_threshold && drift(b, tokens) > *o.off_policy_mask_threshold;

    double d_mean_log_ratio = 0, low = 0, high = 0;
    for (int64_t t : tokens) {
      const double far = by_sequence ? mean_log_ratio : log_ratio(t);
      const double x = std::clamp(far, -kFarLogRatio, kFarLogRatio), rho = std::exp(x);
      const double advantage = b.advantage[token_advantage ? t : i], logp = b.logp[t];
      const bool kept = b.entropy.empty() || b.entropy[t] >= totals.entropy_threshold;
      const bool off_policy = has_left && advantage < 0;

      // loss = -weight J + weight beta KL - entropy_weight H
      Surrogate j = o.loss_type == LossType::cispo ? cispo_surrogate(rho, advantage, logp, o)
                                                   : clipped_surrogate(rho, advantage, o);
      double d_log_ratio = 0, d_logp = 0;
      if (kept && !off_policy) {
        loss -= weight * j.value;
        metrics.policy_loss -= weight * j.value;
        d_log_ratio -= weight * j.d_log_ratio;
        d_logp -= weight * j.d_logp;
      }
      if (o.beta != 0) {
        const Kl kl = kl_estimate(logp, b.ref_logp[t], o.kl);
        const double correction = o.use_bias_correction_kl ? rho : 1;  // DeepSeek-V3.2, section 3.1
        loss += weight * o.beta * correction * kl.value;
        metrics.policy_loss += weight * o.beta * correction * kl.value;
        metrics.kl += correction * kl.value;
        d_logp += weight * o.beta * correction * kl.slope;
        if (o.use_bias_correction_kl) d_log_ratio += weight * o.beta * rho * kl.value;
      }
      if (o.entropy_coef != 0 && kept) {
        loss -= entropy_weight * b.entropy[t];
        dentropy[t] = static_cast<Real>(-entropy_weight);
      }

      if (x != far) d_log_ratio = 0;
      if (by_sequence) {
        d_mean_log_ratio += d_log_ratio;
        dlogp[t] = static_cast<Real>(d_logp);
      } else {
        dlogp[t] = static_cast<Real>(d_logp + d_log_ratio);
      }

      low += j.low;
      high += j.high;
      metrics.entropy += b.entropy.empty() ? 0 : double{b.entropy[t]};
      metrics.ratio += rho;
      metrics.ratio_min = std::min(metrics.ratio_min, rho);
      metrics.ratio_max = std::max(metrics.ratio_max, rho);
      metrics.difference += std::abs(log_ratio(t));
      metrics.difference_max = std::max(metrics.difference_max, std::abs(log_ratio(t)));
      metrics.far_tokens += x != far;
      metrics.off_policy_answers += off_policy && t == tokens[0];
    }
    if (by_sequence)
      for (int64_t t : tokens) dlogp[t] += static_cast<Real>(d_mean_log_ratio / n);

    metrics.tokens += n;
    metrics.low += by_sequence ? low / n : low;
    metrics.high += by_sequence ? high / n : high;
    metrics.low_min = std::min(metrics.low_min, low / n);
    metrics.high_max = std::max(metrics.high_max, high / n);
  }
  return loss;
}

void LossMetrics::add(const LossMetrics& m) {
  tokens += m.tokens;
  units += m.units;
  low += m.low;
  high += m.high;
  low_min = std::min(low_min, m.low_min);
  high_max = std::max(high_max, m.high_max);
  kl += m.kl;
  entropy += m.entropy;
  policy_loss += m.policy_loss;
  ratio += m.ratio;
  ratio_min = std::min(ratio_min, m.ratio_min);
  ratio_max = std::max(ratio_max, m.ratio_max);
  difference += m.difference;
  difference_max = std::max(difference_max, m.difference_max);
  off_policy_answers += m.off_policy_answers;
  far_tokens += m.far_tokens;
}

std::vector<std::pair<std::string, double>> LossMetrics::named(const LossOptions& o) const {
  const double per_unit = 1 / std::max(units, 1.0), per_token = 1 / std::max(tokens, 1.0);
  std::vector<std::pair<std::string, double>> out = {{"policy_loss", policy_loss}, {"entropy", entropy * per_token}};
  if (o.beta != 0) out.emplace_back("kl", kl * per_token);
  if (o.loss_type == LossType::cispo) {
    out.emplace_back("cispo_clip_ratio", high * per_unit);
    return out;
  }
  out.emplace_back("clip_ratio/low_mean", low * per_unit);
  out.emplace_back("clip_ratio/low_min", tokens ? low_min : 0);
  out.emplace_back("clip_ratio/high_mean", high * per_unit);
  out.emplace_back("clip_ratio/high_max", tokens ? high_max : 0);
  out.emplace_back("clip_ratio/region_mean", (low + high) * per_unit);
  return out;
}

std::vector<std::pair<std::string, double>> LossMetrics::named_sampling() const {
  const double per_token = 1 / std::max(tokens, 1.0);
  return {{"sampling/sampling_logp_difference/mean", difference * per_token},
          {"sampling/sampling_logp_difference/max", difference_max},
          {"sampling/importance_sampling_ratio/min", tokens ? ratio_min : 1},
          {"sampling/importance_sampling_ratio/mean", tokens ? ratio * per_token : 1},
          {"sampling/importance_sampling_ratio/max", tokens ? ratio_max : 1}};
}

template Advantages advantages(std::span<const double>, const AnswerBatch<float>&, const AdvantageOptions&);
template Advantages advantages(std::span<const double>, const AnswerBatch<double>&, const AdvantageOptions&);
template void StepTotals::add(const AnswerBatch<float>&, const LossOptions&);
template void StepTotals::add(const AnswerBatch<double>&, const LossOptions&);
template void add_loss_entropies(const AnswerBatch<float>&, const LossOptions&, std::vector<double>&);
template void add_loss_entropies(const AnswerBatch<double>&, const LossOptions&, std::vector<double>&);
template double policy_loss(const AnswerBatch<float>&, const LossOptions&, const StepTotals&, std::span<float>,
                            std::span<float>, LossMetrics&);
template double policy_loss(const AnswerBatch<double>&, const LossOptions&, const StepTotals&, std::span<double>,
                            std::span<double>, LossMetrics&);

}  // namespace ponder::rl
