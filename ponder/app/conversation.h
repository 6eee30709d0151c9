// From what people say to token ids: conversations through the model's chat template, raw texts, a miniature's puzzles.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/app/model_source.h"

namespace ponder::app {

class Arguments;

// --think, and what requests say about it. `automatic` leaves it to the template.
struct Thinking {
  enum class Mode : uint8_t { automatic, on, off };
  Mode mode = Mode::automatic;
  int64_t budget = -1;  // tokens of reasoning, after which it is ended; -1: none
};
// "on", "off" or a number of tokens (0: off). Throws Error (usage).
Thinking parse_thinking(const std::string& text);

// What a request says: reasoning_effort, thinking {type, budget_tokens}, think, thinking_token_budget,
// chat_template_kwargs {enable_thinking, thinking}; nothing: `otherwise`. Throws Error (data).
Thinking request_thinking(const nlohmann::json& request, const Thinking& otherwise);
bool is_thinking_key(const std::string& key);

// The model reasons before it answers: its template knows </think>.
bool model_thinks(const LoadedModel& loaded);
// What --think can do here: warns where the template does not know of thinking. Throws Error (usage) for on and off where
// there is no template (`raw`); a number of tokens holds for whatever thinking there is.
void check_thinking(const Thinking& thinking, const LoadedModel& loaded, bool raw);

struct Message {
  std::string role, content, reasoning;
  bool operator==(const Message&) const = default;
};
// Messages as templates see them, and as {"messages": [...]}, one line, which sft and generate read, too.
text::jinja::Value message_list(const std::vector<Message>& messages);
std::string conversation_json(const std::vector<Message>& messages);
// Throws Error (data) for what is no conversation of texts.
std::vector<Message> parse_conversation(std::string_view json, const std::string& name);

// The text that the model is to continue. Thinking `on` makes it end in <think> and `off` in an empty
// <think>\n\n</think>\n\n, by the template's own switch where it has one. Throws Error (data) where there is no template.
std::string render_prompt(const LoadedModel& loaded, text::ChatRequest request, Thinking::Mode mode);
// Its ids: special tokens that a template spells are recognised, in the words of a user, too (as Hugging Face does it).
// A template has its own BOS, so none is added.
std::vector<int32_t> encode_rendered(const LoadedModel& loaded, const std::string& text);
// A raw text: BOS in front where the model's texts begin with one.
std::vector<int32_t> encode_raw(const LoadedModel& loaded, const std::string& text);

// How a line becomes a prompt.
struct Prompt {
  std::vector<int32_t> ids;
  std::optional<tasks::Problem> problem;  // of the task that the model's folder names
  std::string note;                       // worth saying, but no error
};
// By the folder's task; else as the one message of a user; or, `raw` and for base models, as it stands. Throws Error
// (data) that says what is allowed.
Prompt make_prompt(const LoadedModel& loaded, const std::string& line, bool raw,
                   Thinking::Mode mode = Thinking::Mode::automatic);
// {"messages", "tools"?, "chat_template_kwargs"?, ...} through the template. `line`: the object as text, whose order of
// keys the template shows. A miniature takes the last message of the user.
Prompt make_chat_prompt(const LoadedModel& loaded, const nlohmann::json& request, std::string_view line,
                        Thinking::Mode mode);
// The same request for ChatTemplate::render: messages, tools, documents, add_generation_prompt, continue_final_message,
// kwargs or chat_template_kwargs, now.
text::ChatRequest chat_request(const nlohmann::json& request, std::string_view line);

}  // namespace ponder::app
