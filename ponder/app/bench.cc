// bench: how fast a recipe's model generates and learns here, beside what the machine can do at best.
#include <algorithm>

#include "ponder/app/commands.h"
#include "ponder/app/evaluator.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/engine/generate.h"
#include "ponder/train/data.h"

namespace ponder::app {
namespace {

constexpr int64_t kAnswers = 384, kTokens = 140;

struct Result {
  std::string name;
  std::vector<double> tokens_per_s, flops_per_s;
};

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<int64_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

}  // namespace

int bench_command(const Arguments& args) {
  const std::string path = args.positional.empty() ? "recipes/quickstart.toml" : args.positional[0];
  if (args.positional.empty() && !path_exists(path)) throw_error(Exit::usage, "which recipe? ./{} is not here", path);
  Plan plan = load_plan(path, "", args.all("set"));
  const auto at = std::find_if(plan.stage.begin(), plan.stage.end(), [](const StageRecipe& s) { return s.type == "pretrain" && !s.on_text(); });
  if (at == plan.stage.end()) throw_error(Exit::usage, "{}: it has no pre-training stage on a task's corpus to measure", path);
  const StageRecipe& recipe = *at;
  const double seconds = args.number("seconds", 3, 0.1, 3600);

  Machine machine(args.has("threads") ? args.threads() : recipe.run.threads);
  const auto task = tasks::make_task(recipe.task);
  model::ModelConfig config = recipe.model.config;
  if (config.vocab_size == 0) config.vocab_size = task->tokenizer().vocab_size();
  model::Model model(config, {.gradients = true});
  model.params().initialize(recipe.run.seed);
  train::Trainer trainer(model, *machine.backend, recipe.optim, 1 << 20);
  const auto engine = make_engine(model, *machine.backend, *task, kAnswers, kTokens);
  const tasks::Corpus corpus = tasks::make_corpus(*task, 64 * recipe.pretrain.batch_tokens, recipe.run.seed);
  const train::TextSet texts{corpus.ids, corpus.offsets};
  const train::BatchPlan batches = train::plan_batches(texts, recipe.pretrain.batch_tokens, recipe.pretrain.group_by_length, recipe.run.seed, 0);
  log_info("{}: {} parameters, {} active; {} threads, {}", path, format_grouped(model.params().count()), format_grouped(model.active_params()), machine.pool.size(),
           machine.backend->name());

  int64_t step = 0;
  Result generation{fmt::format("generation, {} x {} tokens", kAnswers, kTokens), {}, {}}, training{fmt::format("training, {} tokens a step", recipe.pretrain.batch_tokens), {}, {}};
  std::vector<double> peaks;
  const auto generate = [&](bool counted) {
    engine::Request request{.prompt = task->prompt(task->problem(tasks::Split::train, 0)), .seeds = {}, .sampling = {}, .max_new_tokens = kTokens, .stop_tokens = {}};
    for (int64_t i = 0; i < kAnswers; ++i) request.seeds.push_back(static_cast<uint64_t>(i));
    const double start = seconds_now(), flops = engine->stats().flops;
    engine::generate(*engine, {std::move(request)});
    const double time = seconds_now() - start;
    if (counted) generation.tokens_per_s.push_back(kAnswers * kTokens / time), generation.flops_per_s.push_back((engine->stats().flops - flops) / time);
  };
  const auto train = [&](bool counted) {
    double flops = 0, tokens = 0;
    const double start = seconds_now();
    do {
      std::vector<train::Example> examples;
      for (const int32_t i : batches.batch(step % batches.batches())) examples.push_back({texts.text(i), 1});
      const train::StepReport r = trainer.step(examples, step++, recipe.pretrain.last_token);
      flops += r.flops, tokens += static_cast<double>(r.tokens);
    } while (seconds_now() - start < 0.5);
    const double time = seconds_now() - start;
    if (counted) training.tokens_per_s.push_back(tokens / time), training.flops_per_s.push_back(flops / time);
  };
  // All in turn, so that clock changes and busy neighbours hit each alike; the first round warms up.
  const double start = seconds_now();
  for (int round = 0; round < 4 || seconds_now() - start < 2 * seconds; ++round) {
    peaks.push_back(measure_fma_peak(machine.pool));
    generate(round > 0);
    train(round > 0);
  }
  const double peak = median(peaks);
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("recipe", path).member("threads", machine.pool.size()).member("peak_flops", peak);
    for (const auto& [key, r] : {std::pair<const char*, const Result*>{"generation", &generation}, {"training", &training}})
      w.key(key).begin_object().member("tokens_per_s", median(r->tokens_per_s)).member("flops_per_s", median(r->flops_per_s)).member("share_of_peak", median(r->flops_per_s) / peak).end_object();
    w.end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  fmt::print("{:<34} {:>12} {:>12} {:>8}\n", "", "tokens/s", "GFLOP/s", "of peak");
  for (const Result* r : {&generation, &training})
    fmt::print("{:<34} {:>12} {:>12.1f} {:>7.1f}%\n", r->name, format_count(median(r->tokens_per_s)), median(r->flops_per_s) * 1e-9, 100 * median(r->flops_per_s) / peak);
  fmt::print("{:<34} {:>12} {:>12.1f}\n", "multiply-adds alone", "", peak * 1e-9);
  return 0;
}

}  // namespace ponder::app
