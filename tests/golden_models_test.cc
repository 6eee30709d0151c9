// Every checkpoint of golden/models against float64 outputs of another implementation: logits, loss,
// hidden states, gradients, greedy continuations, MTP. Cases are found by listing the folder.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <numeric>

#include "ponder/base/file.h"
#include "ponder/model/weights.h"
#include "tests/shared.h"

namespace ponder {
namespace {

using model::MlaForm;
using model::Model;
using ops::Ctx;
using ops::Tape;

constexpr double kLogits = 2e-4, kLoss = 1e-5, kGradient = 5e-5;  // bounds named by the data's README for float32

struct Machine {
  ThreadPool pool{2};
  std::unique_ptr<kernels::Backend> backend = kernels::make_best_backend(pool);
  Arena arena;
  Tape tape{arena};
  Ctx ctx{*backend, arena, nullptr};
};

std::vector<int32_t> ints(const TensorEntry& e) {
  std::vector<int32_t> v(static_cast<size_t>(e.size()));
  read_i32(e, v.data());
  return v;
}
std::vector<double> doubles(const TensorEntry& e) {
  std::vector<double> v(static_cast<size_t>(e.size()));
  read_f64(e, v.data());
  return v;
}

double max_difference(const Tensor& t, const double* expected) {
  double worst = 0;
  for (int64_t r = 0, i = 0; r < t.rows(); ++r)
    for (int64_t c = 0; c < t.cols(); ++c, ++i) {
      const double d = std::abs(double(t.row(r)[c]) - expected[i]);
      if (!(d <= worst)) worst = d;
    }
  return worst;
}

class GoldenModel : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  void run(MlaForm form);
};

void GoldenModel::run(MlaForm form) {
  const auto expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  auto model = model::load_model(GetParam(), {.gradients = true, .mla_form = form});
  if (form == MlaForm::expanded && !model->config().mla()) GTEST_SKIP() << "no MLA";
  Machine s;
  s.ctx.tape = &s.tape;
  for (const TensorEntry& e : expected.entries())  // FP8: value times scale, exactly
    if (e.name.starts_with("dequant.")) {
      std::vector<float> wanted(static_cast<size_t>(e.size())), got(wanted.size());
      read_f32(e, wanted.data());
      model::WeightSource::open(GetParam())->find(e.name.substr(8)).read_f32(got.data());
      EXPECT_TRUE(wanted == got) << e.name;
    }
  const TensorEntry& ids_entry = expected.at("input_ids");
  const auto ids = ints(ids_entry);
  const int64_t sequences = ids_entry.dim[0], length = ids_entry.dim[1];

  model::SequenceBatch rows;
  for (int64_t b = 0; b < sequences; ++b) rows.add({ids.data() + b * length, static_cast<size_t>(length)});
  std::unique_ptr<model::KvPool> pages;
  const model::Batch batch = rows.batch(pages, model->page_layout());
  std::vector<Tensor> residuals;
  model::Observed observed = model->observe();
  observed.residuals = &residuals;
  const Tensor h = model->final_norm(s.ctx, model->body(s.ctx, batch, &observed));
  const Tensor logits = model->head(s.ctx, h);

  const double logits_error = max_difference(logits, doubles(expected.at("logits")).data());
  EXPECT_LE(logits_error, kLogits);
  double hidden_error = 0;
  for (size_t l = 0; l < residuals.size(); ++l)
    if (const TensorEntry* e = expected.find("hidden." + std::to_string(l))) {
      hidden_error = std::max(hidden_error, max_difference(residuals[l], doubles(*e).data()));
      EXPECT_LE(hidden_error, kLogits) << "layer " << l;
    }

  // loss: all rows but the last of each sequence predict the next token
  const auto predict = [&](const Tensor& logits, int64_t per_sequence, int64_t ahead, double scale,
                           std::vector<float>& weight) {
    std::vector<int32_t> targets(static_cast<size_t>(logits.rows()), 0);
    weight.assign(targets.size(), 0.f);
    double n = 0;
    for (int64_t b = 0; b < sequences; ++b)
      for (int64_t t = 0; t + ahead < length && t < per_sequence; ++t) {
        targets[static_cast<size_t>(b * per_sequence + t)] = ids[static_cast<size_t>(b * length + t + ahead)];
        weight[static_cast<size_t>(b * per_sequence + t)] = 1;
        ++n;
      }
    auto* kept = static_cast<int32_t*>(s.arena.allocate(targets.size() * 4));
    std::copy(targets.begin(), targets.end(), kept);
    const Tensor logp = ops::token_log_prob(s.ctx, logits, {kept, targets.size()}, 1.f, false).logp_R;
    double loss = 0;
    for (size_t i = 0; i < weight.size(); ++i) loss -= weight[i] * double(logp.f32()[i]) / n;
    for (float& w : weight) w = static_cast<float>(-w / n * scale);
    return std::pair{loss, logp};
  };
  std::vector<float> weight, mtp_weight;
  const auto [loss, logp] = predict(logits, length, 1, 1, weight);
  EXPECT_NEAR(loss, doubles(expected.at("loss"))[0], kLoss);
  double mtp_error = 0;
  model::SequenceBatch next_rows;
  std::vector<int32_t> kept_rows;
  std::unique_ptr<model::KvPool> mtp_pages;
  Tensor mtp_logp;
  if (model->mtp_modules()) {
    for (int64_t b = 0; b < sequences; ++b) {
      next_rows.add({ids.data() + b * length + 1, static_cast<size_t>(length - 1)});
      for (int64_t t = 0; t + 1 < length; ++t) kept_rows.push_back(static_cast<int32_t>(b * length + t));
    }
    const model::Batch next = next_rows.batch(mtp_pages, model->page_layout());
    const Tensor mtp_logits =
        model->head(s.ctx, model->mtp(s.ctx, 0, ops::gather_rows(s.ctx, h, kept_rows), next, &observed));
    mtp_error = max_difference(mtp_logits, doubles(expected.at("mtp_logits")).data());
    EXPECT_LE(mtp_error, kLogits);
    const auto [mtp_loss, logp2] = predict(mtp_logits, length - 1, 2, 0.3, mtp_weight);
    EXPECT_NEAR(mtp_loss, doubles(expected.at("mtp_loss"))[0], kLoss);
    EXPECT_NEAR(loss + 0.3 * mtp_loss, doubles(expected.at("total_loss"))[0], kLoss);
    mtp_logp = logp2;
    s.tape.seed(mtp_logp, mtp_weight.data());
  }
  s.tape.seed(logp, weight.data());
  s.tape.backward(s.ctx);

  double gradient_error = 0;
  int gradients = 0;
  for (const ops::Param& p : model->params().list())
    for (const ops::Slice& slice : p.slices)
      if (const TensorEntry* e = expected.find("grad." + slice.name)) {
        const auto g = doubles(*e);
        ASSERT_EQ(static_cast<int64_t>(g.size()), slice.size());
        double difference = 0, norm = 0;
        for (size_t i = 0; i < g.size(); ++i) {
          const double d = double(p.grad.f32()[slice.offset + static_cast<int64_t>(i)]) - g[i];
          difference += d * d;
          norm += g[i] * g[i];
        }
        const double relative = std::sqrt(difference / std::max(norm, 1e-300));
        EXPECT_LE(relative, kGradient) << slice.name;
        gradient_error = std::max(gradient_error, relative);
        ++gradients;
      }
  int stored = 0;
  for (const TensorEntry& e : expected.entries()) stored += e.name.rfind("grad.", 0) == 0;
  EXPECT_EQ(gradients, stored) << "every gradient in the file is compared";
  std::printf("%-28s %-8s logits %.1e  hidden %.1e  mtp %.1e  gradients %.1e (%d)\n", GetParam().filename().c_str(),
              form == MlaForm::absorbed ? "absorbed" : "expanded", logits_error, hidden_error, mtp_error,
              gradient_error, gradients);
}

TEST_P(GoldenModel, Absorbed) { run(MlaForm::absorbed); }
TEST_P(GoldenModel, Expanded) { run(MlaForm::expanded); }

// Greedy decoding token by token through pages, after the prompt in one piece.
TEST_P(GoldenModel, Greedy) {
  const auto expected = SafetensorsFile::open(GetParam() / "expected.safetensors");
  if (!expected.find("greedy_ids")) GTEST_SKIP() << "no continuation stored";
  auto model = model::load_model(GetParam(), {});
  Machine s;
  std::vector<int32_t> ids = ints(expected.at("greedy_prompt"));
  const auto wanted = ints(expected.at("greedy_ids"));
  const int64_t total = static_cast<int64_t>(ids.size() + wanted.size());
  model::KvPool pages(model->page_layout(), model->kv_layers(), total / kernels::kPageSize + 1);
  std::vector<int32_t> page_list(static_cast<size_t>(pages.pages())), positions(static_cast<size_t>(total)), got;
  std::iota(page_list.begin(), page_list.end(), 0);
  std::iota(positions.begin(), positions.end(), 0);
  for (size_t computed = 0; got.size() < wanted.size();) {
    s.arena.reset();
    const size_t n = ids.size() - computed;
    const kernels::Span span{0, static_cast<int32_t>(n), static_cast<int32_t>(computed), page_list.data()};
    const model::Batch batch{{ids.data() + computed, n}, {positions.data() + computed, n}, {&span, 1}, &pages};
    const Tensor x = model->body(s.ctx, batch);
    const Tensor logits = model->head(s.ctx, model->final_norm(s.ctx, x.row_range(x.rows() - 1, 1)));
    computed = ids.size();
    got.push_back(static_cast<int32_t>(std::max_element(logits.f32(), logits.f32() + logits.cols()) - logits.f32()));
    ids.push_back(got.back());
  }
  EXPECT_EQ(got, wanted);
}

// What is written is read back to the same bits, under the same names and shapes.
TEST_P(GoldenModel, RoundTrip) {
  const auto model = model::load_model(GetParam(), {});
  const TempFolder folder;
  model::save_model(*model, folder.path(), DType::f32);
  const auto again = model::load_model(folder.path(), {});
  EXPECT_EQ(model::WeightSource::open(GetParam())->names(), model::WeightSource::open(folder.path())->names());
  auto a = model->params().list().begin();
  for (const ops::Param& b : again->params().list()) {
    EXPECT_EQ(0, std::memcmp(a->value.data, b.value.data, static_cast<size_t>(b.value.size()) * 4)) << b.name;
    ++a;
  }
}

std::vector<std::filesystem::path> golden_folders() {
  std::vector<std::filesystem::path> folders;
  for (const auto& p : test::shared_entries("golden/models"))
    if (std::filesystem::exists(p / "config.json") && std::filesystem::exists(p / "expected.safetensors"))
      folders.push_back(p);
  return folders;
}
INSTANTIATE_TEST_SUITE_P(, GoldenModel, ::testing::ValuesIn(golden_folders()),
                         [](const auto& info) { return info.param.filename().string(); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenModel);
TEST(GoldenModels, Present) { PONDER_NEED_SHARED(test::shared_folder() / "golden" / "models"); }

}  // namespace
}  // namespace ponder
