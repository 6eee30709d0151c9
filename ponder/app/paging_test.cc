// Experts that stay in their file (load_stored with little room, `--allow-paging`) against packed ones, to the bit, for
// GGUF's blocks and for safetensors; and what is said about a model before it is loaded.
#include "ponder/app/paging.h"

#include <gtest/gtest.h>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/engine/generate.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/model/convert.h"
#include "ponder/model/weights.h"
#include "tests/tiny_models.h"

namespace ponder::app {
namespace {

using kernels::Activations;

class Paging : public ::testing::Test {
 protected:
  // A checkpoint of a V3 shape whose rows are whole blocks of every type: *.gguf, or a folder of safetensors.
  std::string checkpoint(const std::string& name, const char* type) {
    model::ModelConfig c = test::tiny_v3();
    c.n_routed_experts = 32;
    c.hidden_size = c.moe_intermediate_size = c.intermediate_size = 256;
    const auto source = model::random_source(c, 1);
    const std::string path = folder_.file(name);
    if (path.ends_with(".gguf")) return model::write_gguf_model(*source, path, model::TypeScheme(type), {}, pool_);
    make_folders(path);
    model::write_safetensors_model(*source, path, model::TypeScheme(type), pool_);
    return path;
  }

  // Answers of a few sequences: prompts in which all experts are wanted, then single rows, with drafts by the MTP module.
  std::vector<std::vector<engine::Answer>> answers(const model::WeightSource& source, const kernels::Backend& backend,
                                                   Activations activations, int64_t room, size_t* mapped) {
    model::Model model(source.config(), {.stored = true});
    // The model keeps its source; this one lives longer.
    model::load_stored(model, {std::shared_ptr<void>(), &source}, backend, {}, room);
    *mapped = 0;
    for (const ops::Param& p : model.params().list())
      if (p.stored) *mapped += p.stored->mapped.size();
    engine::Engine engine(model, backend, {.pages = 32, .max_sequences = 4, .activations = activations, .draft = true});
    std::vector<engine::Request> requests;
    for (int32_t i = 0; i < 4; ++i) {
      engine::Request r{.prompt = std::vector<int32_t>(static_cast<size_t>(1 + 20 * i), i), .seeds = {1}};
      for (size_t j = 0; j < r.prompt.size(); ++j) r.prompt[j] = static_cast<int32_t>(j * 7 + i) % 53;
      r.max_new_tokens = 24;
      r.sampling.temperature = 1;
      requests.push_back(std::move(r));
    }
    return engine::generate(engine, std::move(requests));
  }

  void expect_same_answers(const std::string& path) {
    const auto source = model::WeightSource::open(path);
    const int64_t all = weight_needs(*source, *backend_, {.stored = true}).routed_packed;
    ASSERT_GT(all, 0);
    for (const Activations activations : {Activations::f32, Activations::q8}) {
      size_t mapped = 0;
      const auto want = answers(*source, *backend_, activations, model::kAllExperts, &mapped);
      EXPECT_EQ(mapped, 0u);
      for (const int64_t room : {int64_t{0}, all / 2, all - 1}) {
        const auto got = answers(*source, *backend_, activations, room, &mapped);
        // Two MoE layers and that of the MTP module; gate, up and down of 32 experts.
        if (room == 0)
          EXPECT_EQ(mapped, 3u * 3 * 32);
        else
          EXPECT_TRUE(mapped > 0 && mapped < 3u * 3 * 32) << mapped;
        for (size_t i = 0; i < want.size(); ++i) {
          EXPECT_EQ(got[i][0].tokens, want[i][0].tokens) << path << ' ' << room;
          EXPECT_EQ(got[i][0].logp, want[i][0].logp) << path << ' ' << room;
        }
      }
    }
    const auto ref = kernels::make_ref_backend(pool_);
    size_t mapped = 0;
    EXPECT_EQ(answers(*source, *ref, Activations::q8, 0, &mapped)[2][0].logp,
              answers(*source, *backend_, Activations::q8, model::kAllExperts, &mapped)[2][0].logp);
  }

  TempFolder folder_;
  ThreadPool pool_{3};
  std::unique_ptr<kernels::Backend> backend_ = kernels::make_best_backend(pool_);
};

TEST_F(Paging, BlocksInGguf) { expect_same_answers(checkpoint("m.gguf", "q4_k_m")); }
TEST_F(Paging, Fp8InSafetensors) { expect_same_answers(checkpoint("fp8", "fp8")); }
TEST_F(Paging, Bf16InSafetensors) { expect_same_answers(checkpoint("bf16", "bf16")); }

TEST_F(Paging, SpeedIsSaid) {
  const auto source = model::WeightSource::open(checkpoint("m.gguf", "q4_k_m"));
  const WeightNeeds needs = weight_needs(*source, *backend_, {.stored = true, .mtp = false});
  const PagedSpeed none = measure_paged_speed(*source, *backend_, 0),
                   half = measure_paged_speed(*source, *backend_, needs.routed_packed / 2);
  EXPECT_EQ(none.packed_share, 0);
  EXPECT_NEAR(half.packed_share, 0.5, 1e-6);
  EXPECT_DOUBLE_EQ(none.token_bytes, needs.routed * 2 / 32);  // two of the experts
  EXPECT_NEAR(half.token_bytes, none.token_bytes / 2, 1);
  for (const PagedSpeed& s : {none, half}) {
    EXPECT_GT(s.packing, 0);
    EXPECT_GT(s.slowest, 0);
    EXPECT_GE(s.fastest, s.slowest);
  }
  EXPECT_NE(paged_speed_text(half).find("50 % of the experts in memory"), std::string::npos) << paged_speed_text(half);
}

// What check_memory says with so much memory; the room for experts where it has nothing to say.
std::string refusal(const model::WeightSource& source, const kernels::Backend& backend, bool allow_paging,
                    int64_t available, int64_t* room = nullptr) {
  try {
    const int64_t experts = check_memory(source, backend, {.stored = true}, allow_paging, available);
    if (room) *room = experts;
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::resources);
    return e.what();
  }
}

TEST_F(Paging, IsRefusedOrAdvised) {
  const auto source = model::WeightSource::open(checkpoint("m.gguf", "q4_k_m"));
  const MemoryNeeds needs =
      memory_needs(*source, *backend_, {.stored = true}, {.context = kernels::kPageSize, .sequences = 1});
  const int64_t all = needs.total(), rest = all - needs.experts;
  int64_t room = 0;
  EXPECT_EQ(refusal(*source, *backend_, true, all, &room), "");
  EXPECT_EQ(room, model::kAllExperts) << "what fits is packed";
  // All but the experts fits, with an eighth to spare.
  const std::string advice = refusal(*source, *backend_, false, all - 1);
  EXPECT_NE(advice.find("--allow-paging"), std::string::npos) << advice;
  EXPECT_EQ(refusal(*source, *backend_, true, all - 1, &room), "");
  EXPECT_LT(room, needs.experts);
  // Not even that.
  const std::string refused = refusal(*source, *backend_, true, rest);
  EXPECT_NE(refused.find("are missing"), std::string::npos) << refused;
  EXPECT_EQ(refused.find("--allow-paging"), std::string::npos) << refused;
}

TEST_F(Paging, TypesWithoutKernelsAreNamed) {
  struct Backend : kernels::RefBackend {
    using RefBackend::RefBackend;
    bool multiplies(BlockType type) const override { return type != BlockType::q4_k && RefBackend::multiplies(type); }
  } backend(pool_);
  const auto source = model::WeightSource::open(checkpoint("m.gguf", "q4_k_m"));
  const MemoryNeeds needs = memory_needs(*source, backend, {.stored = true}, {.context = 64, .sequences = 1});
  for (const bool allow_paging : {false, true}) {
    const std::string refused = refusal(*source, backend, allow_paging, needs.total() - 1);
    EXPECT_NE(refused.find("experts in Q4_K cannot stay"), std::string::npos) << refused;
    EXPECT_NE(refused.find("ponder convert"), std::string::npos) << refused;
  }
}

}  // namespace
}  // namespace ponder::app
