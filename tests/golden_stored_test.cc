// Checkpoints whose weights stay in the type of their file (BF16, FP8, GGUF's blocks) against float64 outputs of other
// implementations, and against the same model expanded to f32, bit for bit. Cases are found by listing the folders.
#include <gtest/gtest.h>

#include <cmath>

#include "ponder/base/file.h"
#include "ponder/engine/generate.h"
#include "ponder/model/convert.h"
#include "ponder/model/weights.h"
#include "tests/shared.h"

namespace ponder {
namespace {

using model::MlaForm;
using model::Model;

constexpr double kLogits = 2e-4, kGgufLogits = 1e-4;  // bounds named by the data's READMEs for float32

struct Case {
  std::filesystem::path model, expected;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const auto& folder : test::shared_entries("golden/models"))
    if (std::filesystem::exists(folder / "expected.safetensors"))
      out.push_back({folder, folder / "expected.safetensors"});
  for (const auto& file : test::shared_entries("golden/gguf")) {
    if (file.extension() != ".gguf") continue;
    // Two exports of one model share their outputs: the longest name that fits.
    std::string stem = file.stem();
    while (!stem.empty() && !std::filesystem::exists(file.parent_path() / (stem + ".expected.safetensors")))
      stem.pop_back();
    if (!stem.empty()) out.push_back({file, file.parent_path() / (stem + ".expected.safetensors")});
  }
  return out;
}

struct Machine {
  ThreadPool pool{2};
  std::unique_ptr<kernels::Backend> backend = kernels::make_best_backend(pool);
  Arena arena;
  ops::Ctx ctx{.backend = *backend, .arena = arena};
};

std::vector<int32_t> ints(const TensorEntry& e) {
  std::vector<int32_t> v(static_cast<size_t>(e.size()));
  read_i32(e, v.data());
  return v;
}

std::vector<float> logits_of(Machine& m, const Model& model, const TensorEntry& ids_entry) {
  const auto ids = ints(ids_entry);
  const int64_t sequences = ids_entry.dim[0], length = ids_entry.dim[1];
  model::SequenceBatch rows;
  for (int64_t b = 0; b < sequences; ++b) rows.add({ids.data() + b * length, static_cast<size_t>(length)});
  std::unique_ptr<model::KvPool> pages;
  m.arena.reset();
  model::Batch batch = rows.batch(pages, model.page_layout());
  if (model.mla_form() == MlaForm::by_token) batch.prompt_spans = batch.spans.size();
  const Tensor h = model.final_norm(m.ctx, model.body(m.ctx, batch));
  const Tensor logits = model.head(m.ctx, h);
  return {logits.f32(), logits.f32() + logits.size()};
}

std::unique_ptr<Model> stored_model(Machine& m, const std::string& path, MlaForm form) {
  std::shared_ptr<const model::WeightSource> source = model::WeightSource::open(path);
  auto out = std::make_unique<Model>(source->config(), model::ModelOptions{.stored = true, .mla_form = form});
  model::load_stored(*out, source, *m.backend);
  return out;
}

double max_difference(const std::vector<float>& a, const TensorEntry& e) {
  std::vector<float> b(static_cast<size_t>(e.size()));
  read_f32(e, b.data());
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double(a[i]) - b[i]);
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

void PrintTo(const Case& c, std::ostream* out) { *out << c.model.filename(); }

class GoldenStored : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenStored, LogitsAsExpectedAndAsExpandedWeightsGive) {
  const auto expected = SafetensorsFile::open(GetParam().expected);
  const bool gguf = GetParam().model.extension() == ".gguf";
  for (const MlaForm form : {MlaForm::absorbed, MlaForm::expanded, MlaForm::by_token}) {
    Machine m;
    const auto stored = stored_model(m, GetParam().model, form);
    const auto logits = logits_of(m, *stored, expected.at("input_ids"));
    const double error = max_difference(logits, expected.at("logits"));
    EXPECT_LE(error, gguf ? kGgufLogits : kLogits);
    std::printf("%s %s: logits %.1e\n", GetParam().model.filename().c_str(), model::mla_form_name(form), error);
    const auto trainable = model::load_model(GetParam().model, {.mla_form = form});
    EXPECT_TRUE(logits == logits_of(m, *trainable, expected.at("input_ids")));
    if (!stored->config().mla()) break;
  }
}

// Multi-token prediction proposes, the model decides: the same tokens as without it, greedy and sampled.
TEST_P(GoldenStored, SpeculativeIsPlain) {
  Machine m;
  const auto model = stored_model(m, GetParam().model, MlaForm::by_token);
  if (model->mtp_modules() == 0) GTEST_SKIP() << "no MTP";
  const auto generate = [&](bool draft, float temperature, engine::EngineStats& stats) {
    engine::Engine engine(*model, *m.backend, {.pages = 64, .max_sequences = 8, .draft = draft});
    std::vector<engine::Request> requests;
    for (int32_t i = 0; i < 4; ++i) {
      engine::Request r{.prompt = {5 + i, 9, 2 * i}, .seeds = {1, 2}, .max_new_tokens = 60};
      r.sampling.temperature = temperature;
      requests.push_back(std::move(r));
    }
    auto answers = engine::generate(engine, std::move(requests));
    stats = engine.stats();
    return answers;
  };
  for (const float temperature : {0.f, 1.f}) {
    engine::EngineStats plain, drafted;
    const auto a = generate(false, temperature, plain), b = generate(true, temperature, drafted);
    for (size_t i = 0; i < a.size(); ++i)
      for (size_t j = 0; j < a[i].size(); ++j) {
        EXPECT_EQ(a[i][j].tokens, b[i][j].tokens);
        EXPECT_EQ(a[i][j].logp, b[i][j].logp);
      }
    EXPECT_GT(drafted.drafted, 0);
    std::printf("%s: temperature %.0f, %lld of %lld drafts accepted\n", GetParam().model.filename().c_str(),
                temperature, static_cast<long long>(drafted.accepted), static_cast<long long>(drafted.drafted));
  }
}

// GGUF and back: every number stays, whatever the format makes of names, stacks and rows.
TEST_P(GoldenStored, ConvertedModelsAreTheSame) {
  TempFolder folder;
  const auto expected = SafetensorsFile::open(GetParam().expected);
  Machine m;
  const auto source = model::WeightSource::open(GetParam().model);
  const auto before = logits_of(m, *stored_model(m, GetParam().model, MlaForm::absorbed), expected.at("input_ids"));
  const std::string gguf = folder.path() + "/model.gguf", again = folder.path() + "/again";
  // GGUF has no FP8 and turns it into BF16, which rounds; F32 does not.
  const std::string config = GetParam().model / "config.json";
  const bool fp8 = path_exists(config) && read_file(config).find("quantization_config") != std::string::npos;
  model::write_gguf_model(*source, gguf, model::TypeScheme(fp8 ? "f32" : "keep"), {}, m.pool);
  EXPECT_TRUE(before == logits_of(m, *stored_model(m, gguf, MlaForm::absorbed), expected.at("input_ids")));
  make_folders(again);
  model::write_safetensors_model(*model::WeightSource::open(gguf), again, model::TypeScheme("f32"), m.pool);
  EXPECT_TRUE(before == logits_of(m, *stored_model(m, again, MlaForm::absorbed), expected.at("input_ids")));
}

INSTANTIATE_TEST_SUITE_P(, GoldenStored, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.model.filename();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenStored);

}  // namespace
}  // namespace ponder
