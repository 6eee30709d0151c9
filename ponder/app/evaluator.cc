#include "ponder/app/evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>

#include "ponder/app/machine.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/hash.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"
#include "ponder/rl/rollout.h"
#include "ponder/tasks/jsonl.h"
#include "ponder/tasks/puzzle/game24.h"

namespace ponder::app {
namespace {

std::vector<tasks::Problem> classic_puzzles(const tasks::Task& task) {
  if (task.name() != "game24")
    throw_error(Exit::data, "eval_puzzles = \"classic\": only the task game24 has such puzzles, this is {}",
                task.name());
  std::vector<tasks::Problem> puzzles = tasks::game24_puzzles(
      task.config().numbers_to, task.config().held_out_target ? task.config().held_out_target : 24);
  for (tasks::Problem& p : puzzles) PONDER_CHECK(task.admit(p).empty(), "{} is no problem of its task", p.text);
  return puzzles;
}

// The mean of a column that all problems have, such as people's success; NaN without.
double column_mean(const std::vector<tasks::Problem>& problems, const std::string& column) {
  double sum = 0;
  for (const tasks::Problem& p : problems) {
    const auto at = p.columns.find(column);
    if (at == p.columns.end()) return std::nan("");
    char* end = nullptr;
    const double value = std::strtod(at->second.c_str(), &end);
    if (at->second.empty() || *end) return std::nan("");  // as JSON, so "87%" begins with a quote
    sum += value;
  }
  return problems.empty() ? std::nan("") : sum / static_cast<double>(problems.size());
}

}  // namespace

std::unique_ptr<engine::Engine> make_engine(const model::Model& model, const kernels::Backend& backend,
                                            const tasks::Task& task, int64_t answers, int64_t new_tokens, bool draft) {
  const int64_t prompt = static_cast<int64_t>(task.prompt(task.problem(tasks::Split::train, 0)).size());
  engine::EngineConfig config;
  config.max_sequences = static_cast<int>(std::clamp<int64_t>(answers, 1, engine::default_sequences(model)));
  config.pages = config.max_sequences * engine::pages_for(prompt + new_tokens + 2);
  // Whatever the model takes fits alone: problems of a user's file may have longer prompts than the task's own.
  config.pages = std::max(config.pages, engine::pages_for(model.config().max_position_embeddings + 1));
  config.draft = draft;
  return std::make_unique<engine::Engine>(model, backend, config);
}

Evaluator::Evaluator(const StageRecipe& recipe, const tasks::Task& task)
    : recipe_(recipe), task_(task), tag_(fmt::format("eval/{}", task.name())) {
  const EvalSection& e = recipe.eval;
  const auto split = e.split == "train" ? tasks::Split::train : tasks::Split::held_out;
  if (!e.eval_puzzles.empty()) {
    // A file may be sorted, say by difficulty: a part of it is drawn, not its beginning.
    problems_ = e.eval_puzzles == "classic" ? classic_puzzles(task) : tasks::read_puzzles(e.eval_puzzles, task);
    const auto there = static_cast<int64_t>(problems_.size());
    CounterRng rng(recipe.run.seed, Stream::eval_problems, 1);
    if (there > e.problems || there > e.pass_problems) rng.shuffle(problems_);
    pass_problems_ = problems_;
    if (there > e.pass_problems) pass_problems_.resize(static_cast<size_t>(e.pass_problems));
    if (there > e.problems) {
      log_info("evaluating {} of the {} problems of {}", e.problems, there, e.eval_puzzles);
      problems_.resize(static_cast<size_t>(e.problems));
    }
    return;
  }
  const int64_t there = task.problem_count(split);
  problems_ = tasks::choose_problems(task, split, std::min(e.problems, there), recipe.run.seed);
  pass_problems_ = tasks::choose_problems(task, split, std::min(e.pass_problems, there), recipe.run.seed);
}

int64_t Evaluator::most_answers() const {
  return std::max(static_cast<int64_t>(problems_.size()) * recipe_.eval.samples,
                  static_cast<int64_t>(pass_problems_.size()) * recipe_.eval.pass_samples);
}

void Evaluator::write_items(const tasks::EvalResult& result, const char* kind, RunLog& log, const std::string& stamp,
                            int64_t step, const std::string& stage) const {
  const text::Tokenizer& tokenizer = task_.tokenizer();
  for (size_t i = 0; i < result.items.size(); ++i) {
    const tasks::EvalItem& item = result.items[i];
    const std::string prompt = tokenizer.decode(task_.prompt(item.problem));
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("step", step).member("stage", stage).member("kind", kind).member("doc_id", i);
    w.key("doc").begin_object().member("id", item.problem.id).member("text", item.problem.text);
    w.member("numbers", std::span<const int64_t>(item.problem.numbers)).member("target", item.problem.target);
    if (!item.problem.columns.empty()) {
      w.key("columns").begin_object();
      for (const auto& [name, value] : item.problem.columns) w.key(name).raw(value);
      w.end_object();
    }
    w.end_object().member("target", item.problem.target).member("arguments", prompt);
    w.key("resps").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(tokenizer.decode(s.completion));
    w.end_array().key("filtered_resps").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(s.grade.answer);
    w.end_array().key("right").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(s.grade.right());
    w.end_array().key("mode").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(s.grade.mode);
    w.end_array().key("tokens").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(s.completion.size());
    w.end_array().key("reason").begin_array();
    for (const tasks::Sample& s : item.samples) w.value(s.grade.reason);
    w.end_array().member("doc_hash", hash_bytes(item.problem.text)).member("prompt_hash", hash_bytes(prompt));
    w.member("target_hash", hash_bytes(fmt::format("{}", item.problem.target))).end_object();
    log.eval_item(task_.name(), stamp, json);
  }
}

Evaluation Evaluator::run(engine::Engine& engine, const EvalOptions& options) const {
  Evaluation out;
  const int new_tokens = static_cast<int>(recipe_.max_completion_length());
  const engine::Sampling sampling{.temperature = static_cast<float>(recipe_.temperature())};
  const std::string stamp = utc_stamp(unix_time());
  std::deque<std::pair<const char*, tasks::EvalResult>> results;  // the log gets all of them or none
  const auto evaluate = [&](const std::vector<tasks::Problem>& problems, int64_t samples, const engine::Sampling& s,
                            const char* kind) -> const tasks::EvalResult& {
    const auto goes_on = [&](int64_t) { return !(options.may_stop && stop_requested()); };
    results.emplace_back(kind, rl::evaluate(engine, task_, problems, static_cast<int>(samples), s, new_tokens,
                                            recipe_.run.seed, goes_on));
    if (!goes_on(0)) throw_error(Exit::resumable, "stopped; the evaluation begins anew with the same command");
    return results.back().second;
  };

  const tasks::EvalResult& sampled = evaluate(problems_, recipe_.eval.samples, sampling, "sampled");
  out.metrics = sampled.metrics();
  out.accuracy = sampled.accuracy;
  out.standard_error = sampled.standard_error;
  out.line = fmt::format("accuracy {:.3f}", out.accuracy);
  if (!std::isnan(out.standard_error)) out.line += fmt::format(" ± {:.3f}", out.standard_error);
  out.line += fmt::format(" at T = {:g}", recipe_.temperature());
  if (recipe_.eval.greedy) {
    const tasks::EvalResult& greedy = evaluate(problems_, 1, {.temperature = 0}, "greedy");
    for (const auto& [name, value] : greedy.metrics())
      if (name != "pass@1") out.metrics.emplace_back("greedy/" + name, value);
    out.line += fmt::format(", greedy {:.3f}", greedy.accuracy);
  }
  if (options.with_pass && !pass_problems_.empty()) {
    const tasks::EvalResult& pass = evaluate(pass_problems_, recipe_.eval.pass_samples, sampling, "pass");
    // Only those, so that all of them are of the same problems.
    const auto of_many = [](const std::string& name) { return name.starts_with("pass@") || name.starts_with("cons@"); };
    std::erase_if(out.metrics, [&](const auto& m) { return of_many(m.first); });
    for (const auto& [name, value] : pass.metrics()) {
      if (!of_many(name)) continue;
      out.metrics.emplace_back(name, value);
      if (name == "pass@8") out.line += fmt::format(", pass@8 {:.3f}", value);
    }
  }
  if (options.log)
    for (const auto& [kind, r] : results) write_items(r, kind, *options.log, stamp, options.step, options.stage);
  if (const double people = column_mean(problems_, "human_solved_rate"); !std::isnan(people)) {
    out.metrics.emplace_back("human_solved_rate", people);
    out.line += fmt::format(", people {:.3f}", people);
  }
  const auto at = [&](const char* name) {
    const auto it =
        std::find_if(out.metrics.begin(), out.metrics.end(), [&](const auto& m) { return m.first == name; });
    return it == out.metrics.end() ? 0.0 : it->second;
  };
  out.line += fmt::format(", length {:.1f}, search {:.2f}, rejected leaves {:.1f}", at("completions/mean_length"),
                          at("mode/search/share"), at("search/rejected_leaves"));
  if (options.dir)
    write_file_atomic(options.dir->file(fmt::format("eval/results_{}_step-{:06}.json", stamp, options.step)),
                      lm_eval_json(std::string(task_.name()), out.metrics, problem_count()));
  return out;
}

EvalOutcome evaluate_stage(const Run& run, const Evaluator& evaluator, engine::Engine& engine, int64_t step,
                           bool with_pass, bool may_stop) {
  const Evaluation e = evaluator.run(engine, {.with_pass = with_pass,
                                              .may_stop = may_stop,
                                              .log = run.log.get(),
                                              .dir = &run.dir,
                                              .step = step,
                                              .stage = run.plan.stage[run.stage].name});
  EvalOutcome out{.metrics = {}, .line = e.line, .score_name = "accuracy", .score = e.accuracy};
  for (const auto& [name, value] : e.metrics) out.metrics.emplace_back(evaluator.tag() + "/" + name, value);
  return out;
}

std::string lm_eval_json(const std::string& task, const tasks::Metrics& metrics, int64_t samples) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().key("results").begin_object().key(task).begin_object().member("alias", task);
  for (const auto& [name, value] : metrics) w.member(name + ",none", value);
  w.end_object().end_object();
  w.key("configs").begin_object().key(task).begin_object().member("task", task).end_object().end_object();
  w.key("versions").begin_object().member(task, 1).end_object();
  w.key("n-shot").begin_object().member(task, 0).end_object();
  w.key("higher_is_better").begin_object().key(task).begin_object().member("accuracy", true).end_object().end_object();
  w.key("n-samples").begin_object().key(task).begin_object().member("original", samples).member("effective", samples);
  w.end_object().end_object().end_object();
  return json + "\n";
}

}  // namespace ponder::app
