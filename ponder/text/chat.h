// Chat templates: a conversation becomes the text that a model was trained to continue.
//
//   const ChatTemplate t(read_file("chat_template.jinja"), "chat_template.jinja", {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
//   t.render({.messages = jinja::Value::from_json(R"([{"role": "user", "content": "Hi"}])", "messages")});
//
// What stands around the template is as transformers' apply_chat_template has it (5.x), byte for byte.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ponder/text/jinja/jinja.h"

namespace ponder::text {

struct ChatRequest {
  // A list of dicts with "role" and "content" (text or a list of parts). Reasoning may be called reasoning_content,
  // thinking or reasoning; the template sees it as reasoning_content and thinking.
  jinja::Value messages = jinja::Value::list({});
  jinja::Value tools;                            // a list of JSON schemas, or None
  jinja::Value documents;                        // a list of dicts, or None
  jinja::Value kwargs = jinja::Value::dict({});  // further variables: enable_thinking, date_string ...
  bool add_generation_prompt = true;             // the cue for the assistant's turn
  bool continue_final_message = false;           // the text ends in the last message's content, for the model to go on
  std::optional<std::tm> now;                    // what strftime_now shows; else the local time
};

class ChatTemplate {
 public:
  // Variables such as {"bos_token", "<s>"}.
  using SpecialTexts = std::vector<std::pair<std::string, std::string>>;

  ChatTemplate(std::string source, std::string name, SpecialTexts special);

  // Everything wrong with the conversation or the template is an Error that begins with the template's name.
  std::string render(const ChatRequest& request, jinja::RenderOptions limits = {}) const;

  const std::string& source() const { return source_; }
  const std::string& name() const { return template_.name(); }

 private:
  std::string source_;
  SpecialTexts special_;
  jinja::Template template_;
};

// "2025-01-05T09:08:07", also without the time; an Error else.
std::tm parse_date_time(const std::string& text);

}  // namespace ponder::text
