// From requests to answers as text: what chat and generate share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ponder/app/model_source.h"
#include "ponder/engine/engine.h"
#include "ponder/text/stream.h"

namespace ponder::app {

class Arguments;

// An answer's tokens as text, thinking apart. Special tokens (<bos>, <end>) are no text.
class AnswerText {
 public:
  AnswerText(const text::Tokenizer& tokenizer, const std::vector<int32_t>& prompt);
  using Delta = text::ThinkSplitter::Delta;
  std::vector<Delta> push(int32_t id);
  std::vector<Delta> finish();

 private:
  const text::Tokenizer& tokenizer_;
  text::Utf8Stream utf8_;
  bool tag_tokens_, first_ = true;
  text::ThinkSplitter splitter_;
};

// How a line becomes a prompt: by the task that the model's folder names, or, `raw` or without a task, as it stands.
struct Prompt {
  std::vector<int32_t> ids;
  std::optional<tasks::Problem> problem;
  std::string note;  // worth saying, but no error
};
// Throws Error (data) that says what is allowed.
Prompt make_prompt(const LoadedModel& loaded, const std::string& line, bool raw);

// --temperature and so on, over the model's defaults: greedy for a miniature with a task (it searches best so), else
// 0.6 and 0.95 as R1 is meant to be sampled.
engine::Sampling sampling_options(const Arguments& args, const LoadedModel& loaded);
// The longest answer where nobody says it.
int default_max_tokens(const LoadedModel& loaded, size_t prompt_tokens);
std::vector<int32_t> stop_tokens(const LoadedModel& loaded);

// An engine for `answers` at once, the longest of `tokens` with its prompt, within a quarter of the machine's memory.
std::unique_ptr<engine::Engine> make_chat_engine(const LoadedModel& loaded, const kernels::Backend& backend,
                                                 int64_t answers, int64_t tokens, bool draft);

}  // namespace ponder::app
