#include "ponder/app/bench_model.h"

#include <algorithm>
#include <numeric>

#include "ponder/app/answers.h"
#include "ponder/app/machine.h"
#include "ponder/app/memory.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"
#include "ponder/engine/engine.h"

namespace ponder::app {
namespace {

constexpr int kPrompt = 64, kGenerated = 48;  // of a sequence that is decoded
constexpr uint64_t kSeed = 42;

std::vector<int64_t> numbers(const Arguments& args, const char* option, std::string list) {
  list = args.text(option, list);
  std::vector<int64_t> out;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string word = list.substr(at, end - at);
    const bool digits = !word.empty() && word.size() < 8 && word.find_first_not_of("0123456789") == word.npos;
    const int64_t n = digits ? std::stoll(word) : 0;
    if (n < 1) throw_error(Exit::usage, "--{} {}: \"{}\" is no number; write 128,512", option, list, word);
    out.push_back(n);
    at = end + 1;
  }
  return out;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return (v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2;
}

struct Measurement {
  bool prompt;  // a prompt of `size` tokens; else `size` sequences decoded side by side
  int64_t size;
  double flops = 0;    // of one run
  int64_t tokens = 0;  // that were timed
  double bytes = 0;    // of weights and pages that one run reads at least
  std::vector<double> seconds = {};

  std::string name() const {
    if (prompt) return fmt::format("prompt of {}", size);
    return size == 1 ? "decode" : fmt::format("decode, {} sequences", size);
  }
  double tokens_per_s() const { return static_cast<double>(tokens) / median(seconds); }
};

class Bench {
 public:
  Bench(const model::Model& model, const kernels::Backend& backend, const WeightNeeds& needs,
        const engine::EngineConfig& config)
      : model_(model), needs_(needs), engine_(model, backend, config) {}

  void run(Measurement& m) {
    if (stop_requested()) throw_error(Exit::interrupted, "stopped");
    const int64_t sequences = m.prompt ? 1 : m.size;
    for (int64_t i = 0; i < sequences; ++i) add(m.prompt ? m.size : kPrompt, m.prompt ? 1 : kGenerated);
    // Decoding is timed from the step on at whose start every sequence has its first token.
    int64_t first_tokens = 0;
    double start = seconds_now(), flops = engine_.stats().flops;
    if (!m.prompt) {
      std::vector<bool> begun(static_cast<size_t>(sequences));
      const int64_t base = next_request_ - sequences;
      while (first_tokens < sequences)
        for (const engine::Event& e : engine_.step()) {
          const auto at = static_cast<size_t>(e.request - base);
          first_tokens += !begun[at];
          begun[at] = true;
        }
      start = seconds_now(), flops = engine_.stats().flops;
    }
    const engine::EngineStats before = engine_.stats();
    m.bytes = 0;
    while (!engine_.idle()) {
      const int64_t rows = engine_.stats().rows;
      engine_.step();
      m.bytes += needs_.read(engine_.stats().rows - rows) + page_bytes();
    }
    m.seconds.push_back(seconds_now() - start);
    m.flops = engine_.stats().flops - flops;
    m.tokens = m.prompt ? m.size : engine_.stats().sampled - before.sampled;
  }
  const engine::Engine& engine() const { return engine_; }

 private:
  void add(int64_t prompt, int new_tokens) {
    CounterRng rng(kSeed, Stream::test, next_request_++);
    engine::Request r;
    for (int64_t i = 0; i < prompt; ++i)
      r.prompt.push_back(static_cast<int32_t>(rng.next_u32() % static_cast<uint32_t>(model_.config().vocab_size)));
    r.sampling.temperature = 0;
    r.max_new_tokens = new_tokens;
    engine_.add(std::move(r));
  }
  // Of the pages in use: decoding reads them all.
  double page_bytes() const {
    return static_cast<double>(engine_.cache().in_use() * model_.kv_layers() * model_.page_layout().page_floats()) *
           sizeof(float);
  }

  const model::Model& model_;
  const WeightNeeds& needs_;
  engine::Engine engine_;
  int64_t next_request_ = 0;
};

}  // namespace

int bench_model(const std::string& name, const Arguments& args) {
  std::vector<Measurement> measurements;
  for (const int64_t n : numbers(args, "prompts", "128,512,2048")) measurements.push_back({true, n});
  for (const int64_t n : numbers(args, "batches", "1,8,32,64")) measurements.push_back({false, n});
  const int64_t repetitions = args.integer("repetitions", 3, 1, 1000);
  install_stop_signals();
  Machine machine(args.threads());
  model::ModelOptions options = model_options(args, false);
  options.mtp = false;
  const double before = seconds_now();
  const LoadedModel loaded = load_any_model(name, machine, options);
  const double load_seconds = seconds_now() - before;
  const model::ModelConfig& c = loaded.model->config();

  engine::EngineConfig config{.pages = 1, .max_sequences = 1, .share_prefixes = false};
  config.activations = activations_option(args, loaded, false);
  const std::string activations = kernels::activations_name(config.activations),
                    mla = c.mla() ? mla_name(loaded.model->mla_form()) : "none";
  std::erase_if(measurements, [&](const Measurement& m) {
    const bool longer = (m.prompt ? m.size + 1 : kPrompt + kGenerated) > c.max_position_embeddings;
    if (longer) log_warn("{}: longer than the model's context of {}; left out", m.name(), c.max_position_embeddings);
    return longer;
  });
  if (measurements.empty()) throw_error(Exit::usage, "{}: nothing is left to be measured", name);
  for (const Measurement& m : measurements) {
    const int64_t sequences = m.prompt ? 1 : m.size, length = m.prompt ? m.size + 1 : kPrompt + kGenerated + 1;
    config.pages = std::max(config.pages, sequences * ((length + kernels::kPageSize - 1) / kernels::kPageSize));
    config.max_sequences = static_cast<int>(std::max<int64_t>(config.max_sequences, sequences));
  }
  const WeightNeeds needs = weight_needs(*loaded.source, *machine.backend, options);
  log_info("{}: {}, {} parameters, {} of them active for a token; {} a token; loaded in {}", loaded.path, c.model_type,
           format_grouped(loaded.model->params().count()), format_grouped(loaded.model->active_params()),
           format_bytes(static_cast<uint64_t>(needs.read(1))), format_duration(load_seconds));

  Bench bench(*loaded.model, *machine.backend, needs, config);
  {
    Measurement warm = measurements.front();
    bench.run(warm);
  }
  double peak = 0, bandwidth = 0;
  for (int64_t i = 0; i < repetitions; ++i) {
    peak = std::max(peak, measure_fma_peak(machine.pool));
    bandwidth = std::max(bandwidth, measure_read_bandwidth(machine.pool));
    for (Measurement& m : measurements) {
      bench.run(m);
      log_info("  {:<24} {}", m.name(), format_duration(m.seconds.back()));
    }
  }

  Table table({"work", ">tok/s", ">seconds", ">GFLOP/s", ">of peak", ">GB/s", ">of bus"});
  std::string json;
  JsonWriter w(json);
  w.begin_object()
      .member("model", loaded.path)
      .member("backend", machine.backend->name())
      .member("threads", machine.pool.size())
      .member("activations", activations)
      .member("mla", mla)
      .member("params", loaded.model->params().count())
      .member("active_params", loaded.model->active_params())
      .member("bytes_per_token", needs.read(1))
      .member("load_seconds", load_seconds)
      .member("peak_flops", peak)
      .member("read_bytes_per_s", bandwidth)
      .member("peak_rss_bytes", peak_rss_bytes())
      .member("anonymous_bytes", anonymous_rss_bytes())
      .key("results")
      .begin_array();
  for (const Measurement& m : measurements) {
    const double s = median(m.seconds), of_peak = peak > 0 ? m.flops / s / peak : 0, of_bus = m.bytes / s / bandwidth;
    w.begin_object()
        .member("work", m.name())
        .member("kind", m.prompt ? "prompt" : "decode")
        .member("size", m.size)
        .member("tok_per_s", m.tokens_per_s())
        .member("seconds", s)
        .member("runs", m.seconds.size())
        .member("flops_per_s", m.flops / s)
        .member("of_peak", of_peak)
        .member("bytes_per_s", m.bytes / s)
        .member("of_bus", of_bus)
        .end_object();
    table.row({m.name(), fmt::format("{:.1f}", m.tokens_per_s()), fmt::format("{:.3f}", s),
               fmt::format("{:.1f}", m.flops / s * 1e-9), fmt::format("{:.0f} %", 100 * of_peak),
               fmt::format("{:.1f}", m.bytes / s * 1e-9), fmt::format("{:.0f} %", 100 * of_bus)});
  }
  w.end_array().end_object();
  if (args.json()) {
    fmt::print("{}\n", json);
    return 0;
  }
  fmt::print("{}\n", table.text());
  fmt::print("peak {:.0f} GFLOP/s (f32), memory {:.1f} GB/s read; {}, {} threads, activations {}{}\n", peak * 1e-9,
             bandwidth * 1e-9, machine.backend->name(), machine.pool.size(), activations,
             c.mla() ? ", MLA " + mla : "");
  fmt::print(
      "decoding: {} tokens behind prompts of {}; medians of {} runs; peak RSS {}, of which {} are not the file\n",
      kGenerated, kPrompt, repetitions, format_bytes(static_cast<uint64_t>(peak_rss_bytes())),
      format_bytes(static_cast<uint64_t>(anonymous_rss_bytes())));
  return 0;
}

}  // namespace ponder::app
