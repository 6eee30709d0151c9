#include "ponder/app/bench_model.h"

#include <algorithm>

#include "ponder/app/answers.h"
#include "ponder/app/bench_measure.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/result_file.h"
#include "ponder/app/svg.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

using Kind = Measurement::Kind;

std::vector<int64_t> numbers(const Arguments& args, const char* option, const std::string& otherwise) {
  const std::string list = args.text(option, otherwise);
  std::vector<int64_t> out;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string word = list.substr(at, end - at);
    if (word.empty() || word.size() > 7 || word.find_first_not_of("0123456789") != word.npos)
      throw_error(Exit::usage, "--{} {}: \"{}\" is no number up to 9,999,999; write 128,512", option, list, word);
    out.push_back(std::stoll(word));
    at = end + 1;
  }
  return out;
}

// What the options ask for; drafts, where the model can, at the first depth.
std::vector<Measurement> wanted(const Arguments& args, bool drafts) {
  std::vector<int64_t> prompts = numbers(args, "prompts", "128,512,2048"),
                       batches = numbers(args, "batches", "1,8,32,64");
  const std::vector<int64_t> depths = numbers(args, "depth", fmt::format("{}", kUsualDepth));
  std::erase(prompts, 0), std::erase(batches, 0);  // 0: none
  std::vector<Measurement> out;
  for (const int64_t n : prompts) out.push_back({.kind = Kind::prompt, .depth = n});
  for (const int64_t depth : depths)
    for (const int64_t n : batches) out.push_back({.kind = Kind::decode, .depth = depth, .sequences = n});
  for (const int64_t n : batches)
    if (drafts) out.push_back({.kind = Kind::draft, .depth = depths[0], .sequences = n});
  return out;
}

// Measurements of one kind share an engine, so their pages are those of the largest.
struct BenchPlan {
  MemoryNeeds plain, draft;

  int64_t weights() const { return std::max(plain.weights, draft.weights); }
  int64_t pages() const { return plain.pages + draft.pages; }
  int64_t scratch() const { return plain.scratch + draft.scratch; }
  int64_t program() const { return std::max(plain.program, draft.program); }
  int64_t total() const { return weights() + pages() + scratch() + program(); }
  // What the program may have in memory while it runs: weights, pages, 5 % of both, and 50 MB.
  int64_t limit() const { return (weights() + pages()) / 100 * 105 + 50'000'000; }

  BenchPlan with(const Measurement& m, const MemoryNeeds& needs) const {
    BenchPlan out = *this;
    MemoryNeeds& part = m.kind == Kind::draft ? out.draft : out.plain;
    part = {.weights = needs.weights,
            .pages = std::max(part.pages, needs.pages),
            .scratch = std::max(part.scratch, needs.scratch),
            .program = needs.program};
    return out;
  }
};

// Leaves out what is longer than the model's context or more than the machine's memory.
BenchPlan plan_memory(std::vector<Measurement>& measurements, const model::WeightSource& source,
                      const kernels::Backend& backend, const model::ModelOptions& options, bool allow_paging) {
  BenchPlan plan;
  const int64_t context = source.config().max_position_embeddings, available = available_memory_bytes(),
                room = check_memory(source, backend, options, allow_paging, available);
  std::erase_if(measurements, [&](const Measurement& m) {
    if (m.use().context > context) {
      log_warn("{}: longer than the model's context of {}; left out", m.name(), context);
      return true;
    }
    const BenchPlan larger = plan.with(m, memory_needs(source, backend, options, m.use(), room));
    if (larger.total() > available) {
      log_warn("{}: it needs {} of memory, {} are available; left out", m.name(),
               format_bytes(static_cast<uint64_t>(larger.total())), format_bytes(static_cast<uint64_t>(available)));
      return true;
    }
    plan = larger;
    return false;
  });
  if (measurements.empty()) throw_error(Exit::usage, "{}: nothing is left to be measured", source.path());
  return plan;
}

std::unique_ptr<ModelBench> make_bench(const LoadedModel& loaded, const Machine& machine, const WeightNeeds& needs,
                                       engine::EngineConfig config, std::vector<Measurement>& measurements) {
  config.pages = config.max_sequences = 1;
  Measurement* first = nullptr;
  for (Measurement& m : measurements) {
    if ((m.kind == Kind::draft) != config.draft) continue;
    if (!first) first = &m;
    config.pages = std::max(config.pages, m.pages());
    config.max_sequences = static_cast<int>(std::max<int64_t>(config.max_sequences, m.sequences));
  }
  if (!first) return nullptr;
  auto bench = std::make_unique<ModelBench>(*loaded.model, *machine.backend, needs, config);
  Measurement warm = *first;
  bench->run(warm);
  return bench;
}

// Cost against length and against batch: one line for each number of sequences, and one for each depth.
std::string picture(const std::vector<Measurement>& measurements, const std::string& model) {
  Chart by_depth{.title = "ms between tokens, by sequences", .note = model, .x_label = "depth: tokens in the context"};
  Chart by_batch{.title = "tokens/s, by depth", .note = model, .x_label = "sequences"};
  by_depth.y_min = by_batch.y_min = 0;
  const auto point = [](Chart& chart, int64_t series, int64_t x, double y) {
    const std::string name = fmt::format("{}", series);
    auto at = std::find_if(chart.series.begin(), chart.series.end(), [&](const Series& s) { return s.name == name; });
    if (at == chart.series.end()) at = chart.series.insert(at, Series{.name = name, .x = {}, .y = {}, .dots = true});
    at->x.push_back(static_cast<double>(x));
    at->y.push_back(y);
  };
  for (const Measurement& m : measurements) {
    if (m.kind != Kind::decode) continue;
    point(by_depth, m.sequences, m.depth, m.ms_per_token());
    point(by_batch, m.depth, m.sequences, m.tokens_per_s());
  }
  return chart_sheet({by_depth, by_batch}, 2);
}

// What the machine can do at best.
struct Limits {
  double flops_per_s = 0, bytes_per_s = 0;
  double of_peak(const Measurement& m) const {
    return flops_per_s > 0 ? m.flops / m.median_seconds() / flops_per_s : 0;
  }
  double of_bus(const Measurement& m) const { return m.bytes / m.median_seconds() / bytes_per_s; }
};

// A measurement with drafts beside the same without.
struct Drafts {
  const Measurement &with, &without;
  bool same_tokens() const { return with.answers == without.answers; }
  double ratio() const { return with.tokens_per_s() / without.tokens_per_s(); }
};

Drafts compared(const Measurement& draft, const std::vector<Measurement>& all) {
  return {draft, *std::find_if(all.begin(), all.end(), [&](const Measurement& m) {
            return m.kind == Kind::decode && m.depth == draft.depth && m.sequences == draft.sequences;
          })};
}

void write_results(JsonWriter& w, const std::vector<Measurement>& measurements, const Limits& limits) {
  w.key("results").begin_array();
  for (const Measurement& m : measurements) {
    const double s = m.median_seconds();
    w.begin_object()
        .member("work", m.name())
        .member("kind", m.kind_name())
        .member("size", m.kind == Kind::prompt ? m.depth : m.sequences)
        .member("depth", m.kind == Kind::prompt ? 0 : m.depth)
        .member("tok_per_s", m.tokens_per_s())
        .member("ms_per_token", m.ms_per_token())
        .member("seconds", s)
        .member("runs", m.seconds.size())
        .member("flops_per_s", m.flops / s)
        .member("of_peak", limits.of_peak(m))
        .member("bytes_per_s", m.bytes / s)
        .member("of_bus", limits.of_bus(m));
    if (m.kind == Kind::draft) {
      const Drafts d = compared(m, measurements);
      w.member("drafted", m.drafted)
          .member("accepted", m.accepted)
          .member("acceptance", m.acceptance())
          .member("ratio", d.ratio())
          .member("same_tokens", d.same_tokens());
    }
    w.end_object();
  }
  w.end_array();
}

std::string tables(const std::vector<Measurement>& measurements, const Limits& limits) {
  Table table({"work", ">tok/s", ">ms/token", ">seconds", ">GFLOP/s", ">of peak", ">GB/s", ">of bus"});
  Table drafts({"drafts", ">tok/s without", ">with", ">ratio", ">right", "tokens"});
  for (const Measurement& m : measurements) {
    const double s = m.median_seconds();
    table.row({m.name(), fmt::format("{:.1f}", m.tokens_per_s()), fmt::format("{:.2f}", m.ms_per_token()),
               fmt::format("{:.3f}", s), fmt::format("{:.1f}", m.flops / s * 1e-9),
               fmt::format("{:.0f} %", 100 * limits.of_peak(m)), fmt::format("{:.1f}", m.bytes / s * 1e-9),
               fmt::format("{:.0f} %", 100 * limits.of_bus(m))});
    if (m.kind != Kind::draft) continue;
    const Drafts d = compared(m, measurements);
    drafts.row({d.without.name(), fmt::format("{:.1f}", d.without.tokens_per_s()),
                fmt::format("{:.1f}", m.tokens_per_s()), fmt::format("{:.2f}", d.ratio()),
                fmt::format("{:.0f} %", 100 * m.acceptance()), d.same_tokens() ? "the same" : "DIFFERENT"});
  }
  return table.text() + (drafts.empty() ? "" : "\n" + drafts.text());
}

}  // namespace

int bench_model(const std::string& name, const Arguments& args) {
  const int64_t repetitions = args.integer("repetitions", 3, 1, 1000);
  install_stop_signals();
  Machine machine(args.threads());
  model::ModelOptions options = model_options(args, false);
  std::vector<Measurement> measurements;
  BenchPlan plan;
  {
    const auto source = model::WeightSource::open(resolve_model(name));
    measurements = wanted(args, source->config().num_nextn_predict_layers > 0);
    options.mtp = std::any_of(measurements.begin(), measurements.end(), [](auto& m) { return m.kind == Kind::draft; });
    plan = plan_memory(measurements, *source, *machine.backend, options, args.has("allow-paging"));
  }
  if (args.has("picture") &&
      std::none_of(measurements.begin(), measurements.end(), [](auto& m) { return m.kind == Kind::decode; }))
    throw_error(Exit::usage, "--picture: it shows decoding, and nothing is decoded");
  if (args.has("picture")) check_result_file(args.text("picture"));
  const double before = seconds_now();
  const LoadedModel loaded = load_any_model(name, machine, options, args.has("allow-paging"));
  const double load_seconds = seconds_now() - before;
  const model::ModelConfig& c = loaded.model->config();

  engine::EngineConfig config{.activations = activations_option(args, loaded, false)};
  const std::string activations = kernels::activations_name(config.activations),
                    mla = c.mla() ? model::mla_form_name(loaded.model->mla_form()) : "none";
  const WeightNeeds draft_needs = weight_needs(*loaded.source, *machine.backend, options);
  options.mtp = false;
  const WeightNeeds needs = weight_needs(*loaded.source, *machine.backend, options);
  log_info("{}: {}, {} parameters, {} of them active for a token; {} a token; loaded in {}", loaded.path, c.model_type,
           format_grouped(loaded.model->params().count()), format_grouped(loaded.model->active_params()),
           format_bytes(static_cast<uint64_t>(needs.read(1))), format_duration(load_seconds));

  const auto plain = make_bench(loaded, machine, needs, config, measurements);
  config.draft = true;
  const auto draft = make_bench(loaded, machine, draft_needs, config, measurements);
  Limits limits;
  int64_t resident = peak_rss_bytes();
  for (int64_t i = 0; i < repetitions; ++i) {
    limits.flops_per_s = std::max(limits.flops_per_s, measure_fma_peak(machine.pool));
    limits.bytes_per_s = std::max(limits.bytes_per_s, measure_read_bandwidth(machine.pool));
    reset_peak_rss();  // what was read for the bandwidth is none of the model's
    for (Measurement& m : measurements) {
      (m.kind == Kind::draft ? draft : plain)->run(m);
      log_info("  {:<32} {}", m.name(), format_duration(m.seconds.back()));
    }
    resident = std::max(resident, peak_rss_bytes());
  }

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
      .member("peak_flops", limits.flops_per_s)
      .member("read_bytes_per_s", limits.bytes_per_s)
      .key("memory")
      .begin_object()
      .member("peak_rss_bytes", resident)
      .member("anonymous_bytes", anonymous_rss_bytes())
      .member("planned_bytes", plan.total())
      .member("weights_bytes", plan.weights())
      .member("pages_bytes", plan.pages())
      .member("scratch_bytes", plan.scratch())
      .member("limit_bytes", plan.limit())
      .end_object();
  write_results(w, measurements, limits);
  w.end_object();
  if (args.has("picture")) write_file_atomic(args.text("picture"), picture(measurements, base_name(loaded.path)));
  const auto bytes = [](int64_t n) { return format_bytes(static_cast<uint64_t>(n)); };
  if (args.json()) {
    fmt::print("{}\n", json);
  } else {
    fmt::print("{}\n", tables(measurements, limits));
    fmt::print("peak {:.0f} GFLOP/s (f32), memory {:.1f} GB/s read; {}, {} threads, activations {}{}\n",
               limits.flops_per_s * 1e-9, limits.bytes_per_s * 1e-9, machine.backend->name(), machine.pool.size(),
               activations, c.mla() ? ", MLA " + mla : "");
    fmt::print("decoding: {} tokens behind prompts of random ones (depth {} unless it is said); medians of {} runs\n",
               kDecoded, kUsualDepth, repetitions);
    fmt::print("memory: at most {}, of which {} are not the file; weights, pages, 5 % and 50 MB are {}\n",
               bytes(resident), bytes(anonymous_rss_bytes()), bytes(plan.limit()));
    fmt::print("planned: {}: weights {}, pages {}, scratch of steps {}\n", bytes(plan.total()), bytes(plan.weights()),
               bytes(plan.pages()), bytes(plan.scratch()));
  }
  for (const Measurement& m : measurements)
    if (m.kind == Kind::draft && !compared(m, measurements).same_tokens())
      throw_error(Exit::failure, "{}: drafts change the answers, which is a mistake in ponder", loaded.path);
  return 0;
}

}  // namespace ponder::app
