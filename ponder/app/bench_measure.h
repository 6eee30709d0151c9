// What `bench MODEL` runs on an engine: a prompt that is read, or sequences that are decoded side by side with so many
// tokens in front of each. Prompts are random tokens, answers are greedy and of one length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ponder/app/memory.h"
#include "ponder/engine/engine.h"

namespace ponder::app {

constexpr int64_t kUsualDepth = 64;  // tokens in front of what is decoded, where nobody asks for another number
constexpr int kDecoded = 48;         // tokens of each sequence

struct Measurement {
  enum class Kind : uint8_t { prompt, decode, draft };  // draft: decode with tokens proposed by the MTP module

  Kind kind = Kind::decode;
  int64_t depth =
      kUsualDepth;  // tokens of the prompt, or in front of the first decoded one (0 is 1: one there must be)
  int64_t sequences = 1;

  // Of the last run.
  int64_t tokens = 0;  // that were timed
  double flops = 0;
  double bytes = 0;  // of weights and pages that have to be read at least
  int64_t drafted = 0, accepted = 0;
  std::vector<std::vector<int32_t>> answers = {};  // [sequences]
  // Of all runs.
  std::vector<double> seconds = {};

  std::string name() const;
  const char* kind_name() const;  // "prompt", "decode", "draft"
  UseSize use() const;
  int64_t pages() const;

  double median_seconds() const;
  double tokens_per_s() const { return static_cast<double>(tokens) / median_seconds(); }
  // Between two tokens of one sequence.
  double ms_per_token() const { return 1e3 * static_cast<double>(sequences) / tokens_per_s(); }
  double acceptance() const;  // share of the drafts that were right; NaN: none
};

class ModelBench {
 public:
  // `needs`: of the weights that a step multiplies with. `config`: pages and sequences for the largest measurement.
  ModelBench(const model::Model& model, const kernels::Backend& backend, const WeightNeeds& needs,
             const engine::EngineConfig& config);
  // Runs `m` once. Throws Error (interrupted) after a stop signal.
  void run(Measurement& m);

 private:
  int64_t add(uint64_t stream, int64_t prompt, int new_tokens);
  std::span<const engine::Event> step();
  void fill(const Measurement& m);
  double page_bytes() const;

  const model::Model& model_;
  WeightNeeds needs_;
  int layers_;  // whose keys and values a step reads
  engine::Engine engine_;
  uint64_t prompts_ = 0;  // read so far
};

}  // namespace ponder::app
