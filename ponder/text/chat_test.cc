#include "ponder/text/chat.h"

#include <gtest/gtest.h>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "tests/shared.h"

namespace ponder::text {
namespace {

using jinja::Value;

Value json(const std::string& text) { return Value::from_json(text, "test"); }

// Every line of every cases.jsonl: the bytes that transformers renders, or an error where it raises one.
TEST(ChatTemplate, GoldenCases) {
  const auto folder = test::shared_folder() / "golden/text/templates";
  PONDER_NEED_SHARED(folder);
  const Value index = json(read_file((folder / "templates.json").string(), size_t{1} << 20));
  const std::string text = read_file((folder / "cases.jsonl").string(), size_t{64} << 20);
  int cases = 0, line_number = 0;
  for (size_t at = 0; at < text.size(); ++line_number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const Value c = json(text.substr(at, end - at));
    at = end + 1;
    SCOPED_TRACE(fmt::format("line {} ({})", line_number + 1, c.find("template")->text()));
    const Value& entry = *index.find(c.find("template")->text());
    ChatTemplate::SpecialTexts special;
    for (const auto& [key, value] : entry.find("special")->members()) special.emplace_back(key.text(), value.text());
    const std::string file = entry.find("file")->text();
    const ChatTemplate chat(read_file((folder / file).string(), size_t{1} << 20), file, special);
    ChatRequest request{.messages = *c.find("messages")};
    if (const Value* v = c.find("tools")) request.tools = *v;
    if (const Value* v = c.find("kwargs")) request.kwargs = *v;
    if (const Value* v = c.find("now")) request.now = parse_date_time(v->text());
    if (const Value* v = c.find("continue_final_message")) request.continue_final_message = v->truth();
    request.add_generation_prompt = c.find("add_generation_prompt")->truth();
    if (c.find("error")) {
      EXPECT_THROW(chat.render(request), Error);
    } else {
      std::string rendered;
      try {
        rendered = chat.render(request);
      } catch (const Error& e) {
        ADD_FAILURE() << e.what();
      }
      EXPECT_EQ(rendered, c.find("rendered")->text());
    }
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

ChatTemplate simple(const std::string& source) { return ChatTemplate(source, "chat", {{"bos_token", "<s>"}}); }

TEST(ChatTemplate, VariablesAsTransformersGivesThem) {
  ChatRequest r{.messages = json(R"([{"role": "user", "content": "hi", "reasoning": "why"}])"),
                .kwargs = json(R"({"x": 5})")};
  EXPECT_EQ(simple("{{ bos_token }}{{ tools is none }}{{ documents is defined }}{{ x }}{{ add_generation_prompt }}")
                .render(r),
            "<s>TrueTrue5True");
  EXPECT_EQ(simple("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}{{ messages[0] | list }}").render(r),
            "whywhy['thinking', 'role', 'content', 'reasoning', 'reasoning_content']");
  r.now = parse_date_time("2024-02-29 23:01:02");
  EXPECT_EQ(simple("{{ strftime_now('%A %d %b %Y %j %H:%M') }}").render(r), "Thursday 29 Feb 2024 060 23:01");
  EXPECT_THROW(parse_date_time("yesterday"), Error);
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  ChatRequest r{.messages = json(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}])"),
                .continue_final_message = true};
  const std::string loop = "{% for m in messages %}<{{ m.content }}>{% endfor %}end";
  EXPECT_EQ(simple(loop).render(r), "<a><b ");
  EXPECT_EQ(simple("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}end").render(r), "<a><b");
  EXPECT_THROW(simple("{{ messages[0].content }}").render(r), Error);  // the last message is not shown
  EXPECT_THROW(simple("{{ messages | length }}").render(r), Error);
  r.messages = json(R"([{"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "image"}]}])");
  EXPECT_EQ(simple("{% for p in messages[0].content %}{{ p.text }}{% endfor %}end").render(r), "b");
  r.messages = json(R"([{"role": "assistant", "content": null}])");
  EXPECT_THROW(simple(loop).render(r), Error);
  r.messages = json("[]");
  EXPECT_THROW(simple(loop).render(r), Error);
}

TEST(ChatTemplate, RefusesWhatIsNoConversation) {
  EXPECT_THROW(simple("").render({.messages = json("{}")}), Error);
  EXPECT_THROW(simple("").render({.messages = json("[1]")}), Error);
  EXPECT_THROW(simple("").render({.tools = json("[1]")}), Error);
  EXPECT_THROW(simple("").render({.kwargs = json("[]")}), Error);
  EXPECT_THROW(simple("{{ nothing.at.all }}").render({}), Error);
  EXPECT_THROW(simple("{% if %}"), Error);
}

}  // namespace
}  // namespace ponder::text
