// Whole training runs and GRPO updates against float64 runs of TRL and PyTorch: losses, gradient norms, routing counts,
// biases, gradients and weights. Cases are found by listing the folders; tolerances are those of the data's README.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/model/weights.h"
#include "ponder/rl/algorithm.h"
#include "ponder/rl/config.h"
#include "ponder/train/trainer.h"
#include "tests/shared.h"

namespace ponder {
namespace {

std::vector<Json> lines_of(const std::filesystem::path& path) {
  std::vector<Json> lines;
  read_json_lines(path, [&](Json& value, int) { lines.push_back(std::move(value)); });
  return lines;
}

std::unique_ptr<model::Model> model_from(const std::filesystem::path& config, const std::filesystem::path& weights) {
  auto m = std::make_unique<model::Model>(model::parse_config_json(read_file(config), config),
                                          model::ModelOptions{.gradients = true});
  model::load_weights(*m, *model::WeightSource::open(weights, m->config()));
  return m;
}

// Largest difference to the tensors of a file, by released name (with a prefix); `of` picks value or gradient.
double worst_tensor(model::Model& m, const SafetensorsFile& file, const std::string& prefix, Tensor ops::Param::*of,
                    int* compared) {
  double worst = 0;
  for (ops::Param& p : m.params().list())
    for (const ops::Slice& s : p.slices)
      if (const TensorEntry* e = file.find(prefix + s.name)) {
        std::vector<double> expected(static_cast<size_t>(e->size()));
        read_f64(*e, expected.data());
        for (size_t i = 0; i < expected.size(); ++i)
          worst = std::max(worst, std::abs(double((p.*of).f32()[s.offset + static_cast<int64_t>(i)]) - expected[i]));
        ++*compared;
      }
  return worst;
}

class GoldenRun : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(GoldenRun, MatchesFloat64) {
  const auto folder = GetParam().parent_path();
  const auto lines = lines_of(GetParam());
  const Json& head = lines[0];
  const Json batches = read_json(folder / "batches.json");
  auto model = model_from(folder / "config.json", folder / "model.safetensors");
  const bool decay_all = head["decay"].get<std::string>().find("all tensors") == 0;
  for (ops::Param& p : model->params().list()) p.decay |= decay_all;
  train::TrainConfig c;
  c.schedule = {.learning_rate = head["learning_rate"],
                .lr_scheduler_type = head["lr_scheduler_type"],
                .warmup_steps = head["warmup_steps"]};
  c.adamw = {.weight_decay = head["weight_decay"],
             .adam_beta1 = head["betas"][0],
             .adam_beta2 = head["betas"][1],
             .adam_epsilon = head["adam_epsilon"],
             .max_grad_norm = head["max_grad_norm"]};
  c.micro_batch_tokens = 1000;
  if (head["router_bias_update_speed"].is_number()) c.router_bias_update_speed = head["router_bias_update_speed"];
  if (head["balance_alpha"].is_number()) c.router_aux_loss_coef = head["balance_alpha"];
  ThreadPool pool(2);
  const auto backend = kernels::make_best_backend(pool);
  train::Trainer trainer(*model, *backend, c, head["max_steps"]);

  double loss_error = 0, norm_error = 0;
  for (size_t i = 1; i < lines.size(); ++i) {
    const Json& expected = lines[i];
    const int64_t step = expected["step"];
    std::vector<std::vector<int32_t>> ids;
    std::vector<train::Example> examples;
    for (const Json& text : batches[static_cast<size_t>(step)]) ids.push_back(text["ids"].get<std::vector<int32_t>>());
    for (size_t j = 0; j < ids.size(); ++j)
      examples.push_back({ids[j], batches[static_cast<size_t>(step)][j]["loss_from"].get<int32_t>()});
    const train::StepReport r = trainer.step(examples, step, /*last_token=*/true);
    EXPECT_EQ(r.predictions, expected["tokens"].get<int64_t>());
    EXPECT_NEAR(r.learning_rate, expected["lr"].get<double>(), 1e-12);
    loss_error =
        std::max(loss_error, std::abs(r.loss + c.router_aux_loss_coef * r.balance - expected["loss"].get<double>()));
    norm_error = std::max(norm_error, std::abs(r.grad_norm / expected["grad_norm"].get<double>() - 1));
    if (expected.contains("balance")) {
      EXPECT_NEAR(r.balance, expected["balance"].get<double>(), 1e-5);
    }
    if (expected.contains("counts")) {
      std::vector<int64_t> counts;
      for (const Json& layer : expected["counts"])
        for (const Json& n : layer) counts.push_back(n);
      EXPECT_EQ(std::vector<int64_t>(trainer.pass().expert_counts().begin(), trainer.pass().expert_counts().end()),
                counts)
          << "step " << step;
      size_t layer = 0;
      for (ops::Param& p : model->params().list())
        if (!p.trainable) {
          for (size_t e = 0; e < counts.size() / expected["counts"].size(); ++e)
            EXPECT_NEAR(p.value.f32()[e], expected["bias_after"][layer][e].get<double>(), 1e-6);
          ++layer;
        }
    }
  }
  EXPECT_LE(loss_error, 3e-6);
  EXPECT_LE(norm_error, 3e-6);
  int compared = 0;
  const std::string stem = GetParam().stem();
  const double weight_error = worst_tensor(*model, SafetensorsFile::open(folder / (stem + ".final.safetensors")), "",
                                           &ops::Param::value, &compared);
  EXPECT_LE(weight_error, 5e-6);
  EXPECT_GT(compared, 0);
  std::printf("%-24s losses %.1e  norms %.1e  weights %.1e (%d tensors)\n",
              (folder.filename().string() + "/" + stem).c_str(), loss_error, norm_error, weight_error, compared);
}

std::vector<std::filesystem::path> runs() {
  std::vector<std::filesystem::path> list;
  for (const auto& folder : test::shared_entries("golden/rl/train_run"))
    for (const auto& p : test::shared_entries("golden/rl/train_run/" + folder.filename().string()))
      if (p.extension() == ".jsonl") list.push_back(p);
  return list;
}
std::string run_name(const ::testing::TestParamInfo<std::filesystem::path>& info) {
  return info.param.parent_path().filename().string() + "_" + info.param.stem().string();
}
INSTANTIATE_TEST_SUITE_P(, GoldenRun, ::testing::ValuesIn(runs()), run_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenRun);

class GoldenGrpo : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(GoldenGrpo, TwoUpdates) {
  const auto folder = GetParam().parent_path();
  const Json g = read_json(GetParam()), rollout = read_json(folder / "rollout.json");
  const SafetensorsFile tensors =
      SafetensorsFile::open(std::filesystem::path(GetParam()).replace_extension(".safetensors"));
  auto model = model_from(folder / "config.json", folder / "policy.safetensors");
  ThreadPool pool(2);
  const auto backend = kernels::make_best_backend(pool);

  const Json& p = g["params"];
  rl::GrpoConfig config;
  config.loss_type = p["loss_type"];
  config.importance_sampling_level = p["importance_sampling_level"];
  config.epsilon = p["epsilon"];
  if (p["epsilon_high"].is_number()) config.epsilon_high = p["epsilon_high"].get<double>();
  if (p["delta"].is_number()) config.delta = p["delta"].get<double>();
  config.beta = p["beta"];
  config.use_bias_correction_kl = p["use_bias_correction_kl"];
  config.scale_rewards = p["scale_rewards"];
  config.max_completion_length = p["max_completion_length"];
  config.temperature = p["temperature"];
  config.num_generations = p["num_generations"];
  config.reward_weights = p["reward_weights"].get<std::vector<double>>();
  config.finish();
  train::TrainConfig tc;
  tc.schedule = {.learning_rate = p["learning_rate"], .lr_scheduler_type = "constant"};
  tc.adamw = {.weight_decay = p["weight_decay"],
              .adam_beta1 = p["adam_beta1"],
              .adam_beta2 = p["adam_beta2"],
              .adam_epsilon = p["adam_epsilon"],
              .max_grad_norm = p["max_grad_norm"]};
  train::Trainer trainer(*model, *backend, tc, 2);

  std::vector<std::vector<int32_t>> ids;
  std::vector<train::Example> examples;
  std::vector<int64_t> offsets = {0};
  std::vector<double> rewards;
  for (const Json& a : rollout) {
    ids.push_back(a["prompt_ids"].get<std::vector<int32_t>>());
    for (const Json& t : a["completion_ids"]) ids.back().push_back(t);
    for (const Json& r : a["rewards"]) rewards.push_back(r.is_null() ? std::nan("") : r.get<double>());
    offsets.push_back(offsets.back() + static_cast<int64_t>(a["completion_ids"].size()));
  }
  size_t i = 0;
  for (const Json& a : rollout) examples.push_back({ids[i++], static_cast<int32_t>(a["prompt_ids"].size())});
  const auto flat = [](const Json& rows) {
    std::vector<double> v;
    for (const Json& row : rows)
      for (const Json& x : row) v.push_back(x);
    return v;
  };

  const train::PassOptions options{.temperature = static_cast<float>(config.temperature), .last_token = true};
  const auto logp_of = [&](train::Pass& pass) {
    const auto logp = pass.forward(examples, {.temperature = options.temperature, .gradients = false}).logp;
    return std::vector<float>(logp.begin(), logp.end());
  };
  double logp_error = 0;
  const auto compare = [&](std::span<const float> got, const Json& rows) {
    const auto expected = flat(rows);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t k = 0; k < got.size(); ++k) logp_error = std::max(logp_error, std::abs(double(got[k]) - expected[k]));
  };
  const std::vector<float> old_logp = logp_of(trainer.pass());
  compare(old_logp, g["old_logps"]);
  std::vector<float> ref_logp;
  if (config.beta > 0) {
    auto reference = model_from(folder / "config.json", folder / "reference.safetensors");
    train::Pass pass(*reference, *backend);
    ref_logp = logp_of(pass);
    compare(ref_logp, g["ref_logps"]);
  }
  rl::AnswerBatch<float> batch{.offsets = offsets, .logp = old_logp, .old_logp = old_logp, .ref_logp = ref_logp};
  const rl::Advantages advantages = rl::advantages<float>(rewards, batch, config.advantage_options());
  for (size_t k = 0; k < advantages.advantage.size(); ++k)
    EXPECT_NEAR(advantages.advantage[k], g["advantages"][k].get<double>(), 1e-5);
  batch.advantage = advantages.advantage;

  double loss_error = 0, gradient_error = 0;
  int compared = 0;
  for (size_t u = 0; u < g["updates"].size(); ++u) {
    const Json& expected = g["updates"][u];
    trainer.begin();
    const auto out = trainer.pass().forward(examples, options);
    compare(out.logp, expected["logps"]);
    batch.logp = out.logp;
    rl::StepTotals totals;
    totals.add(batch, config.loss_options());
    std::vector<float> dlogp(out.logp.size());
    rl::LossMetrics metrics;
    const double loss = rl::policy_loss<float>(batch, config.loss_options(), totals, dlogp, {}, metrics);
    loss_error = std::max(loss_error, std::abs(loss - expected["loss"].get<double>()));
    trainer.pass().backward(dlogp);
    gradient_error = std::max(
        gradient_error, worst_tensor(*model, tensors, fmt::format("grad{}.", u + 1), &ops::Param::grad, &compared));
    const train::UpdateReport r = trainer.update(static_cast<int64_t>(u), loss);
    EXPECT_NEAR(r.grad_norm / expected["grad_norm"].get<double>(), 1, 1e-4);
    for (const auto& [name, value] : metrics.named(config.loss_options()))
      if (expected["metrics"].contains(name) && name != "entropy") {
        EXPECT_NEAR(value, expected["metrics"][name].get<double>(), 1e-5) << name;
      }
  }
  const double weight_error = worst_tensor(*model, tensors, "after2.", &ops::Param::value, &compared);
  EXPECT_LE(logp_error, 1e-5);
  EXPECT_LE(loss_error, 1e-6);
  EXPECT_LE(gradient_error, 3e-6);
  EXPECT_LE(weight_error, 2e-6);
  EXPECT_EQ(compared, static_cast<int>(tensors.entries().size()));
  std::printf("%-28s logps %.1e  losses %.1e  gradients %.1e  weights %.1e\n", GetParam().stem().c_str(), logp_error,
              loss_error, gradient_error, weight_error);
}

std::vector<std::filesystem::path> grpo_cases() {
  std::vector<std::filesystem::path> list;
  for (const auto& p : test::shared_entries("golden/rl/grpo_step"))
    if (p.extension() == ".json" && std::filesystem::exists(std::filesystem::path(p).replace_extension(".safetensors")))
      list.push_back(p);
  return list;
}
INSTANTIATE_TEST_SUITE_P(, GoldenGrpo, ::testing::ValuesIn(grpo_cases()), [](const auto& info) {
  std::string name = info.param.stem();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenGrpo);
TEST(GoldenTraining, Present) { PONDER_NEED_SHARED(test::shared_folder() / "golden" / "rl"); }

}  // namespace
}  // namespace ponder
