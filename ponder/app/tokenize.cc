// tokenize and template render: what a model makes of texts and conversations, JSON Lines in and out. No weights are
// read.
#include "ponder/app/commands.h"
#include "ponder/app/conversation.h"
#include "ponder/app/json_lines.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"

namespace ponder::app {
namespace {

// {"id"?} and what `f` adds, for each line.
template <class F>
int answer_lines(const Arguments& args, F&& f) {
  return read_json_requests(
      args.text("in"),
      [&](const JsonLine& line) {
        std::string json;
        JsonWriter w(json);
        w.begin_object();
        if (line.has_id) w.key("id").raw(line.id);
        f(line, w);
        w.end_object();
        print_line(json);
      },
      [](const std::string& id, const std::string& error) { print_line(error_line(id, error)); });
}

bool is_tokenizer_file(const std::string& name) { return name.ends_with(".json") || name.ends_with(".json.zst"); }

}  // namespace

int tokenize_command(const Arguments& args) {
  const std::string& what = args.positional[0];
  const LoadedModel loaded = is_tokenizer_file(what) ? LoadedModel() : load_model_text(what);
  const auto own = is_tokenizer_file(what) ? text::load_tokenizer(what) : nullptr;
  const text::Tokenizer* tokenizer = own ? own.get() : loaded.tokenizer;
  if (!tokenizer) throw_error(Exit::data, "{}: it has no tokenizer", what);
  const text::Specials specials = args.has("plain") ? text::Specials::ignore : text::Specials::recognise;
  const text::SpecialIds& special = tokenizer->special();
  return answer_lines(args, [&](const JsonLine& line, JsonWriter& w) {
    const Json& json = line.value;
    if (json.contains("text")) {
      std::vector<int32_t> ids = tokenizer->encode(json_text(json["text"], "text"), specials);
      if (args.has("bos") && special.add_bos && special.bos) ids.insert(ids.begin(), *special.bos);
      w.member("ids", std::span<const int32_t>(ids));
    } else if (json.contains("ids")) {
      const std::vector<int32_t> ids = json_ids(json["ids"], "ids", tokenizer->vocab_size());
      w.member("text", tokenizer->decode(ids, args.has("skip-special")));
    } else {
      throw_error(Exit::data, "\"text\" or \"ids\" is needed");
    }
  });
}

int template_render_command(const Arguments& args) {
  const std::string& what = args.positional[0];
  const Thinking thinking = args.has("think") ? parse_thinking(args.text("think")) : Thinking{};
  if (thinking.budget >= 0)
    throw_error(Exit::usage, "--think {}: nothing is answered here, so there is no thinking to be limited; on or off",
                thinking.budget);
  LoadedModel loaded;
  if (what.ends_with(".jinja"))  // its bos_token and the like may stand in a line's kwargs
    loaded.chat = std::make_unique<text::ChatTemplate>(read_file(what), what, text::ChatTemplate::SpecialTexts{});
  else
    loaded = load_model_text(what);
  check_thinking(thinking, loaded, false);
  return answer_lines(args, [&](const JsonLine& line, JsonWriter& w) {
    w.member("rendered", render_prompt(loaded, chat_request(line.value, line.text), thinking.mode));
  });
}

}  // namespace ponder::app
