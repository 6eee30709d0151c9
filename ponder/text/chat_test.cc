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

}  // namespace
}  // namespace ponder::text
