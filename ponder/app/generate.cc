// generate: one prompt, or JSON Lines in and out (docs/formats.md).
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"
#include "ponder/engine/generate.h"

namespace ponder::app {
namespace {

constexpr size_t kChunk = 256;  // requests in the engine at once
constexpr size_t kMaxStops = 16, kMaxAnswers = 1024;

struct Request {
  std::string id = "null";  // as JSON
  std::string error;        // what is wrong with the line; the rest is then empty
  Prompt prompt;
  size_t n = 1;
  uint64_t seed = 0;
  int max_tokens = 0;
  engine::Sampling sampling;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_tokens;
  bool logprobs = false;
};

uint64_t answer_seed(uint64_t seed, size_t index) {
  const auto w = philox(stream_key(seed, Stream::sampling), 0, index);
  return uint64_t{w[1]} << 32 | w[0];
}

// --- Reading a request -----------------------------------------------------------------------------------------------

[[noreturn]] void wrong(const char* key, const char* what) { throw_error(Exit::data, "{}: {}", key, what); }

double number(const Json& value, const char* key, double min, double max) {
  if (!value.is_number()) wrong(key, "a number is expected");
  const double x = value.get<double>();
  if (!(x >= min && x <= max)) throw_error(Exit::data, "{}: {:g} is out of range ({:g} to {:g})", key, x, min, max);
  return x;
}
int64_t integer(const Json& value, const char* key, int64_t min, int64_t max) {
  if (!value.is_number_integer()) wrong(key, "a whole number is expected");
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    wrong(key, "it is too large");
  const auto x = value.get<int64_t>();
  if (x < min || x > max) throw_error(Exit::data, "{}: {} is out of range ({} to {})", key, x, min, max);
  return x;
}

std::vector<int32_t> ids_of(const Json& value, const char* key, int vocab) {
  if (!value.is_array()) wrong(key, "a list of ids is expected");
  std::vector<int32_t> ids;
  for (const Json& id : value) ids.push_back(static_cast<int32_t>(integer(id, key, 0, vocab - 1)));
  return ids;
}

// The text of the last message of the user: a miniature's task makes a prompt from one line and knows no history.
std::string last_user_message(const Json& messages) {
  if (!messages.is_array()) wrong("messages", "a list is expected");
  std::string text;
  for (const Json& m : messages)
    if (m.is_object() && m.value("role", Json()) == "user" && m.contains("content") && m["content"].is_string())
      text = m["content"].get<std::string>();
  if (text.empty()) wrong("messages", "there is no message of the user");
  return text;
}

class Reader {
 public:
  Reader(const LoadedModel& loaded, const Arguments& args)
      : loaded_(loaded),
        raw_(args.has("raw")),
        sampling_(sampling_options(args, loaded)),
        n_(static_cast<size_t>(args.integer("n", 1, 1, kMaxAnswers))),
        seed_(static_cast<uint64_t>(args.integer("seed", 0, 0, INT64_MAX))),
        max_tokens_(args.integer("max-tokens", 0, 1, 1 << 24)),
        logprobs_(args.has("logprobs")) {}

  Request from_text(const std::string& text) const {
    Request r = defaults();
    r.prompt = make_prompt(loaded_, text, raw_);
    return finished(std::move(r));
  }

  // Never throws: what is wrong is in the request.
  Request from_line(std::string_view line, int number) {
    Request r = defaults();
    r.id = fmt::format("{}", number);
    try {
      const Json json = parse_json(line, "request", number);
      if (!json.is_object()) throw_error(Exit::data, "an object is expected");
      if (json.contains("id")) r.id = json["id"].dump();
      fill(r, json);
      return finished(std::move(r));
    } catch (const Error& e) {
      Request bad;
      bad.id = r.id;
      bad.error = e.what();
      return bad;
    }
  }

 private:
  Request defaults() const {
    Request r;
    r.n = n_, r.seed = seed_, r.sampling = sampling_, r.logprobs = logprobs_;
    r.max_tokens = static_cast<int>(max_tokens_);
    r.stop_tokens = stop_tokens(loaded_);
    return r;
  }

  Request finished(Request r) const {
    const int64_t context = loaded_.model->config().max_position_embeddings,
                  prompt = static_cast<int64_t>(r.prompt.ids.size());
    if (r.prompt.ids.empty()) throw_error(Exit::data, "the prompt has no tokens");
    if (prompt >= context)
      throw_error(Exit::data, "the prompt has {} tokens, the model's context is {}", prompt, context);
    if (r.max_tokens == 0) r.max_tokens = default_max_tokens(loaded_, r.prompt.ids.size());
    r.max_tokens = static_cast<int>(std::min<int64_t>(r.max_tokens, context - prompt));
    return r;
  }

  void fill(Request& r, const Json& json) {
    const int vocab = loaded_.model->config().vocab_size;
    int prompts = 0;
    for (const auto& [key, value] : json.items()) {
      if (value.is_null() || key == "id") continue;
      const char* const k = key.c_str();
      if (key == "prompt") {
        if (!value.is_string()) wrong(k, "text is expected");
        r.prompt = make_prompt(loaded_, value.get<std::string>(), raw_), ++prompts;
      } else if (key == "messages") {
        if (!loaded_.task) wrong(k, "this model has no template; use \"prompt\" or \"ids\"");
        r.prompt = make_prompt(loaded_, last_user_message(value), false), ++prompts;
      } else if (key == "ids") {
        r.prompt.ids = ids_of(value, k, vocab), ++prompts;
      } else if (key == "n") {
        r.n = static_cast<size_t>(integer(value, k, 1, kMaxAnswers));
      } else if (key == "max_tokens" || key == "max_completion_tokens") {
        r.max_tokens = static_cast<int>(integer(value, k, 1, 1 << 24));
      } else if (key == "temperature") {
        r.sampling.temperature = static_cast<float>(number(value, k, 0, 100));
      } else if (key == "top_p") {
        r.sampling.top_p = static_cast<float>(number(value, k, 0, 1));
      } else if (key == "min_p") {
        r.sampling.min_p = static_cast<float>(number(value, k, 0, 1));
      } else if (key == "top_k") {
        r.sampling.top_k = static_cast<int32_t>(std::max<int64_t>(0, integer(value, k, -1, 1 << 30)));
      } else if (key == "seed") {
        r.seed = static_cast<uint64_t>(integer(value, k, INT64_MIN, INT64_MAX));
      } else if (key == "logprobs") {
        r.logprobs = value.is_boolean() ? value.get<bool>() : integer(value, k, 0, 20) >= 0;
      } else if (key == "stop") {
        for (const Json& s : value.is_array() ? value : Json::array({value})) {
          if (!s.is_string() || s.get<std::string>().empty()) wrong(k, "a text, or a list of texts, is expected");
          r.stop.push_back(s.get<std::string>());
        }
        if (r.stop.size() > kMaxStops) wrong(k, "at most 16 texts");
      } else if (key == "stop_token_ids") {
        for (const int32_t id : ids_of(value, k, vocab)) r.stop_tokens.push_back(id);
      } else if (key == "ignore_eos") {
        if (value == true) r.stop_tokens.clear();
      } else if (kUnsupported.count(key)) {
        throw_error(Exit::data, "{}: this version does not support it", key);
      } else if (ignored_.insert(key).second) {
        log_warn("requests have the unknown field \"{}\", which is ignored", key);
      }
    }
    if (prompts != 1) throw_error(Exit::data, "one of \"prompt\", \"messages\" and \"ids\" is needed");
  }

  // They would change the answer, so they are not passed over.
  inline static const std::set<std::string> kUnsupported = {"suffix",
                                                            "logit_bias",
                                                            "frequency_penalty",
                                                            "presence_penalty",
                                                            "repetition_penalty",
                                                            "min_tokens",
                                                            "response_format",
                                                            "tools",
                                                            "structured_outputs",
                                                            "guided_json",
                                                            "guided_regex",
                                                            "guided_choice",
                                                            "guided_grammar",
                                                            "top_logprobs",
                                                            "prompt_logprobs"};

  const LoadedModel& loaded_;
  bool raw_;
  engine::Sampling sampling_;
  size_t n_;
  uint64_t seed_;
  int64_t max_tokens_;
  bool logprobs_;
  std::set<std::string> ignored_;
};

// --- An answer -------------------------------------------------------------------------------------------------------

struct Text {
  std::string content, reasoning;
  bool thought = false, stopped = false;
};

// The text of an answer; at a stop string the answer ends, with the token that completes it, and the text before it.
Text text_of(const LoadedModel& loaded, const Request& r, engine::Answer& answer) {
  Text out;
  if (!loaded.tokenizer) return out;
  AnswerText stream(*loaded.tokenizer, r.prompt.ids);
  const auto take = [&](const std::vector<AnswerText::Delta>& deltas) {
    for (const auto& d : deltas) {
      const bool thinking = d.part == text::ThinkSplitter::State::reasoning;
      (thinking ? out.reasoning : out.content) += d.text;
      out.thought |= thinking;
    }
    size_t cut = std::string::npos;
    for (const std::string& stop : r.stop) cut = std::min(cut, out.content.find(stop));
    if (cut == std::string::npos) return false;
    out.content.resize(cut);
    return out.stopped = true;
  };
  for (size_t i = 0; i < answer.tokens.size(); ++i) {
    const bool end = std::find(r.stop_tokens.begin(), r.stop_tokens.end(), answer.tokens[i]) != r.stop_tokens.end();
    if (!end && take(stream.push(answer.tokens[i]))) {
      answer.tokens.resize(i + 1);
      answer.logp.resize(i + 1);
      answer.finish = engine::Finish::stop;
      return out;
    }
  }
  take(stream.finish());
  return out;
}

std::string answer_json(const LoadedModel& loaded, const Request& r, size_t index, engine::Answer& answer) {
  const Text text = text_of(loaded, r, answer);
  std::string json;
  JsonWriter w(json);
  w.begin_object().key("id").raw(r.id).member("index", index).member("text", text.content);
  if (text.thought) w.member("reasoning_content", text.reasoning);
  w.member("ids", std::span<const int32_t>(answer.tokens));
  if (r.logprobs) w.member("logprobs", std::span<const float>(answer.logp));
  w.member("finish_reason", answer.finish == engine::Finish::stop ? "stop" : "length").end_object();
  return json;
}

std::string error_json(const Request& r) {
  std::string json;
  JsonWriter(json).begin_object().key("id").raw(r.id).member("error", r.error).end_object();
  return json;
}

// What stands in --out already: which answers of which ids. An error counts as an answer.
std::map<std::string, std::set<size_t>> finished_answers(const std::string& path) {
  std::map<std::string, std::set<size_t>> done;
  if (!path_exists(path)) return done;
  int number = 0;
  for (const std::string& line : read_whole_lines(path)) {
    const Json json = parse_json(line, path, ++number);
    if (!json.is_object() || !json.contains("id"))
      throw_error(Exit::data, "{}:{}: not an answer of generate; name another --out", path, number);
    done[json["id"].dump()].insert(
        json.contains("index") && json["index"].is_number_unsigned() ? json["index"].get<size_t>() : kMaxAnswers);
  }
  return done;
}

engine::Request engine_request(const Request& r) {
  engine::Request e{.prompt = r.prompt.ids,
                    .seeds = {},
                    .sampling = r.sampling,
                    .max_new_tokens = r.max_tokens,
                    .stop_tokens = r.stop_tokens};
  for (size_t j = 0; j < r.n; ++j) e.seeds.push_back(answer_seed(r.seed, j));
  return e;
}

int one_shot(const Arguments& args, const LoadedModel& loaded, const Machine& machine, const Request& r) {
  const auto engine = make_chat_engine(loaded, *machine.backend, static_cast<int64_t>(r.n),
                                       static_cast<int64_t>(r.prompt.ids.size()) + r.max_tokens, args.has("draft"));
  if (!r.prompt.note.empty()) log_info("note: {}", r.prompt.note);
  auto answers = engine::generate(*engine, {engine_request(r)});
  for (size_t j = 0; j < r.n; ++j) {
    engine::Answer& answer = answers[0][j];
    if (args.json()) {
      fmt::print("{}\n", answer_json(loaded, r, j, answer));
      continue;
    }
    const Text text = text_of(loaded, r, answer);
    if (!text.reasoning.empty())
      log_info("{}{}{}", stderr_has_color() ? "\x1b[2m" : "", text.reasoning, stderr_has_color() ? "\x1b[0m" : "");
    fmt::print("{}\n", text.content);
    if (r.prompt.problem) log_info("{}", loaded.task->grade(*r.prompt.problem, answer.tokens).reason);
  }
  return 0;
}

}  // namespace

int generate_command(const Arguments& args) {
  Machine machine(args.threads());
  const LoadedModel loaded = load_any_model(args.positional[0], machine);
  Reader reader(loaded, args);
  if (args.positional.size() > 1) return one_shot(args, loaded, machine, reader.from_text(args.positional[1]));

  const std::string input = read_file(args.text("in", "/dev/stdin"));
  std::vector<Request> requests;
  int number = 0;
  for (size_t begin = 0; begin < input.size();) {
    const size_t end = std::min(input.find('\n', begin), input.size());
    const std::string_view line = std::string_view(input).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != line.npos) requests.push_back(reader.from_line(line, number));
  }

  std::map<std::string, std::set<size_t>> done;
  std::unique_ptr<AppendFile> out;
  if (args.has("out")) {
    done = finished_answers(args.text("out"));
    out = std::make_unique<AppendFile>(args.text("out"));
  }
  const auto write = [&](const std::string& json) {
    if (out) return out->append_line(json);
    fmt::print("{}\n", json);
  };
  const auto complete = [&](const Request& r) {
    const auto at = done.find(r.id);
    if (at == done.end()) return false;
    if (at->second.count(kMaxAnswers)) return true;
    for (size_t j = 0; j < r.n; ++j)
      if (!at->second.count(j)) return false;
    return true;
  };
  std::erase_if(requests, complete);
  if (const size_t skipped = done.size(); skipped > 0)
    log_info("{}: {} ids are there already; {} requests are left", args.text("out"), skipped, requests.size());

  int64_t longest = 1, most = 1;
  for (const Request& r : requests)
    if (r.error.empty())
      longest = std::max<int64_t>(longest, static_cast<int64_t>(r.prompt.ids.size()) + r.max_tokens),
      most += static_cast<int64_t>(r.n);
  const auto engine = make_chat_engine(loaded, *machine.backend, most, longest, args.has("draft"));
  install_stop_signals();
  Progress progress("generate");
  for (size_t begin = 0; begin < requests.size(); begin += kChunk) {
    const size_t end = std::min(requests.size(), begin + kChunk);
    std::vector<engine::Request> batch;
    for (size_t i = begin; i < end; ++i)
      if (requests[i].error.empty()) batch.push_back(engine_request(requests[i]));
    auto answers = engine::generate(*engine, std::move(batch), [](int64_t) { return !stop_requested(); });
    if (stop_requested()) {
      log_info("stopped{}", out ? "; the same command goes on" : "");
      return static_cast<int>(Exit::resumable);
    }
    for (size_t i = begin, next = 0; i < end; ++i) {
      const Request& r = requests[i];
      if (!r.error.empty()) {
        write(error_json(r));
        continue;
      }
      for (size_t j = 0; j < r.n; ++j)
        if (done.find(r.id) == done.end() || !done.at(r.id).count(j))
          write(answer_json(loaded, r, j, answers[next][j]));
      ++next;
    }
    std::fflush(stdout);
    progress.update({static_cast<int64_t>(end), static_cast<int64_t>(requests.size()), ""});
  }
  return 0;
}

}  // namespace ponder::app
