#include "ponder/model/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ponder/base/error.h"
#include "ponder/model/rope.h"

namespace ponder::model {
namespace {

std::string with(const std::string& members) {
  return R"({"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 2, "num_attention_heads": 4, )" +
         members + "}";
}
// All that the config says, in the form that we write.
std::string meaning(const std::string& members) { return config_json(parse_config_json(with(members), "config.json")); }

TEST(ConfigJson, RopeParametersOfTransformers5MeanTheSame) {
  EXPECT_EQ(meaning(R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"})"),
            meaning(R"("rope_theta": 500000.0, "rope_scaling": null)"));
  EXPECT_EQ(meaning(R"("rope_parameters": {"rope_theta": 500000.0})"), meaning(R"("rope_theta": 500000.0)"));
  EXPECT_NE(meaning(R"("rope_theta": 500000.0)"), meaning(R"("rope_scaling": null)"));
  EXPECT_EQ(meaning(R"("rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5})"),
            meaning(R"("partial_rotary_factor": 0.5)"));
  EXPECT_EQ(meaning(R"("rope_parameters": {"rope_theta": 2e4, "rope_type": "yarn", "type": "yarn", "factor": 40,
                       "original_max_position_embeddings": 4096, "mscale": 0.7, "mscale_all_dim": 0.7})"),
            meaning(R"("rope_theta": 2e4, "rope_scaling": {"type": "yarn", "factor": 40,
                       "original_max_position_embeddings": 4096, "mscale": 0.7, "mscale_all_dim": 0.7})"));
}

// What the kernels hold in fixed places, and what would leave nothing to rotate.
TEST(ConfigJson, RefusesWhatKernelsCannotHold) {
  const auto experts = [](int experts, int groups) {
    return fmt::format(R"("kv_lora_rank": 8,
        "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": {}, "n_group": {},
        "topk_group": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 8, "first_k_dense_replace": 1,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid")",
                       experts, groups);
  };
  const auto read = [](std::string json) {
    json.replace(json.find("llama"), 5, "deepseek_v3");
    return parse_config_json(json, "config.json");
  };
  EXPECT_NO_THROW(read(with(experts(128, 64))));
  EXPECT_THROW(read(with(experts(1024, 512))), Error);
  EXPECT_NO_THROW(meaning(R"("head_dim": 8, "partial_rotary_factor": 0.25)"));
  EXPECT_THROW(meaning(R"("head_dim": 8, "partial_rotary_factor": 0.03)"), Error);
}

TEST(ConfigJson, WhatIsWrittenIsReadAgain) {
  const std::string once = meaning(R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
      "high_freq_factor": 4, "original_max_position_embeddings": 8192}, "num_key_value_heads": 2)");
  EXPECT_EQ(config_json(parse_config_json(once, "config.json")), once);
}

// transformers takes attention_factor in place of what it would compute.
TEST(ConfigJson, AttentionFactorIsThatOfCosinesAndSines) {
  const auto magnitude = [](const std::string& more) {
    return rope_magnitude(parse_config_json(
        with(R"("rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096)" + more + "}"),
        "config.json"));
  };
  EXPECT_DOUBLE_EQ(magnitude(""), 0.1 * std::log(40) + 1);
  EXPECT_DOUBLE_EQ(magnitude(R"(, "attention_factor": null)"), 0.1 * std::log(40) + 1);
  EXPECT_DOUBLE_EQ(magnitude(R"(, "attention_factor": 1.25)"), 1.25);
  EXPECT_DOUBLE_EQ(magnitude(R"(, "attention_factor": 1.25, "mscale": 0.7, "mscale_all_dim": 1.0)"), 1.25);
  EXPECT_THROW(magnitude(R"(, "attention_factor": -1)"), Error);
  const std::string once = meaning(R"("rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 1.5,
      "original_max_position_embeddings": 4096})");
  EXPECT_NE(once.find("\"attention_factor\": 1.5"), std::string::npos) << once;
  EXPECT_EQ(config_json(parse_config_json(once, "config.json")), once);
}

}  // namespace
}  // namespace ponder::model
