// The contract of docs/numerics.md across modules: sampled tokens, log-probs, gradients and updated weights are the same
// floats whatever the batch, the thread count, the order of pages, the chunks of a prompt, preemption, drafts, the ISA.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "ponder/base/rng.h"

#include "ponder/engine/generate.h"
#include "ponder/train/trainer.h"
#include "tests/tiny_models.h"

namespace ponder {
namespace {

using engine::Answer;
using engine::Engine;
using engine::EngineConfig;
using engine::Request;

struct Setting {
  std::string name;
  int threads = 1;
  EngineConfig engine{.pages = 600, .max_sequences = 512, .max_step_rows = 4096};
  bool alone = false;     // one request after the other, one answer each
  bool scramble = false;  // pages handed out in another order
};

std::vector<std::string> backends() {
  std::vector<std::string> names = {"ref"};
  for (const std::string& isa : kernels::cpu_isas()) names.push_back(isa);
  return names;
}
std::unique_ptr<kernels::Backend> make_backend(const std::string& name, ThreadPool& pool) {
  return name == "ref" ? kernels::make_ref_backend(pool) : kernels::make_cpu_backend(pool, name);
}

// Prompts of 1 to 150 tokens, three answers each, lengths up to 40, a stop token.
std::vector<Request> requests(int count = 12) {
  CounterRng rng(7, Stream::test, 0);
  std::vector<Request> list;
  for (int i = 0; i < count; ++i) {
    Request r;
    const size_t n = i % 4 == 0 ? 64 * (1 + static_cast<size_t>(i) % 2) : 1 + rng.below(150);
    for (size_t t = 0; t < n; ++t) r.prompt.push_back(static_cast<int32_t>(rng.below(53)));
    r.seeds = {rng.next_u64(), rng.next_u64(), rng.next_u64()};
    r.sampling.temperature = i % 3 == 2 ? 0.7f : 1.f;
    if (i == 5) r.sampling.temperature = 0;
    r.max_new_tokens = 5 + static_cast<int>(rng.below(35));
    r.stop_tokens = {3};
    list.push_back(r);
  }
  return list;
}

using Answers = std::vector<std::vector<Answer>>;

Answers run(const model::Model& model, const std::string& backend_name, const Setting& s,
            engine::EngineStats* stats = nullptr) {
  ThreadPool pool(s.threads);
  const auto backend = make_backend(backend_name, pool);
  Engine engine(model, *backend, s.engine);
  if (s.scramble) {  // other requests come and go first: pages return in another order
    auto warm = requests(7);
    for (Request& r : warm) r.prompt.push_back(1);
    engine::generate(engine, warm);
  }
  Answers answers;
  if (s.alone) {
    for (const Request& r : requests()) {
      answers.emplace_back();
      for (uint64_t seed : r.seeds) {
        Request one = r;
        one.seeds = {seed};
        answers.back().push_back(engine::generate(engine, {one})[0][0]);
      }
    }
  } else {
    answers = engine::generate(engine, requests());
  }
  if (stats) *stats = engine.stats();
  EXPECT_EQ(engine.cache().in_use(), 0) << s.name;
  return answers;
}

void expect_equal(const Answers& a, const Answers& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[i].size(); ++j) {
      ASSERT_EQ(a[i][j].tokens, b[i][j].tokens) << what << ": request " << i << " answer " << j;
      ASSERT_EQ(0, std::memcmp(a[i][j].logp.data(), b[i][j].logp.data(), a[i][j].logp.size() * 4))
          << what << ": request " << i << " answer " << j;
      ASSERT_EQ(0, std::memcmp(a[i][j].entropy.data(), b[i][j].entropy.data(), a[i][j].entropy.size() * 4)) << what;
      ASSERT_EQ(a[i][j].finish, b[i][j].finish) << what;
    }
}

class EqualBits : public ::testing::TestWithParam<std::string> {
 protected:
  model::ModelConfig config() const { return GetParam() == "v3" ? test::tiny_v3() : test::tiny_dense(); }
};
INSTANTIATE_TEST_SUITE_P(, EqualBits, ::testing::Values("v3", "dense"), [](const auto& i) { return i.param; });

struct Sampled {
  std::string name;
  model::ModelConfig config;
  model::MlaForm form = model::MlaForm::absorbed;
};
class EqualSampling : public ::testing::TestWithParam<Sampled> {};
INSTANTIATE_TEST_SUITE_P(, EqualSampling,
                         ::testing::Values(Sampled{"v3", test::tiny_v3()}, Sampled{"dense", test::tiny_dense()},
                                           Sampled{"v3_expanded", test::tiny_v3(), model::MlaForm::expanded},
                                           Sampled{"v3_by_token", test::tiny_v3(), model::MlaForm::by_token}),
                         [](const auto& i) { return i.param.name; });

TEST_P(EqualSampling, InAnyWay) {
  const auto model = test::make_model(GetParam().config, {.mla_form = GetParam().form});
  const std::string best = backends().size() > 1 ? backends()[1] : "ref";
  const Answers expected = run(*model, best, {.name = "batch"});
  engine::EngineStats stats;
  expect_equal(expected, run(*model, best, {.name = "alone", .alone = true}), "alone");
  expect_equal(expected, run(*model, best, {.name = "2 threads", .threads = 2}), "2 threads");
  expect_equal(expected, run(*model, best, {.name = "7 threads", .threads = 7}), "7 threads");
  expect_equal(expected, run(*model, best, {.name = "batch of 8", .engine = {.pages = 600, .max_sequences = 8}}),
               "batch of 8");
  expect_equal(expected, run(*model, best, {.name = "chunked", .engine = {.pages = 600, .max_step_rows = 23}}, &stats),
               "prompts in pieces of 23 rows");
  EXPECT_GT(stats.steps, 40);
  expect_equal(expected,
               run(*model, best, {.name = "unshared", .engine = {.pages = 600, .share_prefixes = false}}, &stats),
               "prefixes not shared");
  EXPECT_EQ(stats.shared_tokens, 0);
  expect_equal(expected, run(*model, best, {.name = "preempted", .engine = {.pages = 9}}, &stats), "preempted");
  EXPECT_GT(stats.preempted, 0);
  expect_equal(expected, run(*model, best, {.name = "scrambled", .scramble = true}), "pages in another order");
  expect_equal(expected, run(*model, best, {.name = "remembered", .engine = {.pages = 600, .remember_answers = true}}),
               "answers remembered");
  expect_equal(expected, run(*model, best, {.name = "draft", .engine = {.pages = 600, .draft = true}}, &stats),
               "speculative");
  if (model->mtp_modules()) {
    EXPECT_GT(stats.drafted, 100);
    EXPECT_GT(stats.accepted, 0);
    expect_equal(
        expected,
        run(*model, best, {.name = "draft, few pages", .engine = {.pages = 9, .max_step_rows = 50, .draft = true}}),
        "speculative and preempted");
    // Steps that end between a token and its draft, and pieces that leave one token of a prompt.
    for (const int rows : {7, 17, 33, 63})
      expect_equal(expected,
                   run(*model, best,
                       {.name = "draft, few rows", .engine = {.pages = 600, .max_step_rows = rows, .draft = true}}),
                   "speculative in steps of " + std::to_string(rows));
  }
  for (const std::string& name : backends())
    expect_equal(expected, run(*model, name, {.name = name, .threads = 2}), name);
}

// By token, a prompt is computed as in the expanded form, generated tokens as in the absorbed one; a continuation, whose
// first tokens were generated before, gives what an answer in one piece gives.
TEST(MlaByToken, IsExpandedThenAbsorbed) {
  const auto make = [](model::MlaForm form) { return test::make_model(test::tiny_v3(), {.mla_form = form}); };
  const auto by_token = make(model::MlaForm::by_token), expanded = make(model::MlaForm::expanded),
             absorbed = make(model::MlaForm::absorbed);
  const std::string best = backends().back();
  const Answers mixed = run(*by_token, best, {}), all_expanded = run(*expanded, best, {});
  for (size_t i = 0; i < mixed.size(); ++i)
    for (size_t j = 0; j < mixed[i].size(); ++j) EXPECT_EQ(mixed[i][j].logp[0], all_expanded[i][j].logp[0]);

  // A prompt of one token attends to nothing but itself, and everything behind it is generated.
  ThreadPool pool(2);
  const auto backend = make_backend(best, pool);
  for (const auto& model : {by_token.get(), absorbed.get()}) {
    Engine engine(*model, *backend, {.pages = 64, .remember_answers = true});
    Request whole{.prompt = {5, 9, 2}, .max_new_tokens = 130};
    const Answer answer = engine::generate(engine, {whole})[0][0];
    for (const int kept : {1, 64, 70, 129}) {
      Request rest = whole;
      rest.prompt.insert(rest.prompt.end(), answer.tokens.begin(), answer.tokens.begin() + kept);
      rest.answered = kept;
      rest.max_new_tokens -= kept;
      const Answer end = engine::generate(engine, {rest})[0][0];
      EXPECT_TRUE(std::equal(end.tokens.begin(), end.tokens.end(), answer.tokens.begin() + kept)) << kept;
      EXPECT_TRUE(std::equal(end.logp.begin(), end.logp.end(), answer.logp.begin() + kept)) << kept;
    }
    // The same tokens as a prompt are computed anew: nothing that was generated may be found.
    const int64_t before = engine.stats().shared_tokens;
    Request asked = whole;
    asked.prompt.insert(asked.prompt.end(), answer.tokens.begin(), answer.tokens.end());
    const Answer again = engine::generate(engine, {asked})[0][0];
    Engine fresh(*model, *backend, {.pages = 64});
    EXPECT_EQ(again.logp, engine::generate(fresh, {asked})[0][0].logp);
    EXPECT_EQ(engine.stats().shared_tokens - before, model == absorbed.get() ? 128 : 0);
  }
}

// What the trainer recomputes is what the rollout recorded, for any cut into micro-batches.
TEST_P(EqualBits, RolloutIsTrainer) {
  for (const std::string& name : backends()) {
    const auto model = test::make_model(config(), {.gradients = true});
    ThreadPool pool(2);
    const auto backend = make_backend(name, pool);
    Engine engine(*model, *backend, {.pages = 600});
    const auto asked = requests();
    const Answers answers = engine::generate(engine, asked);
    std::vector<std::vector<int32_t>> ids;
    std::vector<train::Example> examples;
    std::vector<float> recorded;
    for (size_t i = 0; i < answers.size(); ++i) {
      if (asked[i].sampling.temperature != 1.f) continue;
      for (const Answer& a : answers[i]) {
        ids.push_back(asked[i].prompt);
        ids.back().insert(ids.back().end(), a.tokens.begin(), a.tokens.end());
        recorded.insert(recorded.end(), a.logp.begin(), a.logp.end());
      }
    }
    size_t n = 0;
    for (size_t i = 0; i < answers.size(); ++i)
      if (asked[i].sampling.temperature == 1.f)
        for (size_t j = 0; j < answers[i].size(); ++j)
          examples.push_back({ids[n++], static_cast<int32_t>(asked[i].prompt.size())});
    train::Pass pass(*model, *backend);
    for (int64_t tokens : {int64_t{100}, int64_t{1000}, int64_t{100000}}) {
      std::vector<float> recomputed;
      for (const auto part : train::micro_batches(examples, tokens)) {
        const auto logp = pass.forward(part, {.gradients = tokens == 1000}).logp;
        recomputed.insert(recomputed.end(), logp.begin(), logp.end());
      }
      ASSERT_EQ(recorded.size(), recomputed.size());
      EXPECT_EQ(0, std::memcmp(recorded.data(), recomputed.data(), recorded.size() * 4))
          << name << ", micro-batches of " << tokens;
    }
  }
}

std::vector<float> train(const model::ModelConfig& config, const std::string& backend_name, int threads,
                         std::vector<double>* losses) {
  const auto model = test::make_model(config, {.gradients = true});
  ThreadPool pool(threads);
  const auto backend = make_backend(backend_name, pool);
  train::TrainConfig c;
  c.schedule.learning_rate = 3e-3;
  c.adamw.weight_decay = 0.1;
  c.micro_batch_tokens = 300;
  c.router_bias_update_speed = 0.01;
  c.router_aux_loss_coef = 0.01;
  train::Trainer trainer(*model, *backend, c, 6);
  for (int step = 0; step < 6; ++step) {
    CounterRng rng(3, Stream::test, static_cast<uint64_t>(step));
    std::vector<std::vector<int32_t>> ids(9);
    std::vector<train::Example> examples;
    for (auto& text : ids) {
      const size_t n = 3 + rng.below(140);
      for (size_t t = 0; t < n; ++t) text.push_back(static_cast<int32_t>(rng.below(53)));
      examples.push_back({text, static_cast<int32_t>(1 + rng.below(2))});
    }
    const train::StepReport r = trainer.step(examples, step);
    losses->insert(losses->end(), {r.loss, r.mtp_loss, r.balance, r.grad_norm});
  }
  std::vector<float> weights;
  for (const ops::Param& p : model->params().list())
    weights.insert(weights.end(), p.value.f32(), p.value.f32() + p.value.size());
  return weights;
}

TEST_P(EqualBits, Training) {
  std::vector<double> expected_losses;
  const auto expected = train(config(), "ref", 1, &expected_losses);
  for (const std::string& name : backends())
    for (int threads : {1, 2, 7}) {
      std::vector<double> losses;
      const auto weights = train(config(), name, threads, &losses);
      EXPECT_EQ(expected_losses, losses) << name << ", " << threads << " threads";
      ASSERT_EQ(expected.size(), weights.size());
      EXPECT_EQ(0, std::memcmp(expected.data(), weights.data(), weights.size() * 4))
          << name << ", " << threads << " threads";
    }
}

}  // namespace
}  // namespace ponder
