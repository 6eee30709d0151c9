// [rl] of a recipe: TRL's field names and defaults where TRL has them, other frameworks' names as synonyms. Batch sizes
// are stated globally, so that they do not depend on the machine; R1-Zero is 32 questions x 16 answers, 16 steps per
// rollout, epsilon 10, beta 0.001, the reference replaced every 400 steps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ponder/base/config.h"
#include "ponder/rl/algorithm.h"
#include "ponder/rl/reward.h"

namespace ponder::rl {

struct GrpoConfig {
  // Batch arithmetic.
  int64_t num_generations = 8;
  int64_t num_prompts_per_step = 16;
  int64_t steps_per_generation = 1;
  int64_t num_iterations = 1;
  std::string minibatch_split = "answers";

  // Advantages.
  std::string adv_estimator = "grpo";
  std::string scale_rewards = "group";
  std::string advantage_std = "sample";
  double advantage_eps = 1e-4;
  std::vector<double> reward_weights;
  std::string multi_objective_aggregation = "sum_then_normalize";
  std::vector<std::string> reward_funcs;

  // Loss.
  std::string loss_type = "dapo";
  std::string policy_loss_type = "vanilla";
  std::string importance_sampling_level = "token";
  double epsilon = 0.2;
  std::optional<double> epsilon_high;
  std::optional<double> delta;
  double beta = 0;
  std::string kl_estimator = "auto";
  std::string kl_in = "loss";
  bool use_bias_correction_kl = false;
  bool mask_truncated_completions = false;
  double top_entropy_quantile = 1;
  double entropy_coef = 0;
  std::optional<double> off_policy_mask_threshold;

  // Reference model.
  bool sync_ref_model = false;
  int64_t ref_model_sync_steps = 512;
  double ref_model_mixup_alpha = 0.6;

  // Sampling.
  double temperature = 1;
  double top_p = 1;
  int64_t top_k = 0;
  std::optional<double> min_p;
  double repetition_penalty = 1;
  int64_t max_prompt_length = 512;
  int64_t max_completion_length = 512;
  bool dynamic_sampling = false;
  int64_t max_num_gen_batches = 10;

  // What is shown.
  std::optional<int64_t> num_generations_eval;
  bool log_completions = true;
  int64_t num_completions_to_print = 4;

  template <class V>
  void fields(V& v);

  // After bind: fills what follows from other fields and refuses what cannot be meant (Error, Exit::data).
  void finish();

  AdvantageOptions advantage_options() const;
  LossOptions loss_options() const;  // after finish()
};

template <class V>
void GrpoConfig::fields(V& v) {
  v.field("num_generations", num_generations,
          {.help = "answers per question, G",
           .synonyms = {"rollout.n", "n_samples_per_prompt", "group_size", "num_samples_per_prompt_rollout"},
           .min = 1});
  v.field("num_prompts_per_step", num_prompts_per_step,
          {.help = "questions per optimizer step", .synonyms = {"actor.ppo_mini_batch_size"}, .min = 1});
  v.field("steps_per_generation", steps_per_generation,
          {.help = "optimizer steps per rollout (TRL counts micro-batches under this name)", .min = 1});
  v.field("num_iterations", num_iterations, {.help = "passes over one rollout", .synonyms = {"ppo_epochs"}, .min = 1});
  v.field("minibatch_split", minibatch_split,
          {.help = "what is shuffled over the steps of a rollout: answers, or whole groups",
           .choices = {"answers", "groups"}});

  v.field("adv_estimator", adv_estimator,
          {.help = "how rewards become advantages",
           .synonyms = {"algorithm.adv_estimator"},
           .choices = {"grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"},
           .value_synonyms = {{"group_norm", "grpo"}, {"reinforce_baseline", "reinforce_plus_plus_baseline"}}});
  v.field("scale_rewards", scale_rewards,
          {.help = "whose standard deviation divides the advantage",
           .synonyms = {"norm_adv_by_std_in_grpo"},
           .choices = {"group", "batch", "none"},
           .value_synonyms = {{"False", "none"}, {"false", "none"}, {"True", "group"}, {"true", "group"}}});
  v.field("advantage_std", advantage_std,
          {.help = "standard deviation over n - 1 or n", .choices = {"sample", "population"}});
  v.field("advantage_eps", advantage_eps, {.help = "added to the standard deviation", .min = 0});
  v.field("reward_funcs", reward_funcs,
          {.help = "names of rewards, in place of [[reward]]s without settings", .choices = kRewardNames});
  v.field("reward_weights", reward_weights, {.help = "one weight per reward; empty: 1 each"});
  v.field("multi_objective_aggregation", multi_objective_aggregation,
          {.help = "several rewards: weighted sum first, or each normalised in its group first",
           .choices = {"sum_then_normalize", "normalize_then_sum"}});

  v.field("loss_type", loss_type,
          {.help = "how token losses are averaged, or cispo",
           .synonyms = {"loss_agg_mode"},
           .choices = {"dapo", "grpo", "dr_grpo", "bnpo", "cispo"},
           .value_synonyms = {
               {"token-mean", "dapo"}, {"seq-mean-token-mean", "grpo"}, {"seq-mean-token-sum-norm", "dr_grpo"}}});
  v.field("policy_loss_type", policy_loss_type,
          {.help = "gspo: importance_sampling_level = sequence with loss_type = grpo",
           .synonyms = {"loss_mode"},
           .choices = {"vanilla", "gspo"},
           .value_synonyms = {{"ppo", "vanilla"}}});
  v.field("importance_sampling_level", importance_sampling_level,
          {.help = "a ratio per token or per answer", .choices = {"token", "sequence"}});
  v.field("epsilon", epsilon,
          {.help = "the ratio is clipped below at 1 - epsilon",
           .synonyms = {"clip_ratio", "clip_ratio_low", "eps_clip"},
           .min = 0});
  v.field("epsilon_high", epsilon_high,
          {.help = "and above at 1 + epsilon_high (default: epsilon); for cispo the cap itself (default: 5)",
           .synonyms = {"clip_ratio_high", "eps_clip_high", "clip_higher"},
           .min = 0});
  v.field("delta", delta,
          {.help = "caps the ratio for negative advantages too", .synonyms = {"clip_ratio_c"}, .min = 0});
  v.field("beta", beta,
          {.help = "weight of the KL term; 0: no reference model",
           .synonyms = {"kl_loss_coef", "init_coef", "kl_ctl"},
           .min = 0});
  v.field("kl_estimator", kl_estimator,
          {.help = "k1 = x, k2 = x^2/2, k3 = exp(-x) + x - 1 with x = logp - ref_logp; auto: k3 in the loss, k1 in the "
                   "reward",
           .synonyms = {"kl_loss_type"},
           .choices = {"auto", "k1", "k2", "k3"},
           .value_synonyms = {{"kl", "k1"}, {"mse", "k2"}, {"low_var_kl", "k3"}}});
  v.field("kl_in", kl_in,
          {.help = "where the KL term stands",
           .synonyms = {"use_kl_in_reward"},
           .choices = {"loss", "reward"},
           .value_synonyms = {{"True", "reward"}, {"true", "reward"}, {"False", "loss"}, {"false", "loss"}}});
  v.field("use_bias_correction_kl", use_bias_correction_kl, {.help = "multiplies the KL by the ratio"});
  v.field("mask_truncated_completions", mask_truncated_completions,
          {.help = "answers cut by the length limit stay out of the loss", .synonyms = {"overlong_filtering"}});
  v.field("top_entropy_quantile", top_entropy_quantile,
          {.help = "share of tokens, the most uncertain ones, that the policy learns from", .min = 0, .max = 1});
  v.field("entropy_coef", entropy_coef, {.help = "weight of the entropy bonus", .synonyms = {"entropy_coeff"}});
  v.field("off_policy_mask_threshold", off_policy_mask_threshold,
          {.help = "drops bad answers whose mean log-prob has fallen by more than this"});

  v.field("sync_ref_model", sync_ref_model, {.help = "moves the reference model after the policy"});
  v.field("ref_model_sync_steps", ref_model_sync_steps,
          {.help = "every so many steps", .synonyms = {"ref_update_interval", "ref_policy_update_freq"}, .min = 1});
  v.field("ref_model_mixup_alpha", ref_model_mixup_alpha,
          {.help = "ref = alpha policy + (1 - alpha) ref; 1 replaces it", .min = 0, .max = 1});

  v.field("temperature", temperature,
          {.help = "of sampling; divides the logits in every log-prob", .synonyms = {"rollout.temperature"}, .min = 0});
  v.field("top_p", top_p, {.help = "smallest set of tokens with this probability", .min = 0, .max = 1});
  v.field("top_k", top_k, {.help = "the k likeliest tokens; 0: all", .value_synonyms = {{"-1", "0"}}, .min = 0});
  v.field("min_p", min_p, {.help = "tokens with this share of the best one's probability", .min = 0, .max = 1});
  v.field("repetition_penalty", repetition_penalty,
          {.help = "of tokens that stand in prompt or answer; 1: none", .min = 0.01, .max = 100});
  v.field("max_prompt_length", max_prompt_length,
          {.help = "longer prompts are replaced by others, and counted", .min = 1});
  v.field("max_completion_length", max_completion_length,
          {.help = "tokens of an answer",
           .synonyms = {"max_response_length", "max_new_tokens", "rollout_max_response_len"},
           .min = 1});
  v.field("dynamic_sampling", dynamic_sampling,
          {.help = "groups with one reward are replaced by fresh ones",
           .synonyms = {"filter_groups.enable", "dynamic_filtering"}});
  v.field("max_num_gen_batches", max_num_gen_batches,
          {.help = "then go on with the groups at hand, and say so", .min = 1});

  v.field("num_generations_eval", num_generations_eval,
          {.help = "answers per question in evaluation (default: num_generations)",
           .synonyms = {"val_kwargs.n"},
           .min = 1});
  v.field("log_completions", log_completions, {.help = "prints samples", .identity = false});
  v.field("num_completions_to_print", num_completions_to_print,
          {.help = "how many", .synonyms = {"log_val_generations"}, .min = 0, .identity = false});

  v.ignored({"use_vllm", "vllm_*", "gpu_memory_utilization", "calculate_log_probs", "tis_*", "rollout_is*"},
            "rollout and trainer are one engine here");
}

}  // namespace ponder::rl
