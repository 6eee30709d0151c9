#include "ponder/rl/step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"

namespace ponder::rl {
namespace {

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

// ref <- alpha theta + (1 - alpha) ref                                         TRL; alpha = 1 replaces (R1)
void refresh_reference(model::Model& reference, const model::Model& policy, double alpha) {
  auto from = policy.params().list().begin();
  for (ops::Param& p : reference.params().list()) {
    const float* theta = from->value.f32();
    float* ref = p.value.f32();
    if (alpha == 1)
      std::memcpy(ref, theta, static_cast<size_t>(p.value.size()) * sizeof(float));
    else
      for (int64_t i = 0; i < p.value.size(); ++i) ref[i] = static_cast<float>(alpha * theta[i] + (1 - alpha) * ref[i]);
    ++from;
  }
  reference.params().bump_version();
}

}  // namespace

Grpo::Grpo(train::Trainer& trainer, engine::Engine& engine, const tasks::Task& task, const GrpoSetup& setup,
           const kernels::Backend& backend)
    : trainer_(trainer), engine_(engine), task_(task), setup_(setup) {
  setup_.grpo.finish();
  if (setup_.rewards.empty()) setup_.rewards.emplace_back();
  const size_t weights = setup_.grpo.reward_weights.size();
  if (weights != 0 && weights != setup_.rewards.size())
    throw_error(Exit::data, "reward_weights has {} entries, but there are {} rewards", weights, setup_.rewards.size());
  for (const RewardConfig& r : setup_.rewards) {
    const int64_t longest = r.max_length ? r.max_length : setup_.grpo.max_completion_length;
    if (r.name == "soft_overlong" && r.soft_punish_cache > longest)
      throw_error(
          Exit::data,
          "[[reward]] soft_overlong: soft_punish_cache = {} is more than the longest answer of {} tokens, so that "
          "every answer would be punished",
          r.soft_punish_cache, longest);
    std::string tag = r.name;
    for (int n = 2; std::find(reward_tags_.begin(), reward_tags_.end(), tag) != reward_tags_.end(); ++n)
      tag = fmt::format("{}_{}", r.name, n);
    reward_tags_.push_back(tag);
  }
  if (setup_.grpo.beta > 0) {
    model::Model& policy = trainer.model();
    reference_ = std::make_unique<model::Model>(
        policy.config(), model::ModelOptions{.mtp = policy.mtp_modules() > 0, .mla_form = policy.mla_form()});
    refresh_reference(*reference_, policy, 1);
    reference_pass_ = std::make_unique<train::Pass>(*reference_, backend);
  }
  if (setup_.fixed_problems > 0)
    fixed_ = tasks::choose_problems(task, tasks::Split::train, setup_.fixed_problems, setup_.seed);
}

Grpo::~Grpo() = default;

int64_t Grpo::steps_per_rollout() const { return setup_.grpo.steps_per_generation * setup_.grpo.num_iterations; }
bool Grpo::rollout_boundary(int64_t step) const { return step % steps_per_rollout() == 0; }

// [answers x functions]; `first_index` counts answers over the whole run.
std::vector<double> Grpo::grade(const Group& group, uint64_t first_index) const {
  std::vector<std::string> texts;
  std::vector<RewardInput> inputs;
  for (const RolloutAnswer& a : group.answers) {
    std::span<const int32_t> said = a.completion();
    if (!a.truncated && !said.empty()) said = said.first(said.size() - 1);  // the end token is not part of the text
    texts.push_back(task_.tokenizer().decode(said));
  }
  for (size_t j = 0; j < group.answers.size(); ++j) {
    const RolloutAnswer& a = group.answers[j];
    inputs.push_back({.verdict = a.grade.verdict,
                      .problem = &group.problem,
                      .text = texts[j],
                      .tokens = a.completion(),
                      .truncated = a.truncated,
                      .index = first_index + j});
  }
  std::vector<double> rewards(group.answers.size() * setup_.rewards.size());
  for (size_t f = 0; f < setup_.rewards.size(); ++f) {
    const auto values = reward_values(
        setup_.rewards[f], inputs, {.max_completion_length = setup_.grpo.max_completion_length, .seed = setup_.seed});
    for (size_t j = 0; j < values.size(); ++j) rewards[j * setup_.rewards.size() + f] = values[j];
  }
  return rewards;
}

// Problems whose prompt is not too long; those that are are counted and replaced, while there is hope.
std::vector<tasks::Problem> Grpo::draw_problems(CounterRng& rng, size_t wanted, int64_t& dropped) const {
  const int64_t longest = setup_.grpo.max_prompt_length;
  std::vector<tasks::Problem> problems;
  for (size_t drawn = 0; problems.size() < wanted && drawn < 100 * wanted; ++drawn) {
    tasks::Problem p =
        fixed_.empty() ? tasks::draw_problem(task_, tasks::Split::train, rng) : fixed_[rng.below(fixed_.size())];
    if (static_cast<int64_t>(task_.prompt(p).size()) > longest)
      ++dropped;
    else
      problems.push_back(std::move(p));
  }
  if (problems.empty())
    throw_error(Exit::data, "max_prompt_length = {}: all of {} prompts that were drawn are longer", longest, dropped);
  return problems;
}

// All that was sampled for a rollout, kept or not.
struct Grpo::Sampled {
  explicit Sampled(const tasks::Task& task) : summary(task.modes()) {}
  tasks::Summary summary;
  std::vector<double> rewards, sums;  // [answers x functions], [answers]
  double groups = 0, informative = 0, entropy = 0;
  int64_t batches = 0, dropped_prompts = 0;
};

// Draws problems and samples answers until there are enough groups; with dynamic sampling (Yu et al. 2025, DAPO) groups whose
// answers all have one reward are replaced by fresh ones, at most max_num_gen_batches times.
void Grpo::sample(int64_t step, GrpoReport& report) {
  const GrpoConfig& c = setup_.grpo;
  const auto generation = static_cast<uint64_t>(step / steps_per_rollout());
  const size_t wanted = static_cast<size_t>(c.num_prompts_per_step * c.steps_per_generation);
  const SampleSettings settings{
      static_cast<int>(c.num_generations),
      static_cast<int>(c.max_completion_length),
      {static_cast<float>(c.temperature), static_cast<float>(c.top_p), static_cast<float>(c.min_p.value_or(0)),
       static_cast<int32_t>(c.top_k), static_cast<float>(c.repetition_penalty)}};
  rollout_ = {};
  rollout_.version = trainer_.model().params().version();
  rewards_.clear();
  Sampled all(task_);
  const size_t functions = setup_.rewards.size();
  const int64_t limit = c.dynamic_sampling ? c.max_num_gen_batches : 1;
  for (; all.batches < limit && rollout_.groups.size() < wanted; ++all.batches) {
    const auto begun = std::chrono::steady_clock::now();
    const uint64_t drawing = generation << 16 | static_cast<uint64_t>(all.batches);
    CounterRng rng(setup_.seed, Stream::problems, drawing);
    Rollout part = sample_rollout(engine_, task_, draw_problems(rng, wanted, all.dropped_prompts), settings,
                                  stream_key(setup_.seed, Stream::sampling), drawing << 16);
    report.rollout_s += seconds_since(begun);
    const auto graded = std::chrono::steady_clock::now();
    rollout_.tokens += part.tokens;
    rollout_.flops += part.flops;
    for (Group& g : part.groups) {
      for (const RolloutAnswer& a : g.answers) {
        all.summary.add(a.grade, static_cast<int64_t>(a.logp.size()));
        for (float e : a.entropy) all.entropy += e;
      }
      const std::vector<double> rewards = grade(g, (generation << 20 | static_cast<uint64_t>(all.groups)) << 12);
      const size_t answers = g.answers.size();
      all.rewards.insert(all.rewards.end(), rewards.begin(), rewards.end());
      for (size_t j = 0; j < answers; ++j)
        all.sums.push_back(weighted_sum(std::span(rewards).subspan(j * functions, functions), c.reward_weights));
      const bool teaches = moments(std::span(all.sums).last(answers), Spread::population).std > 0;
      ++all.groups;
      all.informative += teaches;
      if (c.dynamic_sampling && !teaches) continue;
      if (rollout_.groups.size() == wanted) continue;
      rewards_.insert(rewards_.end(), rewards.begin(), rewards.end());
      rollout_.groups.push_back(std::move(g));
    }
    report.reward_s += seconds_since(graded);
  }
  if (all.batches == c.max_num_gen_batches && all.batches > 1 && rollout_.groups.size() < wanted && !said_short_) {
    said_short_ = true;
    log_warn(
        "dynamic_sampling: after {} drawings {} of {} groups have answers of different rewards; going on with those "
        "(rollout/groups counts them; this is said once)",
        all.batches, rollout_.groups.size(), wanted);
  }
  rollout_metrics_ = metrics_of(all);
  report.flops += rollout_.flops;
}

Metrics Grpo::metrics_of(const Sampled& all) const {
  const Moments reward = moments(all.sums, Spread::sample);
  const double informative = all.groups > 0 ? all.informative / all.groups : 0;
  Metrics out = {{"reward", reward.mean},
                 {"reward_std", reward.n > 1 ? reward.std : 0},
                 {"frac_reward_zero_std", all.groups > 0 ? 1 - informative : 0},
                 {"rollout/share_informative_groups", informative},
                 {"rollout/batches", static_cast<double>(all.batches)},
                 {"rollout/groups", static_cast<double>(rollout_.groups.size())},
                 {"rollout/dropped_prompts", static_cast<double>(all.dropped_prompts)},
                 {"entropy", all.entropy / static_cast<double>(std::max<int64_t>(1, rollout_.tokens))},
                 {"num_tokens", static_cast<double>(rollout_.tokens)}};
  const size_t functions = setup_.rewards.size();
  for (size_t f = 0; f < functions; ++f) {
    std::vector<double> column;
    for (size_t i = f; i < all.rewards.size(); i += functions) column.push_back(all.rewards[i]);
    const Moments m = moments(column, Spread::sample);
    if (m.n == 0) continue;
    out.push_back({fmt::format("rewards/{}/mean", reward_tags_[f]), m.mean});
    out.push_back({fmt::format("rewards/{}/std", reward_tags_[f]), m.n > 1 ? m.std : 0});
  }
  for (auto& m : all.summary.metrics()) out.push_back(std::move(m));
  return out;
}

// The answers of the rollout one after the other, with the reference model's log-probs and their advantages.
void Grpo::weigh(GrpoReport& report) {
  const GrpoConfig& c = setup_.grpo;
  answers_.clear(), offsets_.assign(1, 0), old_logp_.clear(), ref_logp_.clear();
  std::vector<uint8_t> truncated;
  for (const Group& g : rollout_.groups) {
    PONDER_CHECK(static_cast<int64_t>(g.answers.size()) == c.num_generations, "a group of {} answers",
                 g.answers.size());
    for (const RolloutAnswer& a : g.answers) {
      answers_.push_back(&a);
      truncated.push_back(a.truncated);
      old_logp_.insert(old_logp_.end(), a.logp.begin(), a.logp.end());
      offsets_.push_back(static_cast<int64_t>(old_logp_.size()));
    }
  }
  if (reference_) {
    const auto begun = std::chrono::steady_clock::now();
    std::vector<train::Example> examples;
    for (const RolloutAnswer* a : answers_) examples.push_back({a->ids, a->prompt_length});
    for (const auto part : train::micro_batches(examples, trainer_.config().micro_batch_tokens)) {
      const auto logp =
          reference_pass_->forward(part, {.temperature = static_cast<float>(c.temperature), .gradients = false}).logp;
      ref_logp_.insert(ref_logp_.end(), logp.begin(), logp.end());
    }
    report.reference_s += seconds_since(begun);
  }
  const AnswerBatch<float> batch{
      .offsets = offsets_, .logp = old_logp_, .old_logp = old_logp_, .ref_logp = ref_logp_, .truncated = truncated};
  AdvantageOptions options = c.advantage_options();
  options.reward_weights.resize(setup_.rewards.size(), 1.0);
  advantages_ = advantages(rewards_, batch, options).advantage;
}

// The answers of optimizer step `step` within the rollout: a seeded shuffle of answers or of whole groups cut into
// steps_per_generation parts, some of which are empty where fewer were found than wanted.
std::vector<int32_t> Grpo::minibatch(int64_t step) const {
  const GrpoConfig& c = setup_.grpo;
  const size_t unit = c.minibatch_split == "groups" ? static_cast<size_t>(c.num_generations) : 1;
  std::vector<int32_t> units(answers_.size() / unit);
  std::iota(units.begin(), units.end(), 0);
  if (c.steps_per_generation > 1) {
    CounterRng rng(setup_.seed, Stream::minibatch, static_cast<uint64_t>(step / steps_per_rollout()));
    rng.shuffle(units);
  }
  const size_t part = static_cast<size_t>(step % c.steps_per_generation),
               parts = static_cast<size_t>(c.steps_per_generation);
  std::vector<int32_t> chosen;
  for (size_t i = units.size() * part / parts; i < units.size() * (part + 1) / parts; ++i)
    for (size_t j = 0; j < unit; ++j) chosen.push_back(units[i] * static_cast<int32_t>(unit) + static_cast<int32_t>(j));
  return chosen;
}

// Promise of the house: until the first update after a rollout both are the same floats.
void Grpo::check_equal(const RolloutAnswer& a, std::span<const float> recomputed) const {
  if (std::memcmp(a.logp.data(), recomputed.data(), recomputed.size() * sizeof(float)) == 0) return;
  size_t t = 0;
  while (std::memcmp(&a.logp[t], &recomputed[t], sizeof(float)) == 0) ++t;
  std::string lines;
  for (size_t i = 0; i < recomputed.size(); ++i)
    lines += fmt::format("{} {} {:.9g} {:.9g}\n", i, a.completion()[i], a.logp[i], recomputed[i]);
  const std::string path = setup_.mismatch_path.empty() ? "rollout-mismatch.txt" : setup_.mismatch_path;
  write_file_atomic(path, "position token rollout trainer\n" + lines);
  throw_error(Exit::failure,
              "rollout and trainer disagree at token {} of an answer: {:.9g} recorded, {:.9g} recomputed with the same "
              "weights (all tokens in {}). "
              "Training on would be wrong; this is a bug in ponder, please report it with that file",
              t, a.logp[t], recomputed[t], path);
}

void Grpo::learn(int64_t step, std::span<const int32_t> chosen, GrpoReport& report) {
  const GrpoConfig& c = setup_.grpo;
  const auto begun = std::chrono::steady_clock::now();
  const bool on_policy = trainer_.model().params().version() == rollout_.version;
  const LossOptions options = c.loss_options();
  const bool entropy = options.entropy_coef != 0 || c.top_entropy_quantile < 1;
  const train::PassOptions pass_options{.temperature = static_cast<float>(c.temperature),
                                        .entropy = entropy,
                                        .balance_weight = static_cast<float>(trainer_.config().router_aux_loss_coef /
                                                                             static_cast<double>(chosen.size()))};
  const bool per_token = advantages_.size() != answers_.size();

  std::vector<train::Example> examples;
  for (int32_t i : chosen)
    examples.push_back({answers_[static_cast<size_t>(i)]->ids, answers_[static_cast<size_t>(i)]->prompt_length});
  const auto parts = train::micro_batches(examples, trainer_.config().micro_batch_tokens);

  // What the loss needs to know of each micro-batch, ragged.
  struct Arrays {
    std::vector<int64_t> offsets = {0};
    std::vector<float> old_logp, ref_logp, entropy;
    std::vector<uint8_t> truncated;
    std::vector<double> advantage;
    AnswerBatch<float> batch(std::span<const float> logp) const {
      return {.offsets = offsets,
              .logp = logp,
              .old_logp = old_logp,
              .ref_logp = ref_logp,
              .sampling_logp = old_logp,
              .entropy = entropy,
              .truncated = truncated,
              .advantage = advantage};
    }
  };
  std::vector<Arrays> arrays(parts.size());
  std::vector<double> entropies;
  size_t next = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    Arrays& x = arrays[p];
    for (size_t j = 0; j < parts[p].size(); ++j) {
      const size_t i = static_cast<size_t>(chosen[next++]);
      const RolloutAnswer& a = *answers_[i];
      const size_t begin = static_cast<size_t>(offsets_[i]), n = a.logp.size();
      x.old_logp.insert(x.old_logp.end(), a.logp.begin(), a.logp.end());
      if (!ref_logp_.empty())
        x.ref_logp.insert(x.ref_logp.end(), ref_logp_.begin() + static_cast<int64_t>(begin),
                          ref_logp_.begin() + static_cast<int64_t>(begin + n));
      if (entropy && on_policy) x.entropy.insert(x.entropy.end(), a.entropy.begin(), a.entropy.end());
      if (per_token)
        x.advantage.insert(x.advantage.end(), advantages_.begin() + static_cast<int64_t>(begin),
                           advantages_.begin() + static_cast<int64_t>(begin + n));
      else
        x.advantage.push_back(advantages_[i]);
      x.truncated.push_back(a.truncated);
      x.offsets.push_back(static_cast<int64_t>(x.old_logp.size()));
    }
    if (entropy && !on_policy) {  // the weights have moved: entropies of now, for the step's threshold
      train::PassOptions look = pass_options;
      look.gradients = false;
      look.balance_weight = 0;
      const auto now = trainer_.pass().forward(parts[p], look).entropy;
      x.entropy.assign(now.begin(), now.end());
    }
    if (c.top_entropy_quantile < 1) add_loss_entropies(x.batch(x.old_logp), options, entropies);
  }
  StepTotals totals;
  if (c.top_entropy_quantile < 1) totals.entropy_threshold = entropy_threshold(entropies, c.top_entropy_quantile);
  for (const Arrays& x : arrays) totals.add(x.batch(x.old_logp), options);

  trainer_.begin();
  LossMetrics metrics;
  double loss = 0, balance = 0;
  std::vector<float> dlogp, dentropy;
  next = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const train::Pass::Result out = trainer_.pass().forward(parts[p], pass_options);
    report.flops += 3 * out.flops;
    for (size_t j = 0; j < parts[p].size(); ++j, ++next) {
      const RolloutAnswer& a = *answers_[static_cast<size_t>(chosen[next])];
      const auto recomputed = out.logp.subspan(static_cast<size_t>(arrays[p].offsets[j]), a.logp.size());
      if (on_policy) check_equal(a, recomputed);
    }
    balance += out.balance;
    dlogp.assign(out.logp.size(), 0.f);
    dentropy.assign(options.entropy_coef != 0 ? out.logp.size() : 0, 0.f);
    loss += policy_loss<float>(arrays[p].batch(out.logp), options, totals, dlogp, dentropy, metrics);
    trainer_.pass().backward(dlogp, dentropy);
  }
  const train::UpdateReport update = trainer_.update(step, loss + balance);
  report.skipped = update.skipped;
  report.offender = update.offender;
  report.train_s = seconds_since(begun);

  Metrics& m = report.metrics;
  m.insert(m.end(), {{"loss", loss}, {"grad_norm", update.grad_norm}, {"learning_rate", update.learning_rate}});
  for (auto& named : metrics.named(options))
    if (named.first != "entropy") m.push_back(std::move(named));  // reported over all that was sampled
  if (on_policy)
    for (auto& named : metrics.named_sampling()) m.push_back(std::move(named));
  m.push_back({"staleness", static_cast<double>(step % steps_per_rollout())});
  if (trainer_.model().config().n_routed_experts > 0) {
    double violation = 0, dead = 0;
    trainer_.expert_load(&violation, &dead);
    m.insert(m.end(), {{"moe/max_violation", violation}, {"moe/dead_experts", dead}});
    if (trainer_.config().router_aux_loss_coef > 0)
      m.push_back({"moe/balance_loss", balance / static_cast<double>(chosen.size())});
  }
}

GrpoReport Grpo::step(int64_t step) {
  GrpoReport report;
  if (rollout_boundary(step)) {
    sample(step, report);
    weigh(report);
  }
  PONDER_CHECK(!offsets_.empty(), "step {} is inside a rollout that was not sampled", step);
  report.metrics = rollout_metrics_;
  if (const std::vector<int32_t> chosen = minibatch(step); !chosen.empty())
    learn(step, chosen, report);
  else  // too few groups had anything to teach
    report.metrics.insert(report.metrics.end(), {{"loss", 0}, {"grad_norm", 0}});
  const GrpoConfig& c = setup_.grpo;
  if (reference_ && c.sync_ref_model && (step + 1) % c.ref_model_sync_steps == 0)
    refresh_reference(*reference_, trainer_.model(), c.ref_model_mixup_alpha);
  report.metrics.insert(report.metrics.end(),
                        {{"time/rollout", report.rollout_s},
                         {"time/reward", report.reward_s},
                         {"time/train", report.train_s},
                         {"step_time", report.rollout_s + report.reward_s + report.reference_s + report.train_s}});
  if (reference_) report.metrics.push_back({"time/reference", report.reference_s});
  report.rollout = &rollout_;
  report.reward = rewards_;
  report.advantage = advantages_;
  return report;
}

}  // namespace ponder::rl
