// What goes into the engine and what comes out of it: settings, requests, events.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ponder/kernels/backend.h"

namespace ponder::engine {

struct EngineConfig {
  int64_t pages = 0;        // of 64 positions; 0: enough for max_sequences of max_position_embeddings / 4 (at least 64)
  int max_sequences = 512;  // computed at once
  int max_step_rows = 512;  // rows of one forward pass; a longer prompt is computed in pieces
  bool share_prefixes = true;
  // Full pages of answers are remembered as well as those of prompts (chat: the next turn begins with them). Otherwise an
  // answer's pages are the first to be used again, while they are still in the processor's cache.
  bool remember_answers = false;
  kernels::Activations activations = kernels::Activations::f32;  // of products with stored weights
  bool draft = false;  // propose a second token by the model's first MTP module
};

// Logits divided by less than this would run out of floats, and the draw is greedy anyway (as in vLLM).
inline constexpr float kGreedy = 1e-5f;

struct Sampling {
  float temperature = 1.f;  // below kGreedy: 0, greedy
  float top_p = 1.f, min_p = 0.f;
  int32_t top_k = 0;  // 0: off

  // What changes logits before the draw; recorded log-probs are those of the unchanged ones. First the repetition penalty
  // (Keskar et al. 2019: z / p where z > 0, else z * p) of every token in prompt and answer, then OpenAI's penalties of
  // tokens in the answer (- frequency * count - presence), then the bias.
  float repetition_penalty = 1.f, frequency_penalty = 0.f, presence_penalty = 0.f;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t min_tokens = 0;  // no stop token before the answer has so many

  bool adjusts() const {
    return repetition_penalty != 1.f || frequency_penalty != 0.f || presence_penalty != 0.f || !logit_bias.empty() ||
           min_tokens > 0;
  }
};

struct Request {
  std::vector<int32_t> prompt;        // at least one token
  std::vector<uint64_t> seeds = {0};  // one answer for each
  Sampling sampling;
  int max_new_tokens = 512;
  std::vector<int32_t> stop_tokens;  // the answer ends with (and includes) the first of these
  int answered = 0;                  // so many tokens at the prompt's end were generated: a continuation
};

enum class Finish : uint8_t { running, stop, length, cancelled };

// One new token of one answer.
struct Event {
  int64_t request;
  int32_t answer;  // index into Request::seeds
  int32_t token;
  float logp;     // under softmax(logits / T), before top-k, top-p, min-p
  float entropy;  // of that distribution
  Finish finish;
};

}  // namespace ponder::engine
