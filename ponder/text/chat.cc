#include "ponder/text/chat.h"

#include <algorithm>
#include <cstdio>

#include "ponder/text/jinja/text.h"

namespace ponder::text {
namespace {

using jinja::Value;

constexpr std::string_view kReasoningNames[] = {"reasoning_content", "thinking", "reasoning"};
// Put behind the last message's content to find its end in the rendered text; the trailing space tells whether the
// template trims. transformers' words, since a conversation may hold them.
constexpr std::string_view kMark = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr std::string_view kBareMark = kMark.substr(0, kMark.size() - 1);

Value with_reasoning_names(const Value& message) {
  for (const auto name : kReasoningNames) {
    const Value* reasoning = message.find(name);
    if (!reasoning || reasoning->is_none()) continue;
    Value::Members members = {{Value::string("thinking"), *reasoning}};
    members.insert(members.end(), message.members().begin(), message.members().end());
    return Value::dict(std::move(members)).with("reasoning_content", *reasoning);
  }
  return message;
}

// The message with the mark behind its text, and that text.
std::pair<Value, std::string> marked(const Value& message, const std::string& name) {
  const Value* content = message.find("content");
  if (!content || content->is_none())
    throw_error(Exit::data, "{}: continue_final_message: the last message has no content to continue", name);
  if (content->is_string()) {
    const std::string& text = content->text();
    return {message.with("content", Value::string(text + std::string(kMark))), text};
  }
  if (content->is_sequence()) {
    Value::Items parts = content->items();
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      const Value* text = part->find("text");
      if (!text || !text->is_string()) continue;
      const std::string before = text->text();
      *part = part->with("text", Value::string(before + std::string(kMark)));
      return {message.with("content", Value::list(std::move(parts))), before};
    }
  }
  throw_error(Exit::data, "{}: continue_final_message: the last message has no text to continue", name);
}

// The rendered text up to the mark.
std::string cut_at_mark(std::string rendered, const std::string& content, const std::string& name) {
  const size_t mark = rendered.rfind(kBareMark);
  const std::string_view text = jinja::strip(content, jinja::Side::both);
  if (mark == rendered.npos || jinja::find_text(rendered, text) == rendered.npos)
    throw_error(Exit::data,
                "{}: continue_final_message: the template does not show the last message's content as it is, "
                "so there is no place to continue",
                name);
  const bool kept_space = rendered.compare(mark, kMark.size(), kMark) == 0;
  rendered.resize(mark);
  if (!kept_space) rendered.resize(jinja::strip(rendered, jinja::Side::right).size());
  return rendered;
}

void check_list_of_dicts(const Value& list, const char* what, const std::string& name) {
  if (!list.is_sequence()) throw_error(Exit::data, "{}: {} must be a list, not {}", name, what, jinja::described(list));
  for (size_t i = 0; i < list.items().size(); ++i)
    if (!list.items()[i].is_dict())
      throw_error(Exit::data, "{}: {}[{}] must be an object, not {}", name, what, i, jinja::described(list.items()[i]));
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string name, SpecialTexts special)
    : source_(std::move(source)),
      special_(std::move(special)),
      template_(jinja::Template::parse(source_, std::move(name))) {}

std::string ChatTemplate::render(const ChatRequest& request, jinja::RenderOptions limits) const {
  check_list_of_dicts(request.messages, "messages", name());
  if (!request.tools.is_none()) check_list_of_dicts(request.tools, "tools", name());
  if (!request.documents.is_none()) check_list_of_dicts(request.documents, "documents", name());
  if (!request.kwargs.is_dict()) throw_error(Exit::data, "{}: kwargs must be an object", name());

  Value::Items messages;
  for (const Value& m : request.messages.items()) messages.push_back(with_reasoning_names(m));
  std::string final_text;
  if (request.continue_final_message) {
    if (messages.empty()) throw_error(Exit::data, "{}: continue_final_message: there is no message", name());
    if (source_.find("content") == source_.npos)
      throw_error(Exit::data, "{}: continue_final_message: the template shows no content", name());
    std::tie(messages.back(), final_text) = marked(messages.back(), name());
  }

  Value::Members variables;
  const auto set = [&](std::string_view key, Value v) {
    variables.emplace_back(Value::string(std::string(key)), std::move(v));
  };
  for (const auto& [key, text] : special_) set(key, Value::string(text));
  for (const auto& [key, value] : request.kwargs.members()) variables.emplace_back(key, value);
  set("messages", Value::list(std::move(messages)));
  set("tools", request.tools);
  set("documents", request.documents);
  set("add_generation_prompt", Value::boolean(request.add_generation_prompt));
  if (request.now) limits.now = request.now;
  std::string rendered = template_.render(Value::dict(std::move(variables)), limits);
  return request.continue_final_message ? cut_at_mark(std::move(rendered), final_text, name()) : rendered;
}

std::tm parse_date_time(const std::string& text) {
  std::tm t{};
  int end = 0;
  const auto in = [](int v, int low, int high) { return v >= low && v <= high; };
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &t.tm_year, &t.tm_mon, &t.tm_mday, &end) == 3) {
    int more = 0;
    if (static_cast<size_t>(end) != text.size() &&
        std::sscanf(text.c_str() + end, "%*1[T ]%2d:%2d:%2d%n", &t.tm_hour, &t.tm_min, &t.tm_sec, &more) == 3)
      end += more;
    if (static_cast<size_t>(end) == text.size() && in(t.tm_year, 1, 9999) && in(t.tm_mon, 1, 12) &&
        in(t.tm_mday, 1, 31) && in(t.tm_hour, 0, 23) && in(t.tm_min, 0, 59) && in(t.tm_sec, 0, 59)) {
      t.tm_year -= 1900;
      t.tm_mon -= 1;
      t.tm_isdst = -1;
      return t;
    }
  }
  throw_error(Exit::data, "\"{}\" is no date; expected a form like 2025-01-05T09:08:07", text.substr(0, 100));
}

}  // namespace ponder::text
