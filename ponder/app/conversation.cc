#include "ponder/app/conversation.h"

#include <charconv>

#include "ponder/app/json_lines.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

using text::jinja::Value;

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kEmptyThinking = "<think>\n\n</think>\n\n";

std::string_view without_trailing_space(std::string_view s) { return s.substr(0, s.find_last_not_of(" \t\r\n") + 1); }

// The text of the last message of the user: a miniature's task makes a prompt from one line and knows no history.
std::string last_user_message(const Json& messages) {
  if (!messages.is_array()) throw_error(Exit::data, "messages: a list is expected");
  std::string text;
  for (const Json& m : messages)
    if (m.is_object() && m.value("role", Json()) == "user" && m.contains("content") && m["content"].is_string())
      text = m["content"].get<std::string>();
  if (text.empty()) throw_error(Exit::data, "messages: there is no message of the user");
  return text;
}

const text::Tokenizer& need_tokenizer(const LoadedModel& loaded) {
  if (!loaded.tokenizer)
    throw_error(Exit::data, "{}: it has no tokenizer.json, so only \"ids\" can be used", loaded.path);
  return *loaded.tokenizer;
}

// What switches thinking in templates that have a switch: enable_thinking (Qwen3), thinking (DeepSeek-V3.1). What the
// request says itself stays.
void add_switches(text::ChatRequest& request, bool on) {
  Value::Members members = request.kwargs.members();
  for (const char* name : {"enable_thinking", "thinking"})
    if (!request.kwargs.find(name)) members.emplace_back(Value::string(name), Value::boolean(on));
  request.kwargs = Value::dict(std::move(members));
}

}  // namespace

Thinking parse_thinking(const std::string& text) {
  if (text == "on") return {Thinking::Mode::on};
  if (text == "off" || text == "0") return {Thinking::Mode::off};
  if (text == "auto") return {};
  int64_t budget = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), budget);
  if (text.empty() || end.ec != std::errc() || end.ptr != text.data() + text.size() || budget < 0 || budget > 1 << 24)
    throw_error(Exit::usage, "--think {}: on, off or a number of tokens is expected", text);
  return {Thinking::Mode::on, budget};
}

namespace {

// A switch, or a level of effort in one of the spellings of OpenAI, Ollama and others.
Thinking thinking_level(const Json& value, const std::string& key) {
  using Mode = Thinking::Mode;
  if (value.is_boolean()) return {value.get<bool>() ? Mode::on : Mode::off};
  static const std::pair<const char*, Thinking> kLevels[] = {{"none", {Mode::off}},       {"minimal", {Mode::on, 2048}},
                                                             {"low", {Mode::on, 2048}},   {"medium", {Mode::on, 16384}},
                                                             {"high", {Mode::on, 16384}}, {"xhigh", {Mode::on, 16384}},
                                                             {"max", {Mode::on}},         {"ultra", {Mode::on}}};
  const std::string& text = json_text(value, key);
  for (const auto& [name, level] : kLevels)
    if (text == name) return level;
  throw_error(Exit::data, "{}: \"{}\" is none of none, minimal, low, medium, high, xhigh, max and ultra", key, text);
}

Thinking budgeted(const Json& value, const std::string& key) {
  const int64_t budget = json_integer(value, key, 0, 1 << 24);
  return budget == 0 ? Thinking{Thinking::Mode::off} : Thinking{Thinking::Mode::on, budget};
}

}  // namespace

bool is_thinking_key(const std::string& key) {
  return key == "reasoning_effort" || key == "thinking" || key == "think" || key == "thinking_token_budget";
}

Thinking request_thinking(const Json& request, const Thinking& otherwise) {
  Thinking out = otherwise;
  const auto value = [](const Json& object, const char* key) -> const Json* {
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
  };
  for (const char* where : {"kwargs", "chat_template_kwargs"})
    if (const Json* kwargs = value(request, where); kwargs && kwargs->is_object())
      for (const char* key : {"enable_thinking", "thinking"})
        if (const Json* v = value(*kwargs, key)) out = {json_bool(*v, key) ? Thinking::Mode::on : Thinking::Mode::off};
  for (const char* key : {"reasoning_effort", "think"})
    if (const Json* v = value(request, key)) out = thinking_level(*v, key);
  if (const Json* v = value(request, "thinking")) {
    const Json* const type = v->is_object() ? value(*v, "type") : nullptr;
    if (!type || (*type != "enabled" && *type != "disabled" && *type != "auto"))
      throw_error(Exit::data, "thinking: {{\"type\": \"enabled\" or \"disabled\", \"budget_tokens\"?}} is expected");
    out = {*type == "auto" ? Thinking::Mode::automatic : *type == "enabled" ? Thinking::Mode::on : Thinking::Mode::off};
    if (const Json* budget = value(*v, "budget_tokens"); budget && *type == "enabled")
      out = budgeted(*budget, "thinking.budget_tokens");
  }
  if (const Json* v = value(request, "thinking_token_budget")) out = budgeted(*v, "thinking_token_budget");
  return out;
}

bool model_thinks(const LoadedModel& loaded) {
  return loaded.chat && loaded.chat->source().find(kClose) != std::string::npos;
}

void check_thinking(const Thinking& thinking, const LoadedModel& loaded, bool raw) {
  if (thinking.mode == Thinking::Mode::automatic) return;
  if (raw && thinking.budget < 0)
    throw_error(Exit::usage,
                "--think {}: it acts through the chat template, which --raw leaves out; there only a number of tokens "
                "makes sense",
                thinking.mode == Thinking::Mode::on ? "on" : "off");
  if (!raw && !model_thinks(loaded)) log_warn("--think: nothing in this model's template is about thinking");
}

Value message_list(const std::vector<Message>& messages) {
  Value::Items items;
  for (const Message& m : messages) {
    Value::Members members = {{Value::string("role"), Value::string(m.role)},
                              {Value::string("content"), Value::string(m.content)}};
    if (!m.reasoning.empty()) members.emplace_back(Value::string("reasoning_content"), Value::string(m.reasoning));
    items.push_back(Value::dict(std::move(members)));
  }
  return Value::list(std::move(items));
}

std::string conversation_json(const std::vector<Message>& messages) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().key("messages").begin_array();
  for (const Message& m : messages) {
    w.begin_object().member("role", m.role).member("content", m.content);
    if (!m.reasoning.empty()) w.member("reasoning_content", m.reasoning);
    w.end_object();
  }
  w.end_array().end_object();
  return json;
}

std::vector<Message> parse_conversation(std::string_view text, const std::string& name) {
  const Json json = parse_json(text, name);
  if (!json.is_object() || !json.contains("messages") || !json["messages"].is_array())
    throw_error(Exit::data, "{}: {{\"messages\": [...]}} is expected", name);
  std::vector<Message> out;
  for (const Json& m : json["messages"]) {
    const auto text_of = [&](const char* key, bool needed) -> std::string {
      if (m.is_object() && m.contains(key) && m[key].is_string()) return m[key];
      if (needed || (m.is_object() && m.contains(key) && !m[key].is_null()))
        throw_error(Exit::data, "{}: message {}: {} is no text", name, out.size() + 1, key);
      return "";
    };
    out.push_back({text_of("role", true), text_of("content", true), text_of("reasoning_content", false)});
    const std::string& role = out.back().role;
    if (role != "system" && role != "user" && role != "assistant")
      throw_error(Exit::data, "{}: message {}: the role is {}; chat knows system, user and assistant", name, out.size(),
                  role);
  }
  return out;
}

std::string render_prompt(const LoadedModel& loaded, text::ChatRequest request, Thinking::Mode mode) {
  if (!loaded.chat)
    throw_error(Exit::data, "{}: it has no chat template, so it only continues texts: use --raw and \"prompt\"",
                loaded.path);
  using Mode = Thinking::Mode;
  if (mode != Mode::automatic) add_switches(request, mode == Mode::on);
  std::string text = loaded.chat->render(request);
  if (mode == Mode::automatic || !model_thinks(loaded) || !request.add_generation_prompt) return text;
  const std::string_view tail = without_trailing_space(text);
  if (mode == Mode::on && !tail.ends_with(kOpen)) {
    // R1's first template leaves it to the model, which now and then does not think at all.
    if (tail.ends_with(kClose) && tail.find(kOpen) != tail.npos)
      return text;  // the template itself has decided against it
    text += "<think>\n";
  } else if (mode == Mode::off && !tail.ends_with(kClose)) {
    if (tail.ends_with(kOpen)) text.resize(tail.size() - kOpen.size());
    text += kEmptyThinking;
  }
  return text;
}

std::vector<int32_t> encode_rendered(const LoadedModel& loaded, const std::string& text) {
  return need_tokenizer(loaded).encode(text);
}

std::vector<int32_t> encode_raw(const LoadedModel& loaded, const std::string& text) {
  const text::Tokenizer& tokenizer = need_tokenizer(loaded);
  std::vector<int32_t> ids = tokenizer.encode(text);
  const text::SpecialIds& special = tokenizer.special();
  if (special.add_bos && special.bos && (ids.empty() || ids[0] != *special.bos)) ids.insert(ids.begin(), *special.bos);
  return ids;
}

Prompt make_prompt(const LoadedModel& loaded, const std::string& line, bool raw, Thinking::Mode mode) {
  Prompt out;
  if (loaded.task && !raw) {
    tasks::ParsedLine parsed = loaded.task->parse_line(line);
    if (!parsed.problem) throw_error(Exit::data, "{}", parsed.error);
    out.ids = loaded.task->prompt(*parsed.problem);
    out.problem = std::move(parsed.problem);
    out.note = std::move(parsed.note);
  } else if (loaded.chat && !raw) {
    out.ids = encode_rendered(loaded, render_prompt(loaded, {.messages = message_list({{"user", line, ""}})}, mode));
  } else {
    out.ids = encode_raw(loaded, line);
  }
  if (out.ids.empty()) throw_error(Exit::data, "the prompt is empty");
  return out;
}

text::ChatRequest chat_request(const Json& request, std::string_view line) {
  const Value all = Value::from_json(line, "request");
  text::ChatRequest out;
  const auto value = [&](const char* key) -> Value {
    const Value* v = all.find(key);
    return v ? *v : Value();
  };
  const auto flag = [&](const char* key, bool otherwise) {
    const auto at = request.find(key);
    return at == request.end() || at->is_null() ? otherwise : json_bool(*at, key);
  };
  if (!request.contains("messages") || !request["messages"].is_array())
    throw_error(Exit::data, "messages: a list of {{\"role\", \"content\"}} is expected");
  out.messages = value("messages");
  out.tools = value("tools");
  out.documents = value("documents");
  for (const char* key : {"kwargs", "chat_template_kwargs"})
    if (request.contains(key) && !request[key].is_null()) {
      if (!request[key].is_object()) throw_error(Exit::data, "{}: an object is expected", key);
      out.kwargs = value(key);
    }
  out.continue_final_message = flag("continue_final_message", false);
  out.add_generation_prompt = flag("add_generation_prompt", !out.continue_final_message);
  if (request.contains("now")) out.now = text::parse_date_time(json_text(request["now"], "now"));
  return out;
}

Prompt make_chat_prompt(const LoadedModel& loaded, const Json& request, std::string_view line, Thinking::Mode mode) {
  if (loaded.task) return make_prompt(loaded, last_user_message(request["messages"]), false);
  Prompt out;
  out.ids = encode_rendered(loaded, render_prompt(loaded, chat_request(request, line), mode));
  if (out.ids.empty()) throw_error(Exit::data, "the prompt is empty");
  return out;
}

}  // namespace ponder::app
