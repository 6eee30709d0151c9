#include "ponder/tasks/task.h"

#include "ponder/base/config.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/tasks/puzzle/countdown.h"
#include "ponder/tasks/puzzle/game24.h"

namespace ponder::tasks {

std::string_view split_name(Split split) { return split == Split::train ? "train" : "held_out"; }

std::string_view verdict_name(Grade::Verdict verdict) {
  return verdict == Grade::Verdict::right ? "right" : verdict == Grade::Verdict::wrong ? "wrong" : "unknown";
}

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  if (config.name == "countdown") return std::make_unique<Countdown>(config);
  if (config.name == "game24") return std::make_unique<Game24>(config);
  throw_error(Exit::data, "there is no task \"{}\"; countdown and game24 exist", config.name);
}

void save_task(const Task& task, const std::string& folder) {
  TaskConfig config = task.config();
  write_file_atomic(join_path(folder, "task.toml"), resolved_toml(config));
  task.tokenizer().save(join_path(folder, "tokenizer.json"));
}

std::unique_ptr<Task> load_task(const std::string& folder) {
  TaskConfig config;
  Recipe recipe = Recipe::load(join_path(folder, "task.toml"));
  recipe.bind(config);
  auto task = make_task(config);
  // Ids are the model's contract: a vocabulary that differs from the task's would turn numbers into other numbers.
  const std::string path = join_path(folder, "tokenizer.json");
  if (path_exists(path)) {
    const auto stored = text::load_tokenizer(path);
    const text::Tokenizer& own = task->tokenizer();
    bool same = stored->vocab_size() == own.vocab_size();
    for (int32_t i = 0; same && i < own.vocab_size(); ++i) same = stored->token(i) == own.token(i);
    if (!same) {
      throw_error(Exit::data, "{}: not the vocabulary of the task in {}; the folder mixes two models", path,
                  join_path(folder, "task.toml"));
    }
  }
  return task;
}

namespace {
void check_not_empty(const Task& task, Split split) {
  if (task.problem_count(split) == 0)
    throw_error(Exit::data,
                "task {} has no {} problems: change held_out_share, its numbers, or what the stage asks for",
                task.name(), split_name(split));
}
}  // namespace

std::string example_text(const Task& task) {
  return task.problem(task.problem_count(Split::held_out) > 0 ? Split::held_out : Split::train, 0).text;
}

Problem draw_problem(const Task& task, Split split, CounterRng& rng) {
  const int64_t count = task.problem_count(split);
  check_not_empty(task, split);
  return task.problem(split, static_cast<int64_t>(rng.below(static_cast<uint64_t>(count))));
}

std::vector<Problem> choose_problems(const Task& task, Split split, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(task.problem_count(split)));
  check_not_empty(task, split);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  CounterRng rng(seed, Stream::eval_problems, 0);
  rng.shuffle(order);
  std::vector<Problem> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(task.problem(split, order[static_cast<size_t>(i) % order.size()]));
  return out;
}

std::span<const int32_t> Corpus::text(int64_t i) const {
  const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(i)]);
  return std::span(ids).subspan(begin, static_cast<size_t>(offsets[static_cast<size_t>(i) + 1]) - begin);
}

Corpus make_corpus(const Task& task, int64_t tokens, uint64_t seed) {
  Corpus out;
  out.ids.reserve(static_cast<size_t>(tokens) + 1024);
  const uint64_t key = stream_key(seed, Stream::corpus);
  for (uint64_t draw = 0; static_cast<int64_t>(out.ids.size()) < tokens; ++draw) {
    CounterRng rng(key, draw);
    const Problem problem = draw_problem(task, Split::train, rng);
    const auto text = task.trace(problem, rng);
    if (static_cast<int>(text.size()) > task.max_text_tokens()) continue;
    out.ids.insert(out.ids.end(), text.begin(), text.end());
    out.offsets.push_back(static_cast<int64_t>(out.ids.size()));
  }
  return out;
}

}  // namespace ponder::tasks
