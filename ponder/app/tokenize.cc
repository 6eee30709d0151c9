// tokenize: text to ids and back, JSON Lines in and out.
#include <algorithm>

#include "ponder/app/commands.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {

int tokenize_command(const Arguments& args) {
  const std::string& what = args.positional[0];
  const auto tokenizer =
      text::load_tokenizer(what.ends_with(".json") ? what : join_path(resolve_model(what), "tokenizer.json"));
  const std::string input = read_file(args.text("in", "/dev/stdin"));
  int number = 0;
  for (size_t begin = 0; begin < input.size();) {
    const size_t end = std::min(input.find('\n', begin), input.size());
    const std::string_view line = std::string_view(input).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    std::string out, id;
    try {
      const Json json = parse_json(line, "line", number);
      if (!json.is_object()) throw_error(Exit::data, "an object is expected");
      if (json.contains("id")) id = json["id"].dump();
      std::string done;
      JsonWriter d(done);
      d.begin_object();
      if (!id.empty()) d.key("id").raw(id);
      if (json.contains("text") && json["text"].is_string()) {
        const auto ids = tokenizer->encode(json["text"].get<std::string>());
        d.member("ids", std::span<const int32_t>(ids));
      } else if (json.contains("ids") && json["ids"].is_array()) {
        std::vector<int32_t> ids;
        for (const Json& i : json["ids"]) {
          if (!i.is_number_integer() || i.get<int64_t>() < 0 || i.get<int64_t>() >= tokenizer->vocab_size())
            throw_error(Exit::data, "ids: {} is none of the {} tokens", i.dump(), tokenizer->vocab_size());
          ids.push_back(i.get<int32_t>());
        }
        d.member("text", tokenizer->decode(ids));
      } else {
        throw_error(Exit::data, "\"text\" or \"ids\" is needed");
      }
      d.end_object();
      out = done;
    } catch (const Error& e) {
      out.clear();
      JsonWriter(out)
          .begin_object()
          .key("id")
          .raw(id.empty() ? fmt::format("{}", number) : id)
          .member("error", e.what())
          .end_object();
    }
    fmt::print("{}\n", out);
  }
  return 0;
}

}  // namespace ponder::app
