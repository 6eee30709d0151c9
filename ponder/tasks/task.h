// A task yields problems and grades answers.
//
// The same grade() is the reward in RL and the score in evaluation. A task also writes the texts its models are
// pre-trained on, and it owns the tokenizer: a model folder with task.toml and tokenizer.json needs nothing else to
// answer `3 7 12 -> 33`. No tensors here; everything is a function of its arguments, so any thread may call anything.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/base/rng.h"
#include "ponder/text/tokenizer.h"

namespace ponder::tasks {

// Held-out problems occur neither in the corpus nor in RL.
enum class Split { train, held_out };
std::string_view split_name(Split split);  // "train", "held_out"

struct Problem {
  std::string id;
  std::vector<int64_t> numbers;
  int64_t target = 0;
  std::string text;                            // as people write it: "12 10 4 -> 13"
  std::map<std::string, std::string> columns;  // further columns of a record from a file, as JSON
};

// What the tokens of one answer tell without a model. Counts; an evaluation or a training step adds them up (Summary in
// evaluate.h). Everything but `truncated` and `malformed` is 0 in a guess.
struct Diagnostics {
  int checks = 0;            // low + high + yes
  int rejected = 0;          // low + high: leaves looked at and left again
  int equations = 0;         // a op b = c
  int wrong_arithmetic = 0;  // of the equations
  int leaves = 0;            // equations followed by a check
  int copy_errors = 0;       // leaves that do not use the numbers at hand
  int wrong_checks = 0;      // leaves whose check is not what the written value asks for
  int false_yes = 0;         // yes on a value off the target
  int missed_yes = 0;        // another check on the target
  bool claimed = false;      // a yes occurs
  bool gave_up = false;      // a stop occurs
  bool truncated = false;    // no end token within the limit
  bool malformed = false;    // ended, and the answer cannot be read
};

struct Grade {
  enum class Verdict { right, wrong, unknown };  // unknown: the problem itself cannot be graded
  Verdict verdict = Verdict::wrong;
  std::string reason;     // for people: "right", "6 is not the target 13", ...
  std::string_view mode;  // how the answer was found; one of Task::modes()
  std::string answer;     // its normal form: equal answers have equal strings; "" has no vote in cons@k
  Diagnostics diagnostics;

  bool right() const { return verdict == Verdict::right; }
  float score() const { return right() ? 1.0f : 0.0f; }
};
std::string_view verdict_name(Grade::Verdict verdict);  // "right", "wrong", "unknown"

// A line typed by a person: a problem, or what is wrong with it and what is allowed. `note` is said beside a problem
// that is well formed but cannot be solved.
struct ParsedLine {
  std::optional<Problem> problem;
  std::string error, note;
};

// Everything that defines a task: [task] in a recipe, and task.toml in a model folder.
struct TaskConfig {
  std::string name = "countdown";
  int numbers_to = 0;            // given numbers are 1..numbers_to; 0: as the task has it (countdown 12, game24 13)
  double held_out_share = 0.15;  // of the sets of numbers, rounded down, with all their targets
  uint64_t split_seed = 7;
  double direct_share = 0.55;  // of the corpus texts; 1 is the control without search
  double giveup_share = 0.5;   // of the searches have a budget of rejected leaves,
  double mean_leaves = 0;      // geometric with this mean, at least 1; 0: as the task has it (countdown 4, game24 12)
  // game24 only:
  int held_out_target = 24;   // never trained on; 0: none
  int max_text_tokens = 400;  // the longest text, prompt included
  bool fractions = true;      // problems that need a fraction in between are trained on too

  template <class V>
  void fields(V& v) {
    v.field("name", name, {.help = "which task", .choices = {"countdown", "game24"}});
    v.field("numbers_to", numbers_to, {.help = "given numbers are 1 to this; 0: the task's own", .min = 0, .max = 60});
    v.field("held_out_share", held_out_share, {.help = "share of the sets kept for evaluation", .min = 0, .max = 0.9});
    v.field("split_seed", split_seed, {.help = "which sets are held out"});
    v.field("direct_share", direct_share, {.help = "share of direct answers in the corpus", .min = 0, .max = 1});
    v.field("giveup_share", giveup_share, {.help = "share of searches with a budget", .min = 0, .max = 1});
    v.field("mean_leaves", mean_leaves,
            {.help = "mean budget, in rejected leaves; 0: the task's own", .min = 0, .max = 1e6});
    v.field("held_out_target", held_out_target,
            {.help = "game24: the target never trained on; 0: none", .min = 0, .max = 99});
    v.field("max_text_tokens", max_text_tokens, {.help = "game24: the longest text", .min = 64, .max = 4096});
    v.field("fractions", fractions, {.help = "game24: train on problems that need a fraction in between"});
  }
};

class Task {
 public:
  virtual ~Task() = default;

  virtual std::string_view name() const = 0;
  // With every value resolved: make_task(config()) is this task again.
  virtual const TaskConfig& config() const = 0;
  virtual const text::Tokenizer& tokenizer() const = 0;
  // The kinds of answer told apart in metrics: {"search", "guess"}.
  virtual std::span<const std::string_view> modes() const = 0;
  // No text of the corpus and no useful answer is longer than this many tokens, prompt included.
  virtual int max_text_tokens() const = 0;

  virtual int64_t problem_count(Split split) const = 0;
  virtual Problem problem(Split split, int64_t index) const = 0;

  // "3 7 12 -> 33".
  virtual ParsedLine parse_line(std::string_view line) const = 0;
  // Brings a problem from a file into the task's form (order, id, text). Returns "" or what is wrong and what is
  // allowed.
  virtual std::string admit(Problem& problem) const = 0;

  virtual std::vector<int32_t> prompt(const Problem& problem) const = 0;
  // `completion`: the tokens after the prompt, with the end token if there was one. Never throws for any tokens.
  virtual Grade grade(const Problem& problem, std::span<const int32_t> completion) const = 0;
  // A text to learn from: the prompt and one trace drawn from the task's mixture, end token included.
  virtual std::vector<int32_t> trace(const Problem& problem, CounterRng& rng) const = 0;
};

// Throws Error (data) for an unknown name or a value the task cannot have.
std::unique_ptr<Task> make_task(const TaskConfig& config);

// task.toml and tokenizer.json in a folder that exists; and back. load_task throws Error (data).
void save_task(const Task& task, const std::string& folder);
std::unique_ptr<Task> load_task(const std::string& folder);

// What a user may type: a held-out problem, where there is one.
std::string example_text(const Task& task);
// A problem drawn uniformly from a split. Throws Error (data) where a split that is asked for is empty.
Problem draw_problem(const Task& task, Split split, CounterRng& rng);
// `count` problems of a split, without repetition as far as they reach, in an order fixed by the seed.
std::vector<Problem> choose_problems(const Task& task, Split split, int64_t count, uint64_t seed);

// Texts end to end: text i is ids[offsets[i]] .. ids[offsets[i + 1] - 1].
struct Corpus {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets = {0};
  int64_t size() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::span<const int32_t> text(int64_t i) const;
};

// Texts over training problems drawn uniformly, until there are at least `tokens` of them. Texts over max_text_tokens()
// are dropped. A function of the task's options and the seed: text i does not depend on `tokens`.
Corpus make_corpus(const Task& task, int64_t tokens, uint64_t seed);

}  // namespace ponder::tasks
