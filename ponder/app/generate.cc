// generate: one prompt, or JSON Lines in and out (docs/formats.md).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <map>
#include <set>
#include <utility>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/conversation.h"
#include "ponder/app/json_lines.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/app/result_file.h"
#include "ponder/app/sampling.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/base/rng.h"

namespace ponder::app {
namespace {

constexpr size_t kMaxAnswers = 1024;

struct Request {
  std::string id = "null";  // as JSON
  std::string error;        // what is wrong with the line; the rest is then empty
  Prompt prompt;
  AnswerRequest answer;  // its prompt is the one above
  size_t n = 1;
  uint64_t seed = 0;
  bool logprobs = false;
};

uint64_t answer_seed(uint64_t seed, size_t index) {
  const auto w = philox(stream_key(seed, Stream::sampling), 0, index);
  return uint64_t{w[1]} << 32 | w[0];
}

// --- Reading a request -----------------------------------------------------------------------------------------------

// They would change the answer, so they are not passed over.
const std::set<std::string> kUnsupported = {"suffix",
                                            "response_format",
                                            "structured_outputs",
                                            "guided_json",
                                            "guided_regex",
                                            "guided_choice",
                                            "guided_grammar",
                                            "top_logprobs",
                                            "tool_choice",
                                            "prompt_logprobs",
                                            "logprobs_mode",
                                            "echo",
                                            "include_stop_str_in_output",
                                            "skip_special_tokens"};
// They change no answer.
const std::set<std::string> kNoEffect = {"model",        "stream",   "stream_options",    "user",      "store",
                                         "service_tier", "metadata", "safety_identifier", "verbosity", "prediction"};
// What goes to the template.
const std::set<std::string> kTemplate = {
    "tools", "documents", "kwargs", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "now"};

class Reader {
 public:
  Reader(const LoadedModel& loaded, const Arguments& args)
      : loaded_(loaded),
        raw_(args.has("raw")),
        thinking_(args.has("think") ? parse_thinking(args.text("think")) : Thinking{}),
        recommended_(recommended_sampling(loaded, thinking_.mode != Thinking::Mode::off && model_thinks(loaded))),
        sampling_(sampling_options(args, recommended_.sampling, loaded.model->config().vocab_size)),
        stop_(stop_option(args)),
        n_(static_cast<size_t>(args.integer("n", 1, 1, kMaxAnswers))),
        seed_(static_cast<uint64_t>(args.integer("seed", 0, 0, INT64_MAX))),
        max_tokens_(args.integer("max-tokens", 0, 1, 1 << 24)),
        logprobs_(args.has("logprobs")) {
    check_thinking(thinking_, loaded, raw_);
    if (loaded.tokenizer) end_phrase_ = loaded.tokenizer->encode(recommended_.end_phrase);
    if (args.has("stop-in-reasoning")) stop_in_reasoning_ = true;
  }

  Request from_text(const std::string& text) const {
    Request r = defaults();
    r.prompt = make_prompt(loaded_, text, raw_, thinking_.mode);
    return finished(std::move(r));
  }

  Request from_line(const JsonLine& line) {
    Request r = defaults();
    r.id = line.id;
    fill(r, line);
    return finished(std::move(r));
  }

 private:
  Request defaults() const {
    Request r;
    r.n = n_, r.seed = seed_, r.logprobs = logprobs_;
    r.answer.sampling = sampling_;
    r.answer.max_tokens = static_cast<int>(max_tokens_);
    r.answer.stop_tokens = stop_tokens(loaded_);
    r.answer.stop = stop_;
    r.answer.stop_in_reasoning = stop_in_reasoning_;
    r.answer.think_budget = thinking_.budget;
    r.answer.end_phrase = end_phrase_;
    return r;
  }

  Request finished(Request r) const {
    const int64_t context = loaded_.model->config().max_position_embeddings,
                  prompt = static_cast<int64_t>(r.prompt.ids.size());
    if (r.prompt.ids.empty()) throw_error(Exit::data, "the prompt has no tokens");
    if (prompt >= context)
      throw_error(Exit::data, "the prompt has {} tokens, the model's context is {}", prompt, context);
    AnswerRequest& a = r.answer;
    if (a.max_tokens == 0) a.max_tokens = default_max_tokens(loaded_, r.prompt.ids.size());
    a.max_tokens = static_cast<int>(std::min<int64_t>(a.max_tokens, context - prompt));
    a.prompt = r.prompt.ids;
    a.seeds.clear();
    for (size_t j = 0; j < r.n; ++j) a.seeds.push_back(answer_seed(r.seed, j));
    return r;
  }

  void fill(Request& r, const JsonLine& line) {
    const int vocab = loaded_.model->config().vocab_size;
    const Json& json = line.value;
    const Thinking thinking = request_thinking(json, thinking_);
    r.answer.think_budget = thinking.budget;
    int prompts = 0;
    for (const auto& [key, value] : json.items()) {
      if (value.is_null() || key == "id" || is_thinking_key(key) || kTemplate.count(key) || kNoEffect.count(key))
        continue;
      AnswerRequest& a = r.answer;
      if (key == "prompt") {
        r.prompt = make_prompt(loaded_, json_text(value, key), raw_, thinking.mode), ++prompts;
      } else if (key == "messages") {
        r.prompt = make_chat_prompt(loaded_, json, line.text, thinking.mode), ++prompts;
      } else if (key == "ids") {
        r.prompt.ids = json_ids(value, key, vocab), ++prompts;
      } else if (key == "n") {
        r.n = static_cast<size_t>(json_integer(value, key, 1, kMaxAnswers));
      } else if (key == "max_tokens" || key == "max_completion_tokens") {
        a.max_tokens = static_cast<int>(json_integer(value, key, 1, 1 << 24));
      } else if (key == "seed") {
        r.seed = static_cast<uint64_t>(json_integer(value, key, INT64_MIN, INT64_MAX));
      } else if (key == "logprobs") {
        r.logprobs = value.is_boolean() ? value.get<bool>() : json_integer(value, key, 0, 20) >= 0;
      } else if (key == "stop") {
        a.stop.clear();
        for (const Json& s : value.is_array() ? value : Json::array({value})) a.stop.push_back(json_text(s, key));
        check_stops(a.stop, "stop", Exit::data);
      } else if (key == "stop_in_reasoning") {
        a.stop_in_reasoning = json_bool(value, key);
      } else if (key == "stop_token_ids") {
        for (const int32_t id : json_ids(value, key, vocab)) a.stop_tokens.push_back(id);
      } else if (key == "ignore_eos") {
        if (json_bool(value, key))
          std::erase_if(a.stop_tokens, [&, own = stop_tokens(loaded_)](int32_t id) {
            return std::find(own.begin(), own.end(), id) != own.end();
          });
      } else if (kUnsupported.count(key)) {
        throw_error(Exit::data, "{}: this version does not support it", key);
      } else if (!set_sampling_field(a.sampling, key, value, vocab) && ignored_.insert(key).second) {
        log_warn("requests have the unknown field \"{}\", which is ignored", key);
      }
    }
    if (prompts != 1) throw_error(Exit::data, "one of \"prompt\", \"messages\" and \"ids\" is needed");
  }

  const LoadedModel& loaded_;
  bool raw_;
  Thinking thinking_;
  Recommended recommended_;
  engine::Sampling sampling_;
  std::vector<std::string> stop_;
  std::vector<int32_t> end_phrase_;
  size_t n_;
  uint64_t seed_;
  int64_t max_tokens_;
  bool logprobs_, stop_in_reasoning_ = false;
  std::set<std::string> ignored_;
};

// --- Writing answers -------------------------------------------------------------------------------------------------

// What all answers of a run were computed with.
struct Numerics {
  kernels::Activations activations;
  const LoadedModel* loaded;
};

std::string answer_json(const Numerics& numerics, const Request& r, size_t index, const Answer& a) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().key("id").raw(r.id).member("index", index).member("text", a.content);
  if (a.thought) w.member("reasoning_content", a.reasoning);
  w.member("ids", std::span<const int32_t>(a.ids));
  if (a.inserted > 0)  // tokens that the model did not choose: [from, to)
    w.key("inserted").begin_array().value(a.inserted_at).value(a.inserted_at + a.inserted).end_array();
  if (r.logprobs) w.member("logprobs", std::span<const float>(a.logp));  // NaN is null
  w.member("finish_reason", a.finish_reason()).member("stop_detail", stop_detail_name(a.detail));
  w.member("activations", kernels::activations_name(numerics.activations));
  if (numerics.loaded->model->config().mla()) w.member("mla", model::mla_form_name(numerics.loaded->model->mla_form()));
  w.end_object();
  return json;
}

// What stands in --out already: which answers of which ids. An error counts as an answer.
using Finished = std::map<std::string, std::set<size_t>>;
Finished finished_answers(const std::string& path) {
  Finished done;
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

// --- The two ways to run ---------------------------------------------------------------------------------------------

int one_shot(const Arguments& args, const LoadedModel& loaded, const Machine& machine, const Request& r) {
  const Numerics numerics{activations_option(args, loaded, false), &loaded};
  const EngineSize size{static_cast<int64_t>(r.n), static_cast<int64_t>(r.prompt.ids.size()) + r.answer.max_tokens};
  const auto engine = make_answer_engine(loaded, *machine.backend, size, numerics.activations, args.has("draft"));
  if (!r.prompt.note.empty()) log_info("note: {}", r.prompt.note);
  Answering answering(loaded, *engine);
  // One answer is shown as it comes: thinking on stderr, the answer on stdout.
  const bool stream = r.n == 1 && !args.json();
  const bool color = stderr_has_color();
  bool thinking = false;
  const auto show = [&](size_t, const AnswerText::Delta& d) {
    const bool thought = d.part == AnswerText::State::reasoning;
    if (thought != thinking && color) std::fputs(thought ? "\x1b[2m" : "\x1b[0m\n", stderr);
    thinking = thought;
    std::FILE* const to = thought ? stderr : stdout;
    std::fwrite(d.text.data(), 1, d.text.size(), to);
    if (thought)
      std::fflush(to);
    else
      flush_output();
  };
  install_stop_signals();
  const int64_t id = answering.add(r.answer, stream ? Answering::Sink(show) : Answering::Sink());
  while (!answering.idle()) {
    answering.step();
    if (stop_requested()) answering.cancel_all();
  }
  if (thinking && color) std::fputs("\x1b[0m", stderr);
  const std::vector<Answer> answers = answering.take(id);
  for (size_t j = 0; j < r.n; ++j) {
    if (args.json())
      print_line(answer_json(numerics, r, j, answers[j]));
    else if (stream)
      std::fputc('\n', stdout);
    else
      print_line(answers[j].content);
    if (r.prompt.problem && !args.json()) log_info("{}", loaded.task->grade(*r.prompt.problem, answers[j].ids).reason);
  }
  return stop_requested() ? static_cast<int>(Exit::resumable) : 0;
}

// --out: what it has already, and where the rest goes. None: stdout.
struct Output {
  Finished done;
  std::unique_ptr<AppendFile> file;

  bool has(const Request& r, size_t index) const {
    const auto at = done.find(r.id);
    return at != done.end() && (at->second.count(kMaxAnswers) || at->second.count(index));
  }
  void write(const std::string& json) const {
    if (file)
      file->append_line(json);
    else
      print_line(json);
  }
};
// Says what is wrong with it before the work; a file that is not there comes with open_output().
Output find_output(const Arguments& args) {
  if (!args.has("out")) return {};
  const std::string path = args.text("out");
  if (!path_exists(path)) check_result_file(path);
  return {finished_answers(path), path_exists(path) ? std::make_unique<AppendFile>(path) : nullptr};
}
void open_output(const Arguments& args, Output& output) {
  if (args.has("out") && !output.file) output.file = std::make_unique<AppendFile>(args.text("out"));
}

// Requests go through one engine that is never short of work; answers are written in input order, each as soon as those
// before it are.
class Generation {
 public:
  Generation(const Arguments& args, const LoadedModel& loaded, const Machine& machine, const Output& output)
      : args_(args),
        loaded_(loaded),
        machine_(machine),
        output_(output),
        numerics_{activations_option(args, loaded, false), &loaded},
        window_(2 * engine::default_sequences(*loaded.model)) {}

  // Throws Error (resumable) after a stop signal.
  void answer(std::vector<Request> requests) {
    leave_out_written(requests);
    if (requests.empty()) return;
    make_room(requests);
    Progress progress("generate");
    std::deque<int64_t> ids;  // of the requests in work, in input order; -1: a wrong line
    size_t added = 0, finished = 0;
    const double start = seconds_now();
    const int64_t sampled = engine_->stats().sampled;
    while (finished < requests.size()) {
      while (added < requests.size() && answering_->running() < window_) {
        Request& r = requests[added++];
        ids.push_back(r.error.empty() ? answering_->add(std::move(r.answer)) : -1);
      }
      if (!answering_->idle()) answering_->step();
      for (; !ids.empty() && (ids.front() < 0 || answering_->done(ids.front())); ids.pop_front())
        write(requests[finished++], ids.front());
      if (stop_requested()) throw_error(Exit::resumable, "stopped{}", output_.file ? "; the same command goes on" : "");
      const double rate = static_cast<double>(engine_->stats().sampled - sampled) / (seconds_now() - start);
      progress.update({static_cast<int64_t>(finished), static_cast<int64_t>(requests.size()),
                       fmt::format("{} tokens/s", format_count(rate))});
    }
  }

 private:
  void leave_out_written(std::vector<Request>& requests) {
    if (output_.file)
      for (const Request& r : requests)
        if (!ids_.insert(r.id).second)
          throw_error(
              Exit::data,
              "two requests have the id {}: with --out each needs its own, by which it is known what is answered "
              "already (the number of its line is that of a request without)",
              r.id);
    const size_t all = requests.size();
    std::erase_if(requests, [&](const Request& r) {
      for (size_t j = 0; j < r.n; ++j)
        if (!output_.has(r, j)) return false;
      return true;
    });
    if (requests.size() < all)
      log_info("{}: {} requests are answered there already; {} are left", args_.text("out"), all - requests.size(),
               requests.size());
  }

  void make_room(const std::vector<Request>& requests) {
    EngineSize size{.answers = 0, .tokens = 1};
    for (const Request& r : requests)
      if (r.error.empty()) {
        size.tokens = std::max<int64_t>(size.tokens, static_cast<int64_t>(r.prompt.ids.size()) + r.answer.max_tokens);
        size.answers += static_cast<int64_t>(r.n);
      }
    if (engine_ && size.tokens <= size_.tokens && size.answers <= size_.answers) return;
    size_ = {std::max(size.answers, size_.answers), std::max(size.tokens, size_.tokens)};
    answering_.reset();
    engine_.reset();
    engine_ = make_answer_engine(loaded_, *machine_.backend, size_, numerics_.activations, args_.has("draft"));
    answering_ = std::make_unique<Answering>(loaded_, *engine_);
  }

  void write(const Request& r, int64_t id) {
    if (id < 0) return output_.write(error_line(r.id, r.error));
    const std::vector<Answer> answers = answering_->take(id);
    for (size_t j = 0; j < r.n; ++j)
      if (!output_.has(r, j)) output_.write(answer_json(numerics_, r, j, answers[j]));
    flush_output();
  }

  const Arguments& args_;
  const LoadedModel& loaded_;
  const Machine& machine_;
  const Output& output_;
  const Numerics numerics_;
  const int64_t window_;  // answers that the engine knows of
  EngineSize size_{.answers = 0, .tokens = 1};
  std::set<std::string> ids_;  // of the requests so far, as JSON
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<Answering> answering_;
};

int answer_lines(const Arguments& args, const LoadedModel& loaded, const Machine& machine, Reader& reader,
                 const Output& output) {
  Generation generation(args, loaded, machine, output);
  std::vector<Request> requests;
  const auto answer = [&] { generation.answer(std::exchange(requests, {})); };
  install_stop_signals();
  const int code = read_json_requests(
      args.text("in"), [&](const JsonLine& line) { requests.push_back(reader.from_line(line)); },
      [&](const std::string& id, const std::string& error) {
        Request bad;
        bad.id = id, bad.error = error;
        requests.push_back(std::move(bad));
      },
      answer);
  answer();
  return code;
}

}  // namespace

int generate_command(const Arguments& args) {
  const bool word = args.positional.size() > 1, file = args.has("prompt-file");
  if (word + file + args.has("in") > 1)
    throw_error(Exit::usage, "PROMPT, --prompt-file and --in each say what is to be answered; give one of them");
  if ((word || file) && args.has("out"))
    throw_error(Exit::usage,
                "--out collects the answers to JSON Lines (--in FILE, or stdin); the answer to one prompt goes to "
                "stdout: `> {}`",
                args.text("out"));
  if ((word || file) && args.has("logprobs") && !args.json())
    throw_error(Exit::usage, "--logprobs: an answer that is shown as text has no place for them; add --json");
  Output output = find_output(args);
  Machine machine(args.threads());
  const LoadedModel loaded =
      load_any_model(args.positional[0], machine, model_options(args, false), args.has("allow-paging"));
  open_output(args, output);
  Reader reader(loaded, args);
  if (args.has("draft") && loaded.model->mtp_modules() == 0)
    log_warn("--draft: {} has no MTP module to propose tokens, so each takes a step of its own", loaded.path);
  if (file) return one_shot(args, loaded, machine, reader.from_text(read_file(args.text("prompt-file"))));
  if (word) {
    const std::string& prompt = args.positional[1];
    return one_shot(args, loaded, machine, reader.from_text(prompt == "-" ? read_file("/dev/stdin") : prompt));
  }
  return answer_lines(args, loaded, machine, reader, output);
}

}  // namespace ponder::app
