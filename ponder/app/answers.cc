#include "ponder/app/answers.h"

#include <algorithm>

#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"

namespace ponder::app {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

}  // namespace

AnswerText::AnswerText(const text::Tokenizer& tokenizer, const std::vector<int32_t>& prompt)
    : tokenizer_(tokenizer),
      tag_tokens_(tokenizer.find(kClose).has_value()),
      splitter_(prompt.empty() ? "" : tokenizer.decode(std::span(prompt).last(std::min<size_t>(prompt.size(), 16))),
                tag_tokens_ ? text::ThinkSplitter::Tags::token : text::ThinkSplitter::Tags::text) {}

std::vector<AnswerText::Delta> AnswerText::push(int32_t id) {
  if (tokenizer_.is_special(id)) return {};
  const std::string& token = tokenizer_.token(id);
  if (tag_tokens_ && (token == kOpen || token == kClose)) {
    first_ = true;  // the text behind a tag begins without a space
    return splitter_.push(token);
  }
  const std::string piece = utf8_.push(tokenizer_.piece(id, first_));
  first_ = false;
  return piece.empty() ? std::vector<Delta>() : splitter_.push(piece);
}

std::vector<AnswerText::Delta> AnswerText::finish() {
  std::vector<Delta> out;
  if (const std::string rest = utf8_.flush(); !rest.empty()) out = splitter_.push(rest);
  for (Delta& d : splitter_.finish()) out.push_back(std::move(d));
  return out;
}

Prompt make_prompt(const LoadedModel& loaded, const std::string& line, bool raw) {
  Prompt out;
  if (loaded.task && !raw) {
    tasks::ParsedLine parsed = loaded.task->parse_line(line);
    if (!parsed.problem) throw_error(Exit::data, "{}", parsed.error);
    out.ids = loaded.task->prompt(*parsed.problem);
    out.problem = std::move(parsed.problem);
    out.note = std::move(parsed.note);
    return out;
  }
  if (!loaded.tokenizer)
    throw_error(Exit::data, "{}: it has no tokenizer.json, so only \"ids\" can be used", loaded.path);
  out.ids = loaded.tokenizer->encode(line);
  // A text begins where training texts begin.
  if (const auto bos = loaded.tokenizer->special().bos; !raw && bos) out.ids.insert(out.ids.begin(), *bos);
  if (out.ids.empty()) throw_error(Exit::data, "the prompt is empty");
  return out;
}

engine::Sampling sampling_options(const Arguments& args, const LoadedModel& loaded) {
  const bool greedy = loaded.task != nullptr;
  return {.temperature = static_cast<float>(args.number("temperature", greedy ? 0 : 0.6, 0, 100)),
          .top_p = static_cast<float>(args.number("top-p", greedy || args.has("temperature") ? 1 : 0.95, 0, 1)),
          .min_p = static_cast<float>(args.number("min-p", 0, 0, 1)),
          .top_k = static_cast<int32_t>(args.integer("top-k", 0, 0, 1 << 30))};
}

int default_max_tokens(const LoadedModel& loaded, size_t prompt_tokens) {
  const int64_t context = loaded.model->config().max_position_embeddings;
  const int64_t wanted = loaded.task ? loaded.task->max_text_tokens() : 512 + static_cast<int64_t>(prompt_tokens);
  return static_cast<int>(std::max<int64_t>(1, std::min(context, wanted) - static_cast<int64_t>(prompt_tokens)));
}

std::vector<int32_t> stop_tokens(const LoadedModel& loaded) {
  if (!loaded.tokenizer || !loaded.tokenizer->special().eos) return {};
  return {*loaded.tokenizer->special().eos};
}

std::unique_ptr<engine::Engine> make_chat_engine(const LoadedModel& loaded, const kernels::Backend& backend,
                                                 int64_t answers, int64_t tokens, bool draft) {
  const model::Model& m = *loaded.model;
  const int64_t page_bytes = m.kv_layers() * m.page_layout().page_floats() * static_cast<int64_t>(sizeof(float));
  const int64_t each = (tokens + 2 + kernels::kPageSize - 1) / kernels::kPageSize;
  engine::EngineConfig config;
  config.max_sequences = static_cast<int>(std::clamp<int64_t>(answers, 1, engine::default_sequences(m)));
  config.pages = std::max(each, std::min(config.max_sequences * each, memory_bytes() / 4 / page_bytes));
  config.remember_answers = true;
  config.draft = draft;
  return std::make_unique<engine::Engine>(m, backend, config);
}

}  // namespace ponder::app
