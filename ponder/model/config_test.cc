#include "ponder/model/config.h"

#include <gtest/gtest.h>

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

TEST(ConfigJson, WhatIsWrittenIsReadAgain) {
  const std::string once = meaning(R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
      "high_freq_factor": 4, "original_max_position_embeddings": 8192}, "num_key_value_heads": 2)");
  EXPECT_EQ(config_json(parse_config_json(once, "config.json")), once);
}

}  // namespace
}  // namespace ponder::model
