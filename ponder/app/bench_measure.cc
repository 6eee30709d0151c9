#include "ponder/app/bench_measure.h"

#include <algorithm>
#include <cmath>

#include "ponder/app/machine.h"
#include "ponder/base/error.h"
#include "ponder/base/rng.h"

namespace ponder::app {
namespace {

constexpr uint64_t kSeed = 42;
constexpr uint64_t kPromptStreams = uint64_t{1} << 32;  // no prompt is read twice: its pages would be found again

}  // namespace

std::string Measurement::name() const {
  if (kind == Kind::prompt) return fmt::format("prompt of {}", depth);
  std::string out = "decode";
  if (sequences > 1) out += fmt::format(", {} sequences", sequences);
  if (depth != kUsualDepth) out += fmt::format(", depth {}", depth);
  return kind == Kind::draft ? out + ", drafts" : out;
}

const char* Measurement::kind_name() const {
  return kind == Kind::prompt ? "prompt" : kind == Kind::draft ? "draft" : "decode";
}

UseSize Measurement::use() const {
  return {.context = std::max<int64_t>(depth, 1) + (kind == Kind::prompt ? 1 : kDecoded), .sequences = sequences};
}

int64_t Measurement::pages() const { return sequences * (use().context / kernels::kPageSize + 1); }

double Measurement::median_seconds() const {
  std::vector<double> v = seconds;
  std::sort(v.begin(), v.end());
  return (v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2;
}

double Measurement::acceptance() const {
  return drafted ? static_cast<double>(accepted) / static_cast<double>(drafted) : std::nan("");
}

ModelBench::ModelBench(const model::Model& model, const kernels::Backend& backend, const WeightNeeds& needs,
                       const engine::EngineConfig& config)
    : model_(model),
      needs_(needs),
      layers_(model.config().num_hidden_layers + config.draft),
      engine_(model, backend, config) {}

int64_t ModelBench::add(uint64_t stream, int64_t prompt, int new_tokens) {
  CounterRng rng(kSeed, Stream::test, stream);
  engine::Request r;
  for (int64_t i = 0; i < std::max<int64_t>(prompt, 1); ++i)
    r.prompt.push_back(static_cast<int32_t>(rng.next_u32() % static_cast<uint32_t>(model_.config().vocab_size)));
  r.sampling.temperature = 0;
  r.max_new_tokens = new_tokens;
  return engine_.add(std::move(r));
}

std::span<const engine::Event> ModelBench::step() {
  if (stop_requested()) throw_error(Exit::resumable, "stopped");
  return engine_.step();
}

// Computes the sequences' contexts, unless their pages are still there from another run. Without it the first sequences
// of many with long contexts would be at their end before the last has begun. Two tokens: a sequence that ends with its
// first leaves no keys of the MTP module.
void ModelBench::fill(const Measurement& m) {
  if (m.depth <= kernels::kPageSize) return;  // only full pages are found again
  for (int64_t i = 0; i < m.sequences; ++i) add(static_cast<uint64_t>(i), m.depth, 2);
  while (!engine_.idle()) step();
}

// Of the pages in use: decoding reads them all.
double ModelBench::page_bytes() const {
  return static_cast<double>(engine_.cache().in_use() * layers_ * model_.page_layout().page_floats()) * sizeof(float);
}

void ModelBench::run(Measurement& m) {
  const bool prompt = m.kind == Measurement::Kind::prompt;
  if (!prompt) fill(m);
  int64_t base = -1;
  for (int64_t i = 0; i < m.sequences; ++i) {
    const uint64_t stream = prompt ? kPromptStreams + prompts_++ : static_cast<uint64_t>(i);
    const int64_t id = add(stream, m.depth, prompt ? 1 : kDecoded);
    if (i == 0) base = id;
  }
  m.answers.assign(static_cast<size_t>(m.sequences), {});
  for (auto& answer : m.answers) answer.reserve(kDecoded);
  int64_t begun = 0;
  const auto collect = [&](std::span<const engine::Event> events) {
    for (const engine::Event& e : events) {
      std::vector<int32_t>& answer = m.answers[static_cast<size_t>(e.request - base)];
      begun += answer.empty();
      answer.push_back(e.token);
    }
  };
  // Decoding is timed from the step on at whose start every sequence has its first token.
  while (!prompt && begun < m.sequences) collect(step());
  const engine::EngineStats before = engine_.stats();
  const double start = seconds_now();
  m.bytes = 0;
  while (!engine_.idle()) {
    const int64_t rows = engine_.stats().rows;
    collect(step());
    m.bytes += needs_.read(engine_.stats().rows - rows) + page_bytes();
  }
  m.seconds.push_back(seconds_now() - start);
  const engine::EngineStats after = engine_.stats();
  m.flops = after.flops - before.flops;
  m.tokens = prompt ? m.depth : after.sampled - before.sampled;
  m.drafted = after.drafted - before.drafted;
  m.accepted = after.accepted - before.accepted;
}

}  // namespace ponder::app
