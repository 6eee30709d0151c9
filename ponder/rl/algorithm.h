// The equations of reinforcement learning with verifiable rewards, as pure functions on plain arrays: rewards to
// advantages, and log-probabilities to a loss and its gradient. No tensors, no engine, no state; all arithmetic in f64.
//
// Symbols: question q has G answers o_1..o_G with rewards r_i; o_i has n_i loss tokens; l = log pi_theta(o_it), l_old
// the one recorded in the rollout, l_ref the reference model's; rho = exp(l - l_old). A null reward is NaN. Names of
// options and metrics are those of the recipe (config.h) and of docs/formats.md.
//
// One optimizer step may be cut into micro-batches: the step first adds all of them to a StepTotals, then calls
// policy_loss on each; losses, gradients and metrics of the parts add up to those of the whole.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ponder::rl {

enum class Estimator { grpo, rloo, reinforce_plus_plus, reinforce_plus_plus_baseline };
enum class ScaleRewards { group, batch, none };
enum class Spread { sample, population };  // standard deviation over n - 1 or n
enum class Aggregation { sum_then_normalize, normalize_then_sum };
enum class LossType { dapo, grpo, dr_grpo, bnpo, cispo };
enum class Level { token, sequence };
enum class KlEstimator { k1, k2, k3 };

// A ragged batch: answer i owns the tokens offsets[i] .. offsets[i + 1] of every array; arrays may be empty where
// noted.
template <class Real>
struct AnswerBatch {
  std::span<const int64_t> offsets;     // [answers + 1]
  std::span<const Real> logp;           // l
  std::span<const Real> old_logp;       // empty: l_old = l, held constant (the first update of a rollout)
  std::span<const Real> ref_logp;       // needed where there is a KL term
  std::span<const Real> sampling_logp;  // for the off-policy mask; empty: old_logp
  std::span<const Real> entropy;        // needed for the entropy bonus and mask
  std::span<const uint8_t> mask;        // 1: a loss token; empty: all are. What is masked may hold anything
  std::span<const uint8_t> truncated;   // [answers], 1: ended by the length limit; empty: none
  std::span<const double> advantage;    // [answers], or [tokens]

  int64_t answers() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t tokens() const { return offsets.back(); }
};

// --- advantages ------------------------------------------------------------------------------------------------------

// Of what is not null. Equal values have std 0 exactly, not noise to be divided by eps.
struct Moments {
  int64_t n = 0;
  double mean = 0, std = 0;  // std: NaN where it is undefined (sample: n < 2)
};
Moments moments(std::span<const double> x, Spread spread);

// r_i = sum_f w_f r_if over the functions that apply; null if none does. Empty weights: 1 each.
double weighted_sum(std::span<const double> row, std::span<const double> weights);

struct AdvantageOptions {
  Estimator estimator = Estimator::grpo;
  int64_t num_generations = 8;         // G: groups are that many consecutive answers
  std::vector<double> reward_weights;  // one per function; empty: 1 each
  Aggregation aggregation = Aggregation::sum_then_normalize;
  ScaleRewards scale_rewards = ScaleRewards::group;
  Spread spread = Spread::sample;
  double eps = 1e-4;
  double beta = 0;  // of KL in the reward; 0 where it is in the loss
  KlEstimator kl = KlEstimator::k1;
};

struct Advantages {
  std::vector<double> reward;        // [answers] weighted sum (less KL, if it is in the reward); NaN: all null
  std::vector<double> advantage;     // [answers], or [tokens] for reinforce_plus_plus and its baseline form
  std::vector<uint8_t> informative;  // [groups] 1: two different rewards at least, so the group can teach
  double reward_mean = 0, reward_std = 0, frac_reward_zero_std = 0;
};

// rewards: [answers x functions], row by row, NaN = does not apply. `batch` gives token counts, masks and the log-probs
// (old_logp, ref_logp) of KL in the reward; estimators with one value per answer and beta 0 do not look at it.
template <class Real>
Advantages advantages(std::span<const double> rewards, const AnswerBatch<Real>& batch, const AdvantageOptions& options);

// --- the policy loss -------------------------------------------------------------------------------------------------

struct LossOptions {
  LossType loss_type = LossType::dapo;
  Level level = Level::token;
  double epsilon = 0.2,
         epsilon_high = 0.2;    // rho is clipped to [1 - epsilon, 1 + epsilon_high]; cispo: rho <= epsilon_high
  std::optional<double> delta;  // rho <= delta, whatever the advantage's sign
  double beta = 0;              // of KL in the loss
  KlEstimator kl = KlEstimator::k3;
  bool use_bias_correction_kl = false;
  double entropy_coef = 0;
  std::optional<double> off_policy_mask_threshold;
  bool mask_truncated = false;
  double max_completion_length = 512;  // dr_grpo's divisor
};

// What all micro-batches of one optimizer step have in common. Fractions are allowed: other programs divide by a mean
// over several steps.
struct StepTotals {
  double answers = 0;         // B, fully masked ones included
  double tokens = 0;          // loss tokens
  double entropy_tokens = 0;  // those of them that entropy_threshold keeps
  double micro_batches = 0;
  double entropy_threshold = -std::numeric_limits<double>::infinity();  // set before the first `add`
  template <class Real>
  void add(const AnswerBatch<Real>& batch, const LossOptions& options);
};

// Wang et al. 2025, "Beyond the 80/20 rule": the policy learns from the share `top` of tokens with the highest entropy.
// The threshold is the (1 - top) quantile, linearly interpolated, of the loss tokens' entropies; empty: keeps all.
double entropy_threshold(std::vector<double> entropies, double top);
template <class Real>
void add_loss_entropies(const AnswerBatch<Real>& batch, const LossOptions& options, std::vector<double>& entropies);

// Sums over loss tokens (or, at sequence level, answers): parts add up, shares are taken at the end.
struct LossMetrics {
  double tokens = 0, units = 0;  // units: what clipping is counted in, tokens or answers
  double low = 0, high = 0;
  double low_min = std::numeric_limits<double>::infinity(), high_max = -std::numeric_limits<double>::infinity();
  double kl = 0, entropy = 0, policy_loss = 0;
  double ratio = 0, ratio_min = std::numeric_limits<double>::infinity(), ratio_max = 0;
  double difference = 0, difference_max = 0;  // |l - l_old|
  int64_t off_policy_answers = 0;             // dropped by the off-policy mask
  int64_t far_tokens = 0;                     // a log ratio beyond +-kFarLogRatio: clamped there, no gradient

  void add(const LossMetrics& other);
  // clip_ratio/..., kl, entropy, cispo_clip_ratio, policy_loss: those that the options call for.
  std::vector<std::pair<std::string, double>> named(const LossOptions& options) const;
  // sampling/...: true of the sampler before the first update of a rollout, when l and l_old are the same weights'.
  std::vector<std::pair<std::string, double>> named_sampling() const;
};
constexpr double kFarLogRatio = 20;

// The loss of one micro-batch (its share of the step's), d loss / d logp [tokens] and, where entropy_coef is not 0,
// d loss / d entropy [tokens], both written (0 at masked tokens). `metrics` is added to.
template <class Real>
double policy_loss(const AnswerBatch<Real>& batch, const LossOptions& options, const StepTotals& totals,
                   std::span<Real> dlogp, std::span<Real> dentropy, LossMetrics& metrics);

}  // namespace ponder::rl
