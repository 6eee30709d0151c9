#include "ponder/rl/config.h"

#include <initializer_list>
#include <string_view>

#include "ponder/base/error.h"
#include "ponder/engine/request.h"

namespace ponder::rl {
namespace {

// The value at the place of `name`; the names are those that `fields` allows.
template <class T>
T pick(std::string_view name, std::initializer_list<std::pair<std::string_view, T>> values) {
  for (const auto& [key, value] : values)
    if (key == name) return value;
  throw_error(Exit::data, "'{}' is not a value of this field", name);
}

constexpr double kCispoCap = 5;  // of the ratio itself: 1 + epsilon would stop half of what is learned

KlEstimator estimator(const std::string& name) {
  return pick<KlEstimator>(name, {{"k1", KlEstimator::k1}, {"k2", KlEstimator::k2}, {"k3", KlEstimator::k3}});
}

}  // namespace

void GrpoConfig::finish() {
  if (policy_loss_type == "gspo") {
    importance_sampling_level = "sequence";
    loss_type = "grpo";
  }
  if (!epsilon_high) epsilon_high = loss_type == "cispo" ? kCispoCap : epsilon;
  if (kl_estimator == "auto") kl_estimator = kl_in == "reward" ? "k1" : "k3";
  if (!num_generations_eval) num_generations_eval = num_generations;
  const bool by_group = adv_estimator != "reinforce_plus_plus";
  if (by_group && num_generations < 2)
    throw_error(Exit::data, "num_generations = {}: {} compares answers to one question, so it needs at least 2",
                num_generations, adv_estimator);
  if (kl_in == "reward" && use_bias_correction_kl)
    throw_error(Exit::data, "use_bias_correction_kl corrects the KL in the loss; kl_in is \"reward\"");
  if (multi_objective_aggregation == "normalize_then_sum") {
    if (adv_estimator != "grpo")
      throw_error(Exit::data, "multi_objective_aggregation = normalize_then_sum is grpo's; adv_estimator is {}",
                  adv_estimator);
    if (kl_in == "reward" && beta > 0)
      throw_error(Exit::data,
                  "multi_objective_aggregation = normalize_then_sum leaves no sum of rewards from which kl_in = reward "
                  "could take the KL; set kl_in = loss");
  }
  if (!(temperature >= engine::kGreedy))
    throw_error(Exit::data, "temperature = {}: a rollout samples, so it must be at least {}", temperature,
                engine::kGreedy);
}

AdvantageOptions GrpoConfig::advantage_options() const {
  return {.estimator = pick<Estimator>(adv_estimator,
                                       {{"grpo", Estimator::grpo},
                                        {"rloo", Estimator::rloo},
                                        {"reinforce_plus_plus", Estimator::reinforce_plus_plus},
                                        {"reinforce_plus_plus_baseline", Estimator::reinforce_plus_plus_baseline}}),
          .num_generations = num_generations,
          .reward_weights = reward_weights,
          .aggregation =
              pick<Aggregation>(multi_objective_aggregation, {{"sum_then_normalize", Aggregation::sum_then_normalize},
                                                              {"normalize_then_sum", Aggregation::normalize_then_sum}}),
          .scale_rewards = pick<ScaleRewards>(
              scale_rewards,
              {{"group", ScaleRewards::group}, {"batch", ScaleRewards::batch}, {"none", ScaleRewards::none}}),
          .spread = pick<Spread>(advantage_std, {{"sample", Spread::sample}, {"population", Spread::population}}),
          .eps = advantage_eps,
          .beta = kl_in == "reward" ? beta : 0,
          .kl = estimator(kl_estimator)};
}

LossOptions GrpoConfig::loss_options() const {
  return {.loss_type = pick<LossType>(loss_type, {{"dapo", LossType::dapo},
                                                  {"grpo", LossType::grpo},
                                                  {"dr_grpo", LossType::dr_grpo},
                                                  {"bnpo", LossType::bnpo},
                                                  {"cispo", LossType::cispo}}),
          .level = pick<Level>(importance_sampling_level, {{"token", Level::token}, {"sequence", Level::sequence}}),
          .epsilon = epsilon,
          .epsilon_high = epsilon_high.value_or(epsilon),
          .delta = delta,
          .beta = kl_in == "loss" ? beta : 0,
          .kl = estimator(kl_estimator),
          .use_bias_correction_kl = use_bias_correction_kl,
          .entropy_coef = entropy_coef,
          .off_policy_mask_threshold = off_policy_mask_threshold,
          .mask_truncated = mask_truncated_completions,
          .max_completion_length = static_cast<double>(max_completion_length)};
}

}  // namespace ponder::rl
