// The loop learns, and rollout is trainer while it does.
#include <gtest/gtest.h>

#include <cstring>

#include "ponder/model/source.h"
#include "ponder/rl/step.h"
#include "ponder/train/data.h"
#include "tests/tiny_models.h"

namespace ponder {
namespace {

// The dense model of the recipe (0.29 M parameters).
model::ModelConfig dense(int vocab) {
  model::ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = vocab;
  c.hidden_size = 96;
  c.intermediate_size = 192;
  c.num_hidden_layers = 3;
  c.num_attention_heads = c.num_key_value_heads = 3;
  c.partial_rotary_factor = 0.5;
  c.tie_word_embeddings = true;
  return c;
}

struct Lab {
  explicit Lab(const model::ModelConfig& config) : model(test::make_model(config, {.gradients = true}, 0)) {}
  ThreadPool pool{ThreadPool::available_cores()};
  std::unique_ptr<kernels::Backend> backend = kernels::make_best_backend(pool);
  std::unique_ptr<model::Model> model;

  void pretrain(const tasks::Task& task, int64_t tokens) {
    const tasks::Corpus corpus = tasks::make_corpus(task, tokens, 0);
    const train::TextSet texts{corpus.ids, corpus.offsets};
    const train::BatchPlan plan = train::plan_batches(texts, 2048, true, 0, 0);
    train::TrainConfig c;
    c.adamw = {.weight_decay = 0.01, .adam_beta2 = 0.95};
    c.schedule = {.learning_rate = 4e-3,
                  .lr_scheduler_type = "cosine",
                  .warmup_steps = 100,
                  .warmup_offset = 1,
                  .min_lr_ratio = 0.05};
    c.router_bias_update_speed = 0.002;
    train::Trainer trainer(*model, *backend, c, plan.batches());
    for (int64_t step = 0; step < plan.batches(); ++step) {
      std::vector<train::Example> examples;
      for (int32_t i : plan.batch(step)) examples.push_back({texts.text(i), 1});
      trainer.step(examples, step);
    }
  }
};

rl::GrpoSetup recipe() {
  rl::GrpoSetup s;
  s.grpo.num_generations = 12;
  s.grpo.num_prompts_per_step = 32;
  s.grpo.epsilon_high = 0.28;
  s.grpo.max_completion_length = 240;
  s.grpo.dynamic_sampling = true;  // groups of one reward are left out of loss and denominator
  s.grpo.max_num_gen_batches = 1;
  s.train.adamw = {.adam_beta2 = 0.99};
  s.train.schedule = {.learning_rate = 4e-4, .warmup_steps = 5, .warmup_offset = 1};
  return s;
}

double metric(const rl::GrpoReport& r, const std::string& name) {
  for (const auto& [key, value] : r.metrics)
    if (key == name) return value;
  ADD_FAILURE() << "no metric " << name;
  return 0;
}

// A base that only guesses, RL on 32 fixed problems: the reward must rise to nearly 1. (With fresh problems at every step it
// does not: guesses are learned by heart and do not carry over.)
TEST(Reinforcement, LoopLearnsFixedProblems) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12, .direct_share = 1});
  Lab lab(dense(task->tokenizer().vocab_size()));
  lab.pretrain(*task, 900'000);
  rl::GrpoSetup setup = recipe();
  setup.fixed_problems = 32;
  train::Trainer trainer(*lab.model, *lab.backend, setup.train, 25);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 2000});
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  double first = 0, last = 0;
  for (int64_t step = 0; step < 25; ++step) {
    const double reward = metric(grpo.step(step), "reward");
    if (step < 3) first += reward / 3;
    if (step >= 22) last += reward / 3;
  }
  std::printf("reward %.2f -> %.2f\n", first, last);
  EXPECT_LT(first, 0.8);
  EXPECT_GT(last, 0.9);
}

// 50 steps with updates on a V3-shaped model with every option that touches the weights: Grpo::step throws if a single
// recomputed log-prob differs from the recorded one.
TEST(Reinforcement, RolloutIsTrainerFor50Steps) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12});
  model::ModelConfig config = test::tiny_v3();
  config.vocab_size = task->tokenizer().vocab_size();
  Lab lab(config);
  lab.pretrain(*task, 60'000);
  rl::GrpoSetup setup = recipe();
  setup.grpo.num_generations = 6;
  setup.grpo.num_prompts_per_step = 8;
  setup.grpo.max_completion_length = 120;
  setup.grpo.max_num_gen_batches = 2;
  setup.grpo.beta = 0.01;
  setup.grpo.sync_ref_model = true;
  setup.grpo.ref_model_sync_steps = 7;
  setup.grpo.ref_model_mixup_alpha = 1;
  setup.grpo.entropy_coef = 0.001;
  setup.grpo.temperature = 0.9;
  setup.rewards.resize(2);  // a weak base: some reward that always varies
  setup.rewards[1].name = "random";
  setup.train.router_bias_update_speed = 0.001;
  setup.train.micro_batch_tokens = 700;
  setup.train.schedule.learning_rate = 1e-3;
  train::Trainer trainer(*lab.model, *lab.backend, setup.train, 50);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 60, .max_step_rows = 300, .draft = true});
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  const uint64_t version = lab.model->params().version();
  for (int64_t step = 0; step < 50; ++step) {
    const rl::GrpoReport r = grpo.step(step);
    ASSERT_EQ(metric(r, "sampling/sampling_logp_difference/max"), 0) << "step " << step;
    ASSERT_FALSE(r.skipped) << r.offender;
    ASSERT_GT(metric(r, "grad_norm"), 0);
  }
  EXPECT_GE(lab.model->params().version(), version + 50);
}

// Several updates on one rollout: from the second on the ratio moves and clipping acts; the tokens still come from one version.
TEST(Reinforcement, SeveralStepsPerRollout) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12});
  model::ModelConfig config = test::tiny_dense();
  config.vocab_size = task->tokenizer().vocab_size();
  Lab lab(config);
  lab.pretrain(*task, 60'000);
  rl::GrpoSetup setup = recipe();
  setup.grpo.num_generations = 4;
  setup.grpo.num_prompts_per_step = 4;
  setup.grpo.steps_per_generation = 2;
  setup.grpo.num_iterations = 2;
  setup.grpo.dynamic_sampling = false;
  setup.grpo.max_completion_length = 60;
  setup.rewards.resize(1);
  setup.rewards[0].name = "random";
  setup.train.schedule.learning_rate = 3e-3;
  train::Trainer trainer(*lab.model, *lab.backend, setup.train, 8);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 100});
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  for (int64_t step = 0; step < 8; ++step) {
    EXPECT_EQ(grpo.rollout_boundary(step), step % 4 == 0);
    const rl::GrpoReport r = grpo.step(step);
    EXPECT_EQ(metric(r, "staleness"), step % 4);
    const bool checked = std::any_of(r.metrics.begin(), r.metrics.end(),
                                     [](const auto& m) { return m.first == "sampling/sampling_logp_difference/max"; });
    EXPECT_EQ(checked, step % 4 == 0);
  }
}

// Rewards that read an answer see its text without the end token: they agree with the task's own grade.
TEST(Reinforcement, RewardsOfTextAgreeWithTheTask) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12, .direct_share = 1});
  Lab lab(dense(task->tokenizer().vocab_size()));
  lab.pretrain(*task, 300'000);
  rl::GrpoSetup setup = recipe();
  setup.grpo.num_prompts_per_step = 8;
  setup.grpo.dynamic_sampling = false;
  setup.grpo.max_completion_length = 40;
  setup.rewards.resize(3);
  setup.rewards[1].name = "countdown";
  setup.rewards[2] = setup.rewards[1];
  train::Trainer trainer(*lab.model, *lab.backend, setup.train, 1);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 1000});
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  const rl::GrpoReport r = grpo.step(0);
  size_t answers = 0, right = 0;
  for (const rl::Group& g : r.rollout->groups)
    for (const rl::RolloutAnswer& a : g.answers) {
      if (a.grade.right()) {
        EXPECT_EQ(r.reward[3 * answers + 1], 1) << task->tokenizer().decode(a.completion());
      }
      right += a.grade.right();
      ++answers;
    }
  EXPECT_GT(right, 0u);
  EXPECT_NEAR(metric(r, "rewards/accuracy/mean"), static_cast<double>(right) / static_cast<double>(answers), 1e-12);
  EXPECT_GE(metric(r, "rewards/countdown/mean"), metric(r, "rewards/accuracy/mean"));
  EXPECT_EQ(metric(r, "rewards/countdown_2/std"), metric(r, "rewards/countdown/std"));
}

// Fewer answers than optimizer steps: parts without answers change nothing, and the first one with some is checked.
TEST(Reinforcement, StepsWithoutAnswersChangeNothing) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12});
  model::ModelConfig config = test::tiny_v3();
  config.vocab_size = task->tokenizer().vocab_size();
  Lab lab(config);
  rl::GrpoSetup setup = recipe();
  setup.grpo.num_generations = 2;
  setup.grpo.num_prompts_per_step = 1;
  setup.grpo.steps_per_generation = 8;
  setup.grpo.max_completion_length = 20;
  setup.rewards.resize(1);
  setup.rewards[0].name = "random";
  setup.train.adamw.weight_decay = 100;
  setup.train.mtp_loss_weight = 0;
  train::Trainer trainer(*lab.model, *lab.backend, setup.train, 8);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 100});
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  std::vector<std::vector<float>> before;
  for (const ops::Param& p : lab.model->params().list())
    before.emplace_back(p.value.f32(), p.value.f32() + p.value.size());
  int updates = 0;
  for (int64_t step = 0; step < 8; ++step) {
    const uint64_t version = lab.model->params().version();
    const rl::GrpoReport r = grpo.step(step);
    const bool moved = lab.model->params().version() != version;
    EXPECT_EQ(moved, metric(r, "grad_norm") > 0) << step;
    if (moved && updates++ == 0) {
      EXPECT_EQ(metric(r, "sampling/sampling_logp_difference/max"), 0);
    }
  }
  EXPECT_GT(updates, 0);
  EXPECT_LT(updates, 8);
  // MTP modules are not in the loss: not even weight decay touches them.
  size_t i = 0, same = 0;
  for (const ops::Param& p : lab.model->params().list()) {
    const bool unchanged = std::memcmp(before[i++].data(), p.value.f32(), static_cast<size_t>(p.value.size()) * 4) == 0;
    const bool mtp = model::layer_of(p.name) >= config.num_hidden_layers;
    EXPECT_TRUE(unchanged || !mtp) << p.name;
    same += unchanged && mtp;
  }
  EXPECT_GT(same, 0u);
}

// Settings that are not the loss's own reach the sampler and the gradient.
TEST(Reinforcement, PenaltiesAndBalanceAct) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12});
  model::ModelConfig config = test::tiny_v3();
  config.vocab_size = task->tokenizer().vocab_size();
  const auto first_step = [&](double repetition_penalty, double router_aux_loss_coef) {
    Lab lab(config);
    rl::GrpoSetup setup = recipe();
    setup.grpo.num_generations = 4;
    setup.grpo.num_prompts_per_step = 2;
    setup.grpo.max_completion_length = 20;
    setup.grpo.repetition_penalty = repetition_penalty;
    setup.rewards.resize(1);
    setup.rewards[0].name = "random";
    setup.train.router_aux_loss_coef = router_aux_loss_coef;
    train::Trainer trainer(*lab.model, *lab.backend, setup.train, 1);
    engine::Engine engine(*lab.model, *lab.backend, {.pages = 100});
    return rl::Grpo(trainer, engine, *task, setup, *lab.backend).step(0).metrics;
  };
  const auto value = [](const rl::Metrics& m, const char* name) { return metric({.metrics = m}, name); };
  const rl::Metrics plain = first_step(1, 0), penalty = first_step(1.7, 0), balance = first_step(1, 5);
  EXPECT_EQ(value(plain, "grad_norm"), value(first_step(1, 0), "grad_norm"));
  EXPECT_NE(value(plain, "entropy"), value(penalty, "entropy"));
  EXPECT_EQ(value(plain, "entropy"), value(balance, "entropy"));
  EXPECT_NE(value(plain, "grad_norm"), value(balance, "grad_norm"));
  EXPECT_GT(value(balance, "moe/balance_loss"), 0);
}

TEST(Reinforcement, WhatCannotBeMeantIsRefused) {
  const auto task = tasks::make_task({.name = "countdown", .numbers_to = 12});
  model::ModelConfig config = test::tiny_dense();
  config.vocab_size = task->tokenizer().vocab_size();
  Lab lab(config);
  engine::Engine engine(*lab.model, *lab.backend, {.pages = 100});
  train::Trainer trainer(*lab.model, *lab.backend, {}, 1);
  rl::GrpoSetup setup = recipe();
  setup.grpo.max_prompt_length = 2;
  rl::Grpo grpo(trainer, engine, *task, setup, *lab.backend);
  EXPECT_THROW(grpo.step(0), Error) << "all prompts are longer";
  setup.rewards.resize(1);
  setup.rewards[0].name = "soft_overlong";  // its cache of 4,096 tokens is more than an answer may have
  EXPECT_THROW(rl::Grpo(trainer, engine, *task, setup, *lab.backend), Error);
}

}  // namespace
}  // namespace ponder
