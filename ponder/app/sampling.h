// How answers are drawn: what a family of models is meant to be sampled with, and the request keys that change it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "ponder/engine/engine.h"

namespace ponder::app {

class Arguments;
struct LoadedModel;

struct Recommended {
  engine::Sampling sampling;
  std::string origin;                         // for people: "generation_config.json", "DeepSeek-R1"
  bool system_prompt = true;                  // false: the model wants none (R1)
  std::string end_phrase = "\n</think>\n\n";  // what is put in where the budget of thinking ends
};
// Greedy for a miniature with a task (it searches best so). Else what stands in the folder's generation_config.json or
// the GGUF file's general.sampling.*, over the values of its family, which is known by marks in its chat template.
Recommended recommended_sampling(const LoadedModel& loaded, bool thinking);

// --temperature and so on over the model's. Throws Error (usage) where a value is not allowed.
engine::Sampling sampling_options(const Arguments& args, const engine::Sampling& recommended, int32_t vocab);

// One of OpenAI's and vLLM's keys (temperature, top_p, top_k, min_p, repetition_penalty, frequency_penalty,
// presence_penalty, logit_bias, min_tokens). False: it is another. Throws Error (data) where the value is not allowed.
bool set_sampling_field(engine::Sampling& sampling, const std::string& key, const nlohmann::json& value, int32_t vocab);

// "temperature 0.6, top-p 0.95"
std::string sampling_text(const engine::Sampling& sampling);

}  // namespace ponder::app
