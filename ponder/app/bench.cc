// bench: training steps, generation and GRPO steps of a recipe's model, beside what the machine can do at best.
//
// A measurement is the median of several runs; the measurements take turns, so that what disturbs the machine disturbs
// all of them. FLOPs are what the mathematics needs (ops::Ctx::flops), backward counted as twice forward.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "ponder/app/bench_model.h"
#include "ponder/app/commands.h"
#include "ponder/app/evaluator.h"
#include "ponder/app/machine.h"
#include "ponder/app/model_shape.h"
#include "ponder/app/options.h"
#include "ponder/app/table.h"
#include "ponder/app/wrapped_task.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/engine/generate.h"
#include "ponder/rl/step.h"
#include "ponder/train/data.h"

namespace ponder::app {
namespace {

constexpr int kQuestions = 32, kAnswers = 12;  // of a GRPO step
constexpr int kGenerated = 140, kAnswered = 85;
constexpr uint64_t kSeed = 42;

struct Sample {
  double tokens = 0, flops = 0;
};

struct Measurement {
  std::string model, name;
  std::function<Sample()> work;
  Sample sample = {};  // of the last run
  std::vector<double> seconds = {};

  double total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }
  double median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  }
};

// The task with answers that never end, so that every run samples the same number of tokens, whatever the weights say:
// its end token is one that the model does not have.
class EndlessTask final : public WrappedTask {
 public:
  explicit EndlessTask(const tasks::Task& task)
      : WrappedTask(task), tokenizer_(words(task.tokenizer()), std::vector<int32_t>{task.tokenizer().vocab_size()}) {}
  const text::Tokenizer& tokenizer() const override { return tokenizer_; }

 private:
  static std::vector<std::string> words(const text::Tokenizer& t) {
    std::vector<std::string> out;
    for (int32_t id = 0; id < t.vocab_size(); ++id) out.push_back(fmt::format("#{}", id));
    out.emplace_back("<end>");
    return out;
  }
  text::WordLevel tokenizer_;
};

// Texts of random tokens.
struct RandomTexts {
  RandomTexts(int vocab_size, int64_t texts, int64_t length) : ids(static_cast<size_t>(texts * length)) {
    CounterRng rng(kSeed, Stream::test, 0);
    for (int32_t& id : ids) id = static_cast<int32_t>(rng.next_u32() % static_cast<uint32_t>(vocab_size));
    for (int64_t i = 0; i < texts; ++i)
      examples.push_back({std::span(ids).subspan(static_cast<size_t>(i * length), static_cast<size_t>(length)), 1});
  }
  std::vector<int32_t> ids;
  std::vector<train::Example> examples;
};

// A model with everything that is measured on it.
class Subject {
 public:
  Subject(std::string name, std::unique_ptr<model::Model> model, const kernels::Backend& backend,
          std::vector<Measurement>& out)
      : name_(std::move(name)), model_(std::move(model)), backend_(backend), out_(out) {}

  void train_on_random_texts(const train::TrainConfig& config, int64_t texts, int64_t length) {
    random_ = std::make_unique<RandomTexts>(model_->config().vocab_size, texts, length);
    train(config, random_->examples, fmt::format("training step, {} x {} tokens", texts, length));
  }

  void train_on_task(const train::TrainConfig& config, const tasks::Task& task, int64_t batch_tokens) {
    corpus_ = tasks::make_corpus(task, 4 * batch_tokens, kSeed);
    const train::BatchPlan plan = train::plan_batches({corpus_.ids, corpus_.offsets}, batch_tokens, true, kSeed, 0);
    std::vector<train::Example> examples;
    for (const int32_t i : plan.batch(0)) examples.push_back({corpus_.text(i), 1});
    train(config, std::move(examples), fmt::format("training step, {} tokens", batch_tokens));
  }

  void generate(std::vector<std::vector<int32_t>> prompts) {
    size_t longest = 0;
    for (const auto& p : prompts) longest = std::max(longest, p.size());
    engine::EngineConfig config;
    config.max_sequences = std::min<int>(kQuestions * kAnswers, engine::default_sequences(*model_));
    config.pages =
        config.max_sequences * ((static_cast<int64_t>(longest) + kGenerated + kernels::kPageSize) / kernels::kPageSize);
    engine_ = std::make_unique<engine::Engine>(*model_, backend_, config);
    add(fmt::format("generation, {} x {} tokens", kQuestions * kAnswers, kGenerated),
        [this, prompts = std::move(prompts)] {
          const engine::EngineStats before = engine_->stats();
          std::vector<engine::Request> requests(prompts.size());
          for (size_t i = 0; i < prompts.size(); ++i) {
            requests[i].prompt = prompts[i];
            requests[i].max_new_tokens = kGenerated;
            requests[i].seeds.resize(kAnswers);
            for (uint64_t& seed : requests[i].seeds) seed = next_seed_++;
          }
          engine::generate(*engine_, std::move(requests));
          return Sample{static_cast<double>(engine_->stats().sampled - before.sampled),
                        engine_->stats().flops - before.flops};
        });
  }

  void reinforce(const train::TrainConfig& config, const tasks::Task& task) {
    task_ = std::make_unique<EndlessTask>(task);
    rl_trainer_ = std::make_unique<train::Trainer>(*model_, backend_, config, kScheduledSteps);
    rl_engine_ = make_engine(*model_, backend_, task, kQuestions * kAnswers, kAnswered);
    rl::GrpoSetup setup{.grpo = {}, .train = config, .rewards = std::vector<rl::RewardConfig>(1), .mismatch_path = {}};
    setup.grpo.num_generations = kAnswers;
    setup.grpo.num_prompts_per_step = kQuestions;
    setup.grpo.max_completion_length = kAnswered;
    setup.rewards[0].name = "random";
    grpo_ = std::make_unique<rl::Grpo>(*rl_trainer_, *rl_engine_, *task_, setup, backend_);
    add(fmt::format("GRPO step, {} x {} answers of {}", kQuestions, kAnswers, kAnswered), [this] {
      const rl::GrpoReport report = grpo_->step(rl_step_++);
      return Sample{kQuestions * kAnswers * kAnswered, report.flops};
    });
  }

  const model::Model& model() const { return *model_; }

 private:
  static constexpr int64_t kScheduledSteps = 100'000;

  void train(const train::TrainConfig& config, std::vector<train::Example> examples, std::string name) {
    trainer_ = std::make_unique<train::Trainer>(*model_, backend_, config, kScheduledSteps);
    add(std::move(name), [this, examples = std::move(examples)] {
      const train::StepReport report = trainer_->step(examples, step_++);
      return Sample{static_cast<double>(report.tokens), report.flops};
    });
  }
  void add(std::string name, std::function<Sample()> work) {
    out_.push_back({name_, std::move(name), std::move(work)});
  }

  std::string name_;
  std::unique_ptr<model::Model> model_;
  const kernels::Backend& backend_;
  std::vector<Measurement>& out_;
  std::unique_ptr<RandomTexts> random_;
  tasks::Corpus corpus_;
  std::unique_ptr<train::Trainer> trainer_, rl_trainer_;
  std::unique_ptr<engine::Engine> engine_, rl_engine_;
  std::unique_ptr<EndlessTask> task_;
  std::unique_ptr<rl::Grpo> grpo_;
  int64_t step_ = 0, rl_step_ = 0;
  uint64_t next_seed_ = 1;
};

// The shapes of bench/peers/torch_training.py.
std::unique_ptr<Subject> dense_subject(int width, int layers, const kernels::Backend& backend,
                                       std::vector<Measurement>& out) {
  model::ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = 4096;
  c.hidden_size = width;
  c.num_hidden_layers = layers;
  c.num_attention_heads = c.num_key_value_heads = width / 64;
  c.intermediate_size = (8 * width / 3 + 15) / 16 * 16;
  auto model = std::make_unique<model::Model>(c, model::ModelOptions{.gradients = true});
  model->params().initialize(kSeed);
  auto subject =
      std::make_unique<Subject>(fmt::format("dense, d = {} x {}", width, layers), std::move(model), backend, out);
  train::TrainConfig config = StageRecipe("pretrain").optim;
  config.micro_batch_tokens = 2048;
  subject->train_on_random_texts(config, 32, 256);
  return subject;
}

std::string default_recipe() {
  for (const char* name : {"recipes/quickstart.toml", "models/miniature-v3.toml"})
    for (const std::string& path : {std::string(name), join_path(PONDER_SOURCE_DIR, name)})
      if (path_exists(path)) return path;
  throw_error(Exit::usage, "recipes/quickstart.toml is not here; name a recipe or a model");
}

// Runs all in turn until each has enough runs and enough time; returns the machine's peak, measured in between.
double measure(std::vector<Measurement>& measurements, double seconds, ThreadPool& pool) {
  constexpr size_t kLeast = 3, kMost = 25;
  double peak = 0;
  const auto run = [](Measurement& m) {
    if (stop_requested()) throw_error(Exit::resumable, "stopped");
    const double start = seconds_now();
    m.sample = m.work();
    return seconds_now() - start;
  };
  for (Measurement& m : measurements)
    log_info("  {:<22} {:<38} {} to warm up", m.model, m.name, format_duration(run(m)));
  for (bool more = true; more;) {
    more = false;
    peak = std::max(peak, measure_fma_peak(pool));
    for (Measurement& m : measurements) {
      if (m.seconds.size() >= kMost || (m.seconds.size() >= kLeast && m.total() >= seconds)) continue;
      m.seconds.push_back(run(m));
      more = true;
      log_info("  {:<22} {:<38} {}", m.model, m.name, format_duration(m.seconds.back()));
    }
  }
  return peak;
}

}  // namespace

int bench_command(const Arguments& args) {
  const std::string what = args.positional.empty() ? default_recipe() : args.positional[0];
  const bool recipe = what.ends_with(".toml") || what.ends_with(".json");
  check_subject(args, what, recipe,
                {"prompts", "batches", "depth", "picture", "repetitions", "activations", "mla", "allow-paging"},
                {"seconds", "set"});
  if (!recipe) return bench_model(what, args);
  const double seconds = args.number("seconds", 3, 0.01, 600);
  install_stop_signals();
  Machine machine(args.threads());
  std::vector<Measurement> measurements;

  const ModelShape shape = read_shape(what, args.all("set"));
  auto model = std::make_unique<model::Model>(shape.config, model::ModelOptions{.gradients = true});
  model->params().initialize(kSeed);
  const model::ModelConfig config = model->config();
  log_info("{}: {} parameters, {} of them active for a token; {}, {} threads", what,
           format_grouped(model->params().count()), format_grouped(model->active_params()), machine.backend->name(),
           machine.pool.size());
  Subject own(base_name(what), std::move(model), *machine.backend, measurements);
  std::vector<std::vector<int32_t>> prompts;
  if (shape.task) {
    own.train_on_task(shape.pretrain, *shape.task, shape.batch_tokens);
    for (const tasks::Problem& p : tasks::choose_problems(*shape.task, tasks::Split::train, kQuestions, kSeed))
      prompts.push_back(shape.task->prompt(p));
  } else {
    own.train_on_random_texts(shape.pretrain, 8, std::min(256, config.max_position_embeddings));
    const RandomTexts texts(config.vocab_size, kQuestions, 8);
    for (const train::Example& e : texts.examples) prompts.emplace_back(e.ids.begin(), e.ids.end());
  }
  own.generate(std::move(prompts));
  if (shape.task)
    own.reinforce(shape.rl, *shape.task);
  else
    log_info("{}: it has no task, so GRPO is not measured", what);
  const auto small = dense_subject(256, 6, *machine.backend, measurements),
             large = dense_subject(512, 8, *machine.backend, measurements);

  const double peak = measure(measurements, seconds, machine.pool);
  Table table({"model", "work", ">runs", ">seconds", ">tok/s", ">GFLOP/s", ">of peak"});
  std::string json;
  JsonWriter w(json);
  w.begin_object()
      .member("backend", machine.backend->name())
      .member("threads", machine.pool.size())
      .member("peak_flops", peak)
      .key("results")
      .begin_array();
  for (const Measurement& m : measurements) {
    const double s = m.median(), share = peak > 0 ? m.sample.flops / s / peak : std::nan("");
    const auto [least, most] = std::minmax_element(m.seconds.begin(), m.seconds.end());
    w.begin_object().member("model", m.model).member("work", m.name).member("runs", m.seconds.size());
    w.member("seconds", s)
        .member("seconds_min", *least)
        .member("seconds_max", *most)
        .member("tok_per_s", m.sample.tokens / s);
    w.member("flops_per_s", m.sample.flops / s).member("of_peak", share).end_object();
    table.row({m.model, m.name, fmt::format("{}", m.seconds.size()), fmt::format("{:.3f}", s),
               format_grouped(static_cast<int64_t>(m.sample.tokens / s)),
               fmt::format("{:.1f}", m.sample.flops / s * 1e-9),
               peak > 0 ? fmt::format("{:.1f} %", 100 * share) : "-"});
  }
  w.end_array().end_object();
  if (args.json())
    fmt::print("{}\n", json);
  else
    fmt::print("{}\npeak: {:.1f} GFLOP/s of fused multiply-adds ({}, {} threads); medians of alternating runs\n",
               table.text(), peak * 1e-9, machine.backend->name(), machine.pool.size());
  return 0;
}

}  // namespace ponder::app
