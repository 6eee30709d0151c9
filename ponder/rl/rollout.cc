#include "ponder/rl/rollout.h"

#include "ponder/base/rng.h"

namespace ponder::rl {
namespace {

uint64_t answer_seed(uint64_t key, uint64_t problem, uint64_t answer) {
  const auto w = philox(key, problem, answer);
  return uint64_t{w[1]} << 32 | w[0];
}

std::vector<int32_t> stop_tokens(const tasks::Task& task) {
  const auto eos = task.tokenizer().special().eos;
  PONDER_CHECK(eos, "task {} has no end token", task.name());
  return {*eos};
}

}  // namespace

Rollout sample_rollout(engine::Engine& engine, const tasks::Task& task, std::span<const tasks::Problem> problems,
                       const SampleSettings& settings, uint64_t key, uint64_t first_index) {
  Rollout rollout;
  std::vector<engine::Request> requests(problems.size());
  for (size_t i = 0; i < problems.size(); ++i) {
    engine::Request& r = requests[i];
    r.prompt = task.prompt(problems[i]);
    r.seeds.resize(static_cast<size_t>(settings.num_generations));
    for (size_t j = 0; j < r.seeds.size(); ++j) r.seeds[j] = answer_seed(key, first_index + i, j);
    r.sampling = settings.sampling;
    r.max_new_tokens = settings.max_completion_length;
    r.stop_tokens = stop_tokens(task);
  }
  std::vector<std::vector<int32_t>> prompts;
  for (const engine::Request& r : requests) prompts.push_back(r.prompt);
  const double flops = engine.stats().flops;
  auto answers = engine::generate(engine, std::move(requests));
  rollout.flops = engine.stats().flops - flops;
  rollout.groups.resize(problems.size());
  for (size_t i = 0; i < problems.size(); ++i) {
    Group& g = rollout.groups[i];
    g.problem = problems[i];
    g.answers.resize(answers[i].size());
    for (size_t j = 0; j < answers[i].size(); ++j) {
      engine::Answer& a = answers[i][j];
      RolloutAnswer& r = g.answers[j];
      r.ids = prompts[i];
      r.prompt_length = static_cast<int32_t>(prompts[i].size());
      r.ids.insert(r.ids.end(), a.tokens.begin(), a.tokens.end());
      r.logp = std::move(a.logp);
      r.entropy = std::move(a.entropy);
      r.truncated = a.finish == engine::Finish::length;
      r.grade = task.grade(problems[i], r.completion());
      rollout.tokens += static_cast<int64_t>(a.tokens.size());
    }
  }
  return rollout;
}

tasks::EvalResult evaluate(engine::Engine& engine, const tasks::Task& task, std::span<const tasks::Problem> problems,
                           int samples, const engine::Sampling& sampling, int max_new_tokens, uint64_t seed,
                           const std::function<bool(int64_t)>& progress) {
  const uint64_t key = stream_key(seed, Stream::eval_sampling);
  const auto generate = [&](std::span<const tasks::Prompt> prompts) {
    std::vector<engine::Request> requests(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i)
      requests[i] = {.prompt = prompts[i].ids,
                     .seeds = {answer_seed(key, prompts[i].index, 0)},
                     .sampling = sampling,
                     .max_new_tokens = max_new_tokens,
                     .stop_tokens = stop_tokens(task)};
    std::vector<std::vector<int32_t>> completions;
    for (auto& a : engine::generate(engine, std::move(requests), progress))
      completions.push_back(std::move(a[0].tokens));
    return completions;
  };
  return tasks::evaluate(task, problems, samples, generate);
}

}  // namespace ponder::rl
