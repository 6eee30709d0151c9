// A real model, SmolLM2-135M-Instruct in Q4_1: every number of the file, log-probs and greedy answers against float64
// outputs of another implementation, with activations in f32. Its tensors and prompts are found by listing.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "ponder/base/json_value.h"
#include "ponder/engine/generate.h"
#include "ponder/model/weights.h"
#include "tests/shared.h"

namespace ponder {
namespace {

constexpr double kLogits = 1e-3, kLogProbs = 2e-4;  // bounds named by the data's README

std::string model_file() {
  for (const auto& file : test::shared_entries("models"))
    if (file.extension() == ".gguf" && file.filename().string().starts_with("SmolLM2")) return file;
  return "";
}

std::vector<Json> lines(const std::filesystem::path& path) {
  std::vector<Json> out;
  read_json_lines(path, [&](Json& value, int) { out.push_back(std::move(value)); });
  return out;
}

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    golden_ = test::shared_folder() / "golden" / "smollm2";
    PONDER_NEED_SHARED(golden_ / "logits.jsonl");
    if (model_file().empty()) GTEST_SKIP() << "no SmolLM2 in the reference models";
    std::shared_ptr<const model::WeightSource> source = model::WeightSource::open(model_file());
    model_ = std::make_unique<model::Model>(source->config(), model::ModelOptions{.stored = true});
    model::load_stored(*model_, source, *backend_);
  }
  std::filesystem::path golden_;
  ThreadPool pool_{2};
  std::unique_ptr<kernels::Backend> backend_ = kernels::make_best_backend(pool_);
  std::unique_ptr<model::Model> model_;
};

TEST_F(SmolLm2, LogProbsAsExpected) {
  double logits_error = 0, logp_error = 0;
  for (const Json& line : lines(golden_ / "logits.jsonl")) {
    const auto ids = line["ids"].get<std::vector<int32_t>>();
    Arena arena;
    ops::Ctx ctx{.backend = *backend_, .arena = arena};
    model::SequenceBatch rows;
    rows.add(ids);
    std::unique_ptr<model::KvPool> pages;
    const Tensor h = model_->final_norm(ctx, model_->body(ctx, rows.batch(pages, model_->page_layout())));
    const Tensor logits = model_->head(ctx, h);
    std::vector<int32_t> targets(ids.begin() + 1, ids.end());
    targets.push_back(0);  // the last row predicts nothing that is known
    const Tensor logp = ops::token_log_prob(ctx, logits, targets, 1.f, false).logp_R;
    for (size_t t = 0; t < ids.size(); ++t) {
      const auto top = line["top_ids"][t].get<std::vector<int32_t>>();
      const auto expected = line["top_logits"][t].get<std::vector<double>>();
      for (size_t i = 0; i < top.size(); ++i)
        logits_error = std::max(logits_error, std::abs(logits.row(static_cast<int64_t>(t))[top[i]] - expected[i]));
      if (t + 1 < ids.size())
        logp_error = std::max(logp_error, std::abs(logp.f32()[t] - line["next_logprobs"][t].get<double>()));
    }
  }
  std::printf("logits %.1e, log-probs %.1e\n", logits_error, logp_error);
  EXPECT_LE(logits_error, kLogits);
  EXPECT_LE(logp_error, kLogProbs);
}

TEST_F(SmolLm2, GreedyAnswersAreExact) {
  engine::Engine engine(*model_, *backend_, {.pages = 256, .max_sequences = 16});
  std::vector<engine::Request> requests;
  std::vector<std::vector<int32_t>> expected;
  for (const Json& line : lines(golden_ / "logits.jsonl")) {
    if (!line.contains("greedy_ids")) continue;
    expected.push_back(line["greedy_ids"].get<std::vector<int32_t>>());
    engine::Request r{.prompt = line["ids"].get<std::vector<int32_t>>(),
                      .max_new_tokens = static_cast<int>(expected.back().size())};
    r.sampling.temperature = 0;
    requests.push_back(std::move(r));
  }
  const auto answers = engine::generate(engine, std::move(requests));
  for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i][0].tokens, expected[i]) << "prompt " << i;
}

}  // namespace
}  // namespace ponder
