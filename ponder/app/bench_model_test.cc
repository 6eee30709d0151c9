// `bench MODEL` on a tiny model: the grid that was asked for, drafts, memory, pictures. Speeds are not looked at.
#include <gtest/gtest.h>

#include "ponder/app/bench_model.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"
#include "tests/tiny_models.h"

namespace ponder::app {
namespace {

class BenchModelTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_quiet(true);
    model::ModelConfig c = test::tiny_v3();
    c.max_position_embeddings = 512;
    model::Model model(c, {});
    model.params().initialize(1);
    make_folder(model_);
    model::save_model(model, model_);
  }
  void TearDown() override { set_log_quiet(false); }

  Json bench(std::vector<std::string> options) {
    options.insert(options.begin(), {"bench", model_, "--json", "--repetitions", "2"});
    testing::internal::CaptureStdout();
    const int code = bench_model(model_, parse_arguments(options));
    std::fflush(stdout);
    EXPECT_EQ(code, 0);
    return parse_json(testing::internal::GetCapturedStdout(), "bench");
  }

  TempFolder folder_;
  std::string model_ = folder_.file("model");
};

TEST_F(BenchModelTest, DepthsTimesBatchesAndDraftsAtTheFirstDepth) {
  const std::string svg = folder_.file("cost.svg");
  const Json json = bench({"--prompts", "70", "--depth", "0,130,400", "--batches", "1,3", "--picture", svg});
  std::vector<std::string> works;
  for (const Json& r : json["results"]) {
    works.push_back(r["work"]);
    EXPECT_GT(r["tok_per_s"], 0);
    EXPECT_EQ(r["runs"], 2);
  }
  EXPECT_EQ(works, (std::vector<std::string>{"prompt of 70", "decode, depth 0", "decode, 3 sequences, depth 0",
                                             "decode, depth 130", "decode, 3 sequences, depth 130", "decode, depth 400",
                                             "decode, 3 sequences, depth 400", "decode, depth 0, drafts",
                                             "decode, 3 sequences, depth 0, drafts"}));
  for (size_t i = 7; i < 9; ++i) {
    EXPECT_EQ(json["results"][i]["same_tokens"], true);
    EXPECT_GT(json["results"][i]["drafted"], 0);
    EXPECT_LE(json["results"][i]["acceptance"], 1);
  }
  // More tokens in the context are more work for each token.
  const auto flops = [&](size_t i) {
    const Json& r = json["results"][i];
    return r["flops_per_s"].get<double>() / r["tok_per_s"].get<double>();
  };
  EXPECT_LT(flops(1), flops(3));
  EXPECT_LT(flops(3), flops(5));

  const Json& memory = json["memory"];
  EXPECT_GE(memory["planned_bytes"], memory["weights_bytes"].get<int64_t>() + memory["pages_bytes"].get<int64_t>());
  EXPECT_GT(memory["peak_rss_bytes"], memory["weights_bytes"]);
  const std::string picture = read_file(svg);
  EXPECT_TRUE(picture.starts_with("<svg")) << picture;
  for (const char* series : {">1<", ">3<", ">130<"}) EXPECT_NE(picture.find(series), picture.npos) << series;
}

TEST_F(BenchModelTest, LeavesOutWhatTheModelCannot) {
  const Json json = bench({"--prompts", "0", "--depth", "464,465", "--batches", "1"});
  ASSERT_EQ(json["results"].size(), 2u) << "465 + 48 tokens are more than 512";
  EXPECT_EQ(json["results"][0]["depth"], 464);
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--prompts", "0", "--batches", "0"}, {"--depth", "1k"}}) {
    std::vector<std::string> words = {"bench", model_};
    words.insert(words.end(), wrong.begin(), wrong.end());
    EXPECT_THROW(bench_model(model_, parse_arguments(words)), Error) << wrong[0];
  }
}

}  // namespace
}  // namespace ponder::app
