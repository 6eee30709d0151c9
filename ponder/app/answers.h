// From requests to answers as text: what chat and generate share.
//
// The engine knows tokens only. Here they become text, thinking apart from the answer; stop strings end an answer, so
// does a loop; and where the budget of thinking is used up, the model's end phrase is put in and the answer goes on
// behind it (as a new request to the engine whose prompt is all there is so far: its pages are still there, and tokens
// are functions of seed and position).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ponder/app/model_source.h"
#include "ponder/base/error.h"
#include "ponder/engine/engine.h"
#include "ponder/text/stream.h"

namespace ponder::app {

class Arguments;

// --activations, --mla and --cache-type. Scores are exact where nobody asks otherwise (`exact`); chat and generate take
// activations in 8 bits for models in blocks, which is what these are made for.
// The form of latent attention is likewise absorbed, or by token, which is faster and makes no sense for a whole known text.
model::ModelOptions model_options(const Arguments& args, bool exact);  // of the weights as stored
kernels::Activations activations_option(const Arguments& args, const LoadedModel& loaded, bool exact);
kernels::Activations parse_activations(const std::string& name);
model::MlaForm mla_form(const std::string& name, bool exact);

// An answer's tokens as text, thinking apart. Special tokens (<bos>, <end>) are no text.
class AnswerText {
 public:
  AnswerText(const text::Tokenizer& tokenizer, const std::vector<int32_t>& prompt);
  using Delta = text::ThinkSplitter::Delta;
  using State = text::ThinkSplitter::State;
  std::vector<Delta> push(int32_t id);
  std::vector<Delta> finish();
  State state() const { return splitter_.state(); }

 private:
  const text::Tokenizer& tokenizer_;
  text::Utf8Stream utf8_;
  bool tag_tokens_, first_ = true;
  text::ThinkSplitter splitter_;
};

// Lets text through up to the first of some strings. What may be the beginning of one is held back.
class StopStrings {
 public:
  StopStrings() = default;
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  std::string push(std::string_view text);
  std::string flush();  // the end of the text
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

// The texts of one request, as they are: throws Error (`code`, in the name of what said them) for an empty one, which
// would end every answer at once, and for too many.
void check_stops(const std::vector<std::string>& stops, const char* name, Exit code);
std::vector<std::string> stop_option(const Arguments& args);  // --stop

// True where the last tokens are one piece of at most 128 tokens over and over, 8 times and 192 tokens at least.
bool repeats_itself(std::span<const int32_t> tokens);

struct AnswerRequest {
  std::vector<int32_t> prompt;
  std::vector<uint64_t> seeds = {0};  // one answer for each
  engine::Sampling sampling;
  int max_tokens = 512;
  std::vector<int32_t> stop_tokens;
  std::vector<std::string> stop;
  bool stop_in_reasoning = false;   // stop strings end the thinking, too
  int64_t think_budget = -1;        // tokens; -1: none
  std::vector<int32_t> end_phrase;  // what is put in at its end
  bool loop_guard = false;
};

enum class StopDetail : uint8_t { eos, stop_string, max_tokens, context_full, loop_guard, cancelled };
const char* stop_detail_name(StopDetail detail);

struct Answer {
  std::vector<int32_t> ids;  // the stop token included
  std::vector<float> logp;   // NaN for what was put in
  std::string content, reasoning;
  bool thought = false;
  int64_t reasoning_tokens = 0;  // tags included, and what was put in
  int64_t inserted_at = -1;      // where in `ids` the end phrase stands; -1: nowhere
  int64_t inserted = 0;          // its tokens
  bool done = false;
  StopDetail detail = StopDetail::cancelled;  // why it is

  // "stop" or "length", as in OpenAI's interface.
  const char* finish_reason() const;
};

// Several requests in one engine.
class Answering {
 public:
  using Sink = std::function<void(size_t answer, const AnswerText::Delta&)>;

  Answering(const LoadedModel& loaded, engine::Engine& engine) : loaded_(loaded), engine_(engine) {}
  // Throws Error where it cannot fit. `sink` (may be empty) gets the text as it comes.
  int64_t add(AnswerRequest request, Sink sink = {});
  void step();  // one forward pass
  bool idle() const { return running_ == 0; }
  int64_t running() const { return running_; }  // answers
  bool done(int64_t id) const;
  void cancel_all();
  // The answers of a request, in the order of their seeds; it is forgotten.
  std::vector<Answer> take(int64_t id);
  // So far.
  const std::vector<Answer>& answers(int64_t id) const { return jobs_.at(id).answers; }

 private:
  struct Stream {
    std::optional<AnswerText> text;  // none: there is no tokenizer
    StopStrings content, reasoning;
    bool in_reasoning = false;
  };
  struct Job {
    AnswerRequest request;
    Sink sink;
    std::vector<Answer> answers;
    std::vector<Stream> streams;
  };
  struct Place {  // of an answer of the engine
    Job* job;
    size_t answer;
  };

  void accept(const engine::Event& event);
  void push(Job& job, size_t index, int32_t token, float logp);
  void show(Job& job, size_t index, const AnswerText::Delta& delta);
  void end_thinking(const Place& place, const engine::Event& event);
  void finish(Job& job, size_t index, StopDetail detail);

  const LoadedModel& loaded_;
  engine::Engine& engine_;
  std::map<int64_t, Job> jobs_;
  std::map<std::pair<int64_t, int32_t>, Place> places_;  // by request and answer of the engine
  int64_t next_ = 0, running_ = 0;
};

// The longest answer where nobody says it.
int default_max_tokens(const LoadedModel& loaded, size_t prompt_tokens);
std::vector<int32_t> stop_tokens(const LoadedModel& loaded);

// An engine for `answers` at once, the longest of `tokens` with its prompt, within a quarter of the machine's memory.
struct EngineSize {
  int64_t answers = 1, tokens = 0;
};
std::unique_ptr<engine::Engine> make_answer_engine(const LoadedModel& loaded, const kernels::Backend& backend,
                                                   const EngineSize& size, kernels::Activations activations,
                                                   bool draft);
// The longest context that fits, at most the model's.
int64_t affordable_context(const LoadedModel& loaded);

}  // namespace ponder::app
