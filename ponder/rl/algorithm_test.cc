#include "ponder/rl/algorithm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/rng.h"
#include "ponder/rl/config.h"
#include "tests/shared.h"

namespace ponder::rl {
namespace {

using nlohmann::json;

std::vector<json> golden_lines(const std::string& name) {
  const std::string path = test::shared_folder() / "golden/rl" / name;
  std::vector<json> lines;
  if (!path_exists(path)) return lines;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

// The recipe of a golden line, through the same door as a user's. `others`: fields that are not a recipe's.
GrpoConfig config_of(const json& params, std::initializer_list<std::string_view> others) {
  Recipe recipe;
  for (const auto& [key, value] : params.items()) {
    if (value.is_null() || std::find(others.begin(), others.end(), key) != others.end()) continue;
    recipe.set(key + "=" + (value.is_string() ? value.get<std::string>() : value.dump()));
  }
  GrpoConfig config;
  recipe.bind(config);
  config.finish();
  return config;
}

std::vector<double> numbers(const json& array) {
  std::vector<double> out;
  for (const json& row : array) {
    if (row.is_array()) {
      for (double x : numbers(row)) out.push_back(x);
    } else {
      out.push_back(row.is_null() ? std::nan("") : row.get<double>());
    }
  }
  return out;
}

// Padded rows of a golden line as a ragged batch. `trim`: rows end at their last loss token; else padding stays, masked
// and poisoned with NaN.
template <class Real>
struct GoldenBatch {
  std::vector<int64_t> offsets = {0}, source;
  std::vector<uint8_t> mask;
  std::vector<Real> logp, old_logp, ref_logp, sampling_logp, entropy;
  std::vector<double> advantage;

  GoldenBatch(const json& line, bool trim) {
    const int64_t rows = static_cast<int64_t>(line["mask"].size()),
                  width = static_cast<int64_t>(line["mask"][0].size());
    for (int64_t r = 0; r < rows; ++r) {
      int64_t length = width;
      while (trim && length > 0 && line["mask"][r][length - 1] == 0) --length;
      for (int64_t t = 0; t < length; ++t) {
        source.push_back(r * width + t);
        mask.push_back(line["mask"][r][t].get<int>() != 0);
      }
      offsets.push_back(static_cast<int64_t>(source.size()));
    }
    logp = tokens(line, "logps");
    old_logp = tokens(line, "old_logps");
    ref_logp = tokens(line, "ref_logps");
    sampling_logp = tokens(line, "sampling_logps");
    entropy = tokens(line, "entropies");
    const std::vector<double> all = line.contains("loss") ? numbers(line["advantages"]) : std::vector<double>();
    const bool per_token = line["advantages"][0].is_array() && !all.empty();
    for (int64_t t : source)
      if (per_token) advantage.push_back(all[t]);
    if (!per_token) advantage = all;
  }
  std::vector<Real> tokens(const json& line, const char* key) const {
    std::vector<Real> out;
    if (!line.contains(key) || line[key].is_null()) return out;
    const std::vector<double> all = numbers(line[key]);
    for (size_t i = 0; i < source.size(); ++i)
      out.push_back(mask[i] ? static_cast<Real>(all[source[i]]) : std::numeric_limits<Real>::quiet_NaN());
    return out;
  }
  AnswerBatch<Real> view() const {
    return {.offsets = offsets,
            .logp = logp,
            .old_logp = old_logp,
            .ref_logp = ref_logp,
            .sampling_logp = sampling_logp,
            .entropy = entropy,
            .mask = mask,
            .truncated = {},
            .advantage = advantage};
  }
};

double largest(const std::vector<double>& x) {
  double m = 0;
  for (double v : x) m = std::max(m, std::abs(v));
  return m;
}

template <class Real>
void check_loss_line(const json& line, bool trim) {
  constexpr bool kExact = sizeof(Real) == sizeof(double);
  const json& p = line["params"];
  const GrpoConfig config = config_of(p, {"num_items_in_batch", "gradient_accumulation_steps", "steps_per_generation"});
  const LossOptions options = config.loss_options();
  const GoldenBatch<Real> golden(line, trim);
  const AnswerBatch<Real> batch = golden.view();

  StepTotals totals;
  if (config.top_entropy_quantile < 1) {
    std::vector<double> entropies;
    for (size_t t = 0; t < golden.entropy.size(); ++t)
      if (golden.mask[t]) entropies.push_back(golden.entropy[t]);
    totals.entropy_threshold = entropy_threshold(entropies, config.top_entropy_quantile);
  }
  totals.add(batch, options);
  // TRL's micro-batch counts: it averages over gradient_accumulation_steps parts, and dapo's divisor is the mean over
  // the steps of a rollout.
  const double parts = p["gradient_accumulation_steps"];
  totals.answers *= parts;
  totals.micro_batches = parts;
  totals.tokens = p["num_items_in_batch"].get<double>() * parts / p["steps_per_generation"].get<double>();

  std::vector<Real> dlogp(golden.logp.size()), dentropy(options.entropy_coef != 0 ? golden.logp.size() : 0);
  LossMetrics metrics;
  const double loss = policy_loss<Real>(batch, options, totals, dlogp, dentropy, metrics);
  const double expected = line["loss"];
  EXPECT_NEAR(loss, expected,
              kExact ? 1e-10 * std::max(std::abs(expected), 1e-3) : 5e-5 * std::max(std::abs(expected), 1e-3));

  const auto check_gradient = [&](const char* key, const std::vector<Real>& gradient) {
    const std::vector<double> all = numbers(line[key]);
    const double tolerance = kExact ? 1e-9 * std::max(largest(all), 1e-3) : 2e-6 * largest(all);
    for (size_t i = 0; i < gradient.size(); ++i)
      EXPECT_NEAR(gradient[i], all[golden.source[i]], tolerance) << key << " " << golden.source[i];
  };
  check_gradient("grad_logps", dlogp);
  if (options.entropy_coef != 0) check_gradient("grad_entropies", dentropy);

  std::map<std::string, double> named;
  for (const auto& [name, value] : metrics.named(options)) named[name] = value;
  for (const auto& item : line["metrics"].items()) {
    const std::string name = item.key();
    const json& number = item.value();
    if (number.is_null()) continue;  // nothing to take a share of
    const double value = number;
    if (name == "entropy_coef") continue;  // an echo of the recipe
    ASSERT_TRUE(named.count(name)) << name;
    EXPECT_NEAR(named[name], value, 1e-6 * std::max(1.0, std::abs(value))) << name;
  }
}

TEST(PolicyLoss, Golden) {
  const auto lines = golden_lines("losses.jsonl");
  if (lines.empty()) GTEST_SKIP() << "no golden losses";
  int passed = 0;
  std::string uncovered;
  for (const json& line : lines) {
    SCOPED_TRACE(line["name"].get<std::string>());
    const std::string type = line["params"]["loss_type"];
    if (line["optional"] == true && (type == "sapo" || type == "luspo" || type == "vespo")) {
      uncovered += line["name"].get<std::string>() + " ";
      continue;
    }
    check_loss_line<double>(line, false);
    check_loss_line<double>(line, true);
    check_loss_line<float>(line, true);
    ++passed;
  }
  fmt::print("{} golden losses; optional and not covered: {}\n", passed, uncovered);
  EXPECT_GE(passed, 1);
}

TEST(Advantages, Golden) {
  const auto lines = golden_lines("advantages.jsonl");
  if (lines.empty()) GTEST_SKIP() << "no golden advantages";
  int passed = 0;
  std::string uncovered;
  for (const json& line : lines) {
    SCOPED_TRACE(line["name"].get<std::string>());
    const json& p = line["params"];
    const bool trl_only = p.value("normalize_advantages", false) ||
                          (p.contains("reward_clip_range") && !p["reward_clip_range"].is_null());
    if (line["optional"] == true && trl_only) {
      uncovered += line["name"].get<std::string>() + " ";
      continue;
    }
    ASSERT_EQ(p.value("gamma", 1.0), 1.0);
    const GrpoConfig config = config_of(p, {"gamma", "normalize_advantages", "reward_clip_range"});
    const std::vector<double> rewards = numbers(line["rewards"]), expected = numbers(line["advantages"]);
    if (!line.contains("mask")) {
      const Advantages a = advantages<double>(rewards, {}, config.advantage_options());
      ASSERT_EQ(a.advantage.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(a.advantage[i], expected[i], 1e-9) << i;
      const json& m = line["metrics"];
      EXPECT_NEAR(a.frac_reward_zero_std, m["frac_reward_zero_std"].get<double>(), 1e-9);
      if (m.contains("reward")) {
        EXPECT_NEAR(a.reward_mean, m["reward"].get<double>(), 1e-9);
        EXPECT_NEAR(a.reward_std, m["reward_std"].get<double>(), 1e-9);
      }
    } else {
      for (bool trim : {false, true}) {
        const GoldenBatch<double> golden(line, trim);
        AnswerBatch<double> batch = golden.view();
        const Advantages a = advantages(rewards, batch, config.advantage_options());
        ASSERT_EQ(a.advantage.size(), golden.source.size());
        for (size_t t = 0; t < golden.source.size(); ++t)
          EXPECT_NEAR(a.advantage[t], golden.mask[t] ? expected[golden.source[t]] : 0, 1e-9) << t;
      }
    }
    ++passed;
  }
  fmt::print("{} golden advantages; optional and not covered: {}\n", passed, uncovered);
  EXPECT_GE(passed, 1);
}

TEST(Advantages, FlatGroupsAndNullsAreExactlyZero) {
  const double null = std::nan("");
  const std::vector<double> rewards = {0.1, 0.1, 0.1, null, null, null, null, null, 0.3, null, null, null};
  for (const auto scale : {ScaleRewards::group, ScaleRewards::batch, ScaleRewards::none}) {
    const auto a =
        advantages<double>(rewards, {}, {.num_generations = 4, .reward_weights = {}, .scale_rewards = scale});
    for (double x : a.advantage) EXPECT_EQ(x, 0);
    EXPECT_EQ(a.informative, (std::vector<uint8_t>{0, 0, 0}));
  }
}

TEST(Advantages, KlInTheRewardLowersTheAnswersThatStray) {
  const std::vector<int64_t> offsets = {0, 2, 3};
  const std::vector<double> old_logp = {-1, -2, -1}, ref_logp = {-1.5, -2.5, -1}, rewards = {1, 1};
  const AnswerBatch<double> batch = {.offsets = offsets,
                                     .logp = old_logp,
                                     .old_logp = old_logp,
                                     .ref_logp = ref_logp,
                                     .sampling_logp = {},
                                     .entropy = {},
                                     .mask = {},
                                     .truncated = {},
                                     .advantage = {}};
  const auto a = advantages(
      rewards, batch, {.num_generations = 2, .reward_weights = {}, .scale_rewards = ScaleRewards::none, .beta = 0.1});
  EXPECT_NEAR(a.reward[0], 1 - 0.1 * (0.5 + 0.5), 1e-15);
  EXPECT_NEAR(a.advantage[0], -0.05, 1e-15);
  EXPECT_NEAR(a.advantage[1], 0.05, 1e-15);
}

// A batch of random answers, with masked holes and old log-probs near the new ones.
struct RandomBatch {
  std::vector<int64_t> offsets = {0};
  std::vector<double> logp, old_logp, ref_logp, entropy, advantage;
  std::vector<uint8_t> mask, truncated;

  explicit RandomBatch(uint64_t seed) {
    CounterRng rng(seed, Stream::test, 0);
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t n = 1 + static_cast<int64_t>(rng.below(7));
      for (int64_t t = 0; t < n; ++t) {
        old_logp.push_back(-0.1 - 2 * rng.uniform());
        logp.push_back(old_logp.back() + 0.3 * rng.normal());
        ref_logp.push_back(old_logp.back() + 0.3 * rng.normal());
        entropy.push_back(rng.uniform());
        mask.push_back(t == 0 || rng.below(5) > 0);
      }
      offsets.push_back(static_cast<int64_t>(logp.size()));
      advantage.push_back(rng.normal());
      truncated.push_back(i == 3);
    }
  }
  AnswerBatch<double> view() const {
    return {.offsets = offsets,
            .logp = logp,
            .old_logp = old_logp,
            .ref_logp = ref_logp,
            .sampling_logp = {},
            .entropy = entropy,
            .mask = mask,
            .truncated = truncated,
            .advantage = advantage};
  }
};

TEST(PolicyLoss, GradientsAgreeWithCentralDifferences) {
  for (const auto type : {LossType::dapo, LossType::grpo, LossType::dr_grpo, LossType::bnpo, LossType::cispo}) {
    for (const auto level : {Level::token, Level::sequence}) {
      for (const auto kl : {KlEstimator::k1, KlEstimator::k2, KlEstimator::k3}) {
        for (const bool corrected : {false, true}) {
          const LossOptions options = {.loss_type = type,
                                       .level = level,
                                       .epsilon = 0.2,
                                       .epsilon_high = type == LossType::cispo ? 1.1 : 0.28,
                                       .delta = 1.9,
                                       .beta = 0.3,
                                       .kl = kl,
                                       .use_bias_correction_kl = corrected,
                                       .entropy_coef = 0.02,
                                       .off_policy_mask_threshold = 0.3,
                                       .mask_truncated = true,
                                       .max_completion_length = 8};
          // cispo's weight is held constant: there l and l_old move together, so that only the direct path is seen.
          if (type == LossType::cispo && corrected) continue;
          RandomBatch b(7);
          StepTotals totals;
          totals.entropy_threshold = 0.2;
          totals.add(b.view(), options);
          const size_t n = b.logp.size();
          std::vector<double> dlogp(n), dentropy(n), unused(n), unused2(n);
          LossMetrics metrics;
          policy_loss<double>(b.view(), options, totals, dlogp, dentropy, metrics);
          const auto loss = [&] { return policy_loss<double>(b.view(), options, totals, unused, unused2, metrics); };
          const double h = 1e-6;
          for (size_t t = 0; t < n; ++t) {
            const auto moved = [&](std::vector<double>& x, double by) {
              const double l = x[t], old = b.old_logp[t];
              x[t] += by;
              if (type == LossType::cispo && &x == &b.logp) b.old_logp[t] += by;
              const double out = loss();
              x[t] = l;
              b.old_logp[t] = old;
              return out;
            };
            EXPECT_NEAR((moved(b.logp, h) - moved(b.logp, -h)) / (2 * h), dlogp[t], 1e-8);
            EXPECT_NEAR((moved(b.entropy, h) - moved(b.entropy, -h)) / (2 * h), dentropy[t], 1e-8);
          }
        }
      }
    }
  }
}

TEST(PolicyLoss, MicroBatchesAddUpToTheStep) {
  for (const auto type : {LossType::dapo, LossType::grpo, LossType::dr_grpo, LossType::cispo}) {
    const LossOptions options = {.loss_type = type,
                                 .level = Level::token,
                                 .delta = {},
                                 .beta = 0.1,
                                 .entropy_coef = 0.01,
                                 .off_policy_mask_threshold = {}};
    const RandomBatch b(3);
    const AnswerBatch<double> whole = b.view();
    StepTotals one, two;
    one.add(whole, options);
    std::vector<double> dlogp(b.logp.size()), dentropy(dlogp), part_dlogp(dlogp), part_dentropy(dlogp);
    LossMetrics whole_metrics, part_metrics;
    const double loss = policy_loss<double>(whole, options, one, dlogp, dentropy, whole_metrics);

    const auto part = [&](int64_t first, int64_t last) {
      AnswerBatch<double> p = whole;  // offsets stay absolute, so the arrays are shared
      p.offsets = whole.offsets.subspan(first, last - first + 1);
      p.advantage = whole.advantage.subspan(first, last - first);
      p.truncated = whole.truncated.subspan(first, last - first);
      return p;
    };
    std::vector<int64_t> offsets;
    double sum = 0;
    for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 2}, {2, 5}}) two.add(part(first, last), options);
    for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 2}, {2, 5}}) {
      AnswerBatch<double> p = part(first, last);
      const int64_t begin = p.offsets.front(), end = p.offsets.back();
      offsets.assign(p.offsets.begin(), p.offsets.end());
      for (int64_t& o : offsets) o -= begin;
      p.offsets = offsets;
      for (auto* x : {&p.logp, &p.old_logp, &p.ref_logp, &p.entropy}) *x = x->subspan(begin, end - begin);
      p.mask = p.mask.subspan(begin, end - begin);
      sum += policy_loss<double>(p, options, two, std::span(part_dlogp).subspan(begin, end - begin),
                                 std::span(part_dentropy).subspan(begin, end - begin), part_metrics);
    }
    EXPECT_NEAR(sum, loss, 1e-14);
    for (size_t t = 0; t < dlogp.size(); ++t) {
      EXPECT_NEAR(part_dlogp[t], dlogp[t], 1e-15);
      EXPECT_NEAR(part_dentropy[t], dentropy[t], 1e-15);
    }
    const auto a = whole_metrics.named(options), c = part_metrics.named(options);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i].second, c[i].second, 1e-14) << a[i].first;
  }
}

TEST(PolicyLoss, TheEntropyThresholdIsOfLossTokens) {
  const std::vector<int64_t> offsets = {0, 3, 5};
  const std::vector<double> logp(5, -1), entropy = {1, 2, 3, 40, 50};
  const std::vector<uint8_t> mask = {1, 0, 1, 1, 1}, truncated = {0, 1};
  AnswerBatch<double> b{.offsets = offsets, .logp = logp, .entropy = entropy, .mask = mask, .truncated = truncated};
  std::vector<double> found;
  add_loss_entropies(b, {.mask_truncated = true}, found);
  EXPECT_EQ(found, (std::vector<double>{1, 3}));
  add_loss_entropies(b, {}, found);
  EXPECT_EQ(found, (std::vector<double>{1, 3, 1, 3, 40, 50}));
}

TEST(PolicyLoss, FarTokensAreCountedAndFinite) {
  const std::vector<int64_t> offsets = {0, 2};
  const std::vector<float> logp = {-0.1f, -90.f}, old_logp = {-95.f, -0.5f};
  const std::vector<double> advantage = {1};
  const AnswerBatch<float> b = {.offsets = offsets,
                                .logp = logp,
                                .old_logp = old_logp,
                                .ref_logp = old_logp,
                                .sampling_logp = {},
                                .entropy = {},
                                .mask = {},
                                .truncated = {},
                                .advantage = advantage};
  const LossOptions options = {.delta = {}, .beta = 0.01, .off_policy_mask_threshold = {}};
  StepTotals totals;
  totals.add(b, options);
  std::vector<float> dlogp(2);
  LossMetrics metrics;
  EXPECT_TRUE(std::isfinite(policy_loss<float>(b, options, totals, dlogp, {}, metrics)));
  EXPECT_EQ(metrics.far_tokens, 2);
  EXPECT_FLOAT_EQ(static_cast<float>(metrics.difference_max), 94.9f);
}

TEST(GrpoConfig, OtherFrameworksNames) {
  GrpoConfig c;
  Recipe recipe = Recipe::parse(R"(
    top_k = -1
    norm_adv_by_std_in_grpo = false
    clip_ratio_low = 0.2
    clip_ratio_high = 0.28
    clip_ratio_c = 3.0
    loss_agg_mode = "seq-mean-token-sum-norm"
    kl_loss_coef = 0.001
    kl_loss_type = "low_var_kl"
    entropy_coeff = 0.5
    [rollout]
    n = 16
    [algorithm]
    adv_estimator = "reinforce_baseline"
  )");
  recipe.set("use_vllm=True");
  recipe.bind(c);
  c.finish();
  EXPECT_EQ(c.num_generations, 16);
  EXPECT_EQ(c.top_k, 0);
  EXPECT_EQ(c.adv_estimator, "reinforce_plus_plus_baseline");
  EXPECT_EQ(c.scale_rewards, "none");
  EXPECT_EQ(c.epsilon_high, 0.28);
  EXPECT_EQ(c.delta, 3.0);
  EXPECT_EQ(c.loss_type, "dr_grpo");
  EXPECT_EQ(c.beta, 0.001);
  EXPECT_EQ(c.kl_estimator, "k3");
  EXPECT_EQ(c.entropy_coef, 0.5);
  EXPECT_EQ(c.loss_options().loss_type, LossType::dr_grpo);
  EXPECT_EQ(c.advantage_options().estimator, Estimator::reinforce_plus_plus_baseline);

  GrpoConfig gspo;
  Recipe other;
  other.set("loss_mode=gspo");
  other.bind(gspo);
  gspo.finish();
  EXPECT_EQ(gspo.loss_options().level, Level::sequence);
  EXPECT_EQ(gspo.loss_options().loss_type, LossType::grpo);
  EXPECT_EQ(gspo.num_generations_eval, 8);

  GrpoConfig lonely;
  lonely.num_generations = 1;
  EXPECT_THROW(lonely.finish(), Error);
}

TEST(GrpoConfig, DefaultsThatFollowFromOthers) {
  const auto finished = [](std::initializer_list<const char*> sets) {
    GrpoConfig c;
    Recipe recipe;
    for (const char* set : sets) recipe.set(set);
    recipe.bind(c);
    c.finish();
    return c;
  };
  EXPECT_EQ(finished({}).loss_options().kl, KlEstimator::k3);
  EXPECT_EQ(finished({"beta=1", "kl_in=reward"}).advantage_options().kl, KlEstimator::k1);
  EXPECT_EQ(finished({"beta=1", "use_kl_in_reward=True", "kl_estimator=k2"}).advantage_options().kl, KlEstimator::k2);
  EXPECT_EQ(finished({"epsilon=0.3"}).loss_options().epsilon_high, 0.3);
  EXPECT_EQ(finished({"loss_type=cispo"}).loss_options().epsilon_high, 5);
  EXPECT_EQ(finished({"loss_type=cispo", "epsilon_high=2"}).loss_options().epsilon_high, 2);
  // What would be ignored is refused.
  const char* kGdpo = "multi_objective_aggregation=normalize_then_sum";
  EXPECT_NO_THROW(finished({kGdpo, "beta=1"}));
  EXPECT_THROW(finished({kGdpo, "beta=1", "kl_in=reward"}), Error);
  EXPECT_THROW(finished({kGdpo, "adv_estimator=rloo"}), Error);
}

}  // namespace
}  // namespace ponder::rl
