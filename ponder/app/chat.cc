// chat: a conversation in the terminal, the thinking dimmed before each answer.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "ponder/app/answers.h"
#include "ponder/app/chat_screen.h"
#include "ponder/app/commands.h"
#include "ponder/app/conversation.h"
#include "ponder/app/line_reader.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/app/result_file.h"
#include "ponder/app/sampling.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

// Small models are quick without rounding their activations, and notice it: SmolLM2-135M in 4 bits answers otherwise where
// two words are nearly as likely.
bool exact_enough(const LoadedModel& loaded) { return loaded.model->params().count() < 500'000'000; }

constexpr int64_t kMostTokens = 1 << 24;

constexpr const char* kHelp =
    "  /retry            the last answer again, drawn anew\n"
    "  /system TEXT      set the system prompt (without TEXT: none)\n"
    "  /think on|off|N   with thinking, without, or with at most N tokens of it\n"
    "  /thinking         the last answer's thinking\n"
    "  /save FILE        the conversation, as one line of JSON;  /load FILE goes on with one\n"
    "  /stats            tokens and speed so far\n"
    "  /clear            forget the conversation\n"
    "  /exit             or Ctrl+D\n"
    "\"\"\" begins a message of several lines and ends it. While an answer comes: Ctrl+C ends it, t folds the "
    "thinking.";

class Chat {
 public:
  Chat(const Arguments& args, const LoadedModel& loaded, const Machine& machine)
      : args_(args),
        loaded_(loaded),
        // A miniature reads one puzzle at a time, --raw one text.
        single_(args.has("raw") || loaded.task != nullptr),
        context_(affordable_context(loaded)),
        activations_(activations_option(args, loaded, exact_enough(loaded))),
        engine_(make_answer_engine(loaded, *machine.backend, {.answers = 1, .tokens = context_}, activations_, false)),
        answering_(loaded, *engine_),
        seed_(static_cast<uint64_t>(args.integer("seed", 0, 0, INT64_MAX))),
        stop_(stop_option(args)),
        folded_(args.has("hide-thinking")) {
    args.integer("max-tokens", 1, 1, kMostTokens);  // a wrong one is said now, not after each question
    set_thinking(args.has("think") ? parse_thinking(args.text("think")) : Thinking{});
    if (args.has("system")) system_prompt(args.text("system"));
    if (args.has("load")) load(args.text("load"));
  }

  void greet() const {
    const model::ModelConfig& config = loaded_.model->config();
    std::string text =
        fmt::format("{}: {} weights, context {}", base_name(loaded_.path),
                    format_count(static_cast<double>(loaded_.model->params().count())), format_grouped(context_));
    if (context_ < config.max_position_embeddings)
      text += fmt::format(" (of {}: what fits into memory)", format_grouped(config.max_position_embeddings));
    text += fmt::format(", {} ({}), activations {}", sampling_text(sampling_), recommended_.origin,
                        kernels::activations_name(activations_));
    if (config.mla()) text += fmt::format(", MLA {}", model::mla_form_name(loaded_.model->mla_form()));
    log_info("{}", dimmed(text));
    if (loaded_.task)
      log_info("{}", dimmed(fmt::format("{}: type a puzzle such as  {}   (Ctrl+C ends an answer, Ctrl+D the chat)",
                                        loaded_.task->name(), tasks::example_text(*loaded_.task))));
    else
      log_info("{}", dimmed("/help says what can be typed; Ctrl+C ends an answer, Ctrl+D the chat"));
  }

  // What was typed while answers came: it belongs to the next line.
  std::string take_typed() { return std::exchange(typed_ahead_, ""); }

  // False: the chat is over.
  bool line(const std::string& line) {
    const size_t begin = line.find_first_not_of(" \t\r\n");
    if (begin == line.npos) return true;
    if (line == "exit" || line == "quit") return false;
    if (line[0] == '/' && line.find('\n') == line.npos) return command(line);
    say(line);
    return true;
  }

 private:
  // --- Commands ---

  bool command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space);
    const size_t rest = std::min(line.find_first_not_of(' ', space), line.size());
    std::string what = line.substr(rest);
    while (!what.empty() && (what.back() == ' ' || what.back() == '\r')) what.pop_back();
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help" || name == "/?")
      log_info("{}", kHelp);
    else if (name == "/retry")
      retry();
    else if (name == "/clear")
      clear();
    else if (name == "/system")
      system_prompt(what);
    else if (name == "/think")
      set_thinking(parse_thinking(what));
    else if (name == "/thinking")
      log_info("{}", last_thinking_.empty() ? "there is none" : dimmed(last_thinking_));
    else if (name == "/stats")
      stats();
    else if (name == "/save" || name == "/load") {
      if (what.empty()) throw_error(Exit::usage, "{} FILE: which file?", name);
      name == "/save" ? save(what) : load(what);
    } else {
      throw_error(Exit::usage, "{}: no such command; /help lists them", name);
    }
    return true;
  }

  void set_thinking(Thinking thinking) {
    check_thinking(thinking, loaded_, args_.has("raw"));
    thinking_ = thinking;
    const bool on = thinking.mode != Thinking::Mode::off && model_thinks(loaded_);
    recommended_ = recommended_sampling(loaded_, on);
    sampling_ = sampling_options(args_, recommended_.sampling, loaded_.model->config().vocab_size);
    if (on && sampling_.temperature == 0)
      log_warn("temperature 0 with thinking: such models tend to repeat themselves for ever when greedy");
  }

  // Where each line stands alone there is none.
  void need_conversation(const char* what) const {
    if (single_)
      throw_error(Exit::usage, "{}: there is no conversation here, {}", what,
                  args_.has("raw") ? "each text stands alone (--raw)" : "each puzzle stands alone");
  }

  void system_prompt(const std::string& text) {
    need_conversation("system prompt");
    if (!messages_.empty() && messages_[0].role == "system") messages_.erase(messages_.begin());
    if (text.empty()) return;
    messages_.insert(messages_.begin(), {"system", text, ""});
    if (!recommended_.system_prompt)
      log_info("{}", dimmed(fmt::format("note: {} is meant to be used without a system prompt", recommended_.origin)));
  }

  void clear() {
    std::erase_if(messages_, [](const Message& m) { return m.role != "system"; });
    last_line_.clear(), last_thinking_.clear();
  }

  void save(const std::string& path) const {
    need_conversation("/save");
    check_result_file(path);
    write_file_atomic(path, conversation_json(messages_) + "\n");
    log_info("{}", dimmed(fmt::format("{} messages in {}", messages_.size(), path)));
  }

  void load(const std::string& path) {
    need_conversation("load");
    messages_ = parse_conversation(read_file(path), path);
    log_info("{}", dimmed(fmt::format("{} messages from {}", messages_.size(), path)));
  }

  void retry() {
    if (single_) {
      if (last_line_.empty()) throw_error(Exit::usage, "/retry: nothing was asked yet");
      say(std::string(last_line_));
      return;
    }
    std::vector<Message> before = messages_;
    if (!before.empty() && before.back().role == "assistant") before.pop_back();
    if (before.empty() || before.back().role != "user") throw_error(Exit::usage, "/retry: nothing was asked yet");
    converse(std::move(before));
  }

  void stats() const {
    log_info("{} answers: {} thinking + {} answer tokens at {:.1f} tokens/s; {} prompt tokens, {} of them cached; {}",
             answers_, total_thinking_, total_tokens_ - total_thinking_,
             total_seconds_ > 0 ? static_cast<double>(total_tokens_) / total_seconds_ : 0, total_prompt_, total_cached_,
             meter());
    log_info("{}; activations {}; {} resident", sampling_text(sampling_), kernels::activations_name(activations_),
             format_bytes(static_cast<uint64_t>(current_rss_bytes())));
  }

  // --- Answers ---

  void say(const std::string& text) {
    if (single_) {
      last_line_ = text;
      const Prompt prompt = make_prompt(loaded_, text, args_.has("raw"));
      if (!prompt.note.empty()) log_info("{}", dimmed("note: " + prompt.note));
      const Answer a = answer(prompt.ids, [&](const Answer& done) {
        if (!prompt.problem || done.detail == StopDetail::cancelled) return std::string();
        const tasks::Grade grade = loaded_.task->grade(*prompt.problem, done.ids);
        return grade.right() ? std::string("right; ") : fmt::format("wrong: {}; ", grade.reason);
      });
      last_thinking_ = a.reasoning;
      return;
    }
    std::vector<Message> messages = messages_;
    messages.push_back({"user", text, ""});
    converse(std::move(messages));
  }

  // What is said is kept only if it could be answered.
  void converse(std::vector<Message> messages) {
    const std::vector<int32_t> ids =
        encode_rendered(loaded_, render_prompt(loaded_, {.messages = message_list(messages)}, thinking_.mode));
    Answer a = answer(ids, [](const Answer&) { return std::string(); });
    messages_ = std::move(messages);
    if (a.ids.empty()) return;
    if (a.thought) a.content.erase(0, std::min(a.content.find_first_not_of("\r\n"), a.content.size()));
    messages_.push_back({"assistant", a.content, a.reasoning});
    last_thinking_ = a.reasoning;
  }

  template <class Verdict>
  Answer answer(const std::vector<int32_t>& prompt, Verdict&& verdict) {
    const auto count = static_cast<int64_t>(prompt.size());
    if (count >= context_)
      throw_error(Exit::data,
                  "the conversation has {} tokens now, the context {}: nothing was cut and nothing was sent; /clear "
                  "begins anew, /save keeps this one",
                  count, context_);
    const int64_t room = context_ - count;
    const int64_t wanted = single_ ? default_max_tokens(loaded_, prompt.size()) : room;
    AnswerRequest request;
    request.prompt = prompt;
    request.seeds = {seed_++};
    request.sampling = sampling_;
    request.max_tokens = static_cast<int>(std::min(args_.integer("max-tokens", wanted, 1, kMostTokens), room));
    request.stop_tokens = stop_tokens(loaded_);
    request.stop = stop_;
    request.think_budget = thinking_.budget;
    request.end_phrase = loaded_.tokenizer->encode(recommended_.end_phrase);
    request.loop_guard = !args_.has("no-loop-guard");

    Screen screen(folded_);
    const int64_t shared_before = engine_->stats().shared_tokens;
    const double start = seconds_now();
    double first = 0;
    int64_t id = 0;
    {
      Keys keys;
      id = answering_.add(std::move(request), [&](size_t, const AnswerText::Delta& d) { screen.show(d); });
      try {
        while (!answering_.idle()) {
          answering_.step();
          const Answer& a = answering_.answers(id)[0];
          if (first == 0 && !a.ids.empty()) {
            first = seconds_now() - start;
            cached_ = engine_->stats().shared_tokens - shared_before;
          }
          if (a.content.empty()) screen.count(a.reasoning_tokens);
          const std::string typed = keys.typed();
          if (typed == "t" && typed_ahead_.empty())
            screen.fold(folded_ = !folded_);
          else
            typed_ahead_ += typed;
          if (stop_requested()) answering_.cancel_all();
        }
      } catch (...) {  // out of memory, say: the conversation goes on without this answer
        answering_.cancel_all();
        answering_.take(id);
        screen.end();
        throw;
      }
      screen.end();
    }
    const double seconds = seconds_now() - start;
    Answer a = answering_.take(id)[0];
    used_ = count + static_cast<int64_t>(a.ids.size());
    log_info("{}", dimmed(verdict(a) + footer(a, count, seconds, first)));
    if (a.detail == StopDetail::context_full || used_ >= context_)
      log_warn("the context of {} tokens is full, so the answer ends here; /clear begins anew", context_);
    else if (a.detail == StopDetail::max_tokens && args_.has("max-tokens"))
      log_info("{}", dimmed("--max-tokens ended the answer"));
    else if (a.detail == StopDetail::loop_guard)
      log_warn(
          "the answer repeated itself over and over and was ended; /retry draws another (--no-loop-guard lets it)");
    ++answers_;
    total_thinking_ += a.reasoning_tokens, total_tokens_ += static_cast<int64_t>(a.ids.size());
    total_seconds_ += seconds, total_prompt_ += count, total_cached_ += cached_;
    return a;
  }

  std::string footer(const Answer& a, int64_t prompt, double seconds, double first) const {
    const auto tokens = static_cast<double>(a.ids.size());
    // The first token is the prompt's work.
    const double rate = tokens > 1 && seconds > first ? (tokens - 1) / (seconds - first) : 0;
    std::string out =
        fmt::format("{} thinking + {} answer tokens, {:.1f} tokens/s, first after {:.0f} ms", a.reasoning_tokens,
                    static_cast<int64_t>(a.ids.size()) - a.reasoning_tokens, rate, 1000 * first);
    out += fmt::format(", {:.0f} % of the prompt cached",
                       100 * static_cast<double>(cached_) / static_cast<double>(prompt));
    if (a.inserted > 0) out += fmt::format(", thinking ended after {} tokens", thinking_.budget);
    if (!single_) out += ", " + meter();
    return out;
  }

  std::string meter() const {
    return fmt::format("context {} of {} ({:.0f} %)", format_grouped(used_), format_grouped(context_),
                       100 * static_cast<double>(used_) / static_cast<double>(context_));
  }

  const Arguments& args_;
  const LoadedModel& loaded_;
  bool single_;
  int64_t context_;
  kernels::Activations activations_;
  std::unique_ptr<engine::Engine> engine_;
  Answering answering_;
  uint64_t seed_;
  std::vector<std::string> stop_;
  bool folded_;
  Thinking thinking_;
  Recommended recommended_;
  engine::Sampling sampling_;

  std::vector<Message> messages_;
  std::string last_line_, last_thinking_, typed_ahead_;
  int64_t used_ = 0, cached_ = 0;  // tokens of the context; of the last prompt found in memory
  int64_t answers_ = 0, total_thinking_ = 0, total_tokens_ = 0, total_prompt_ = 0, total_cached_ = 0;
  double total_seconds_ = 0;
};

}  // namespace

int chat_command(const Arguments& args) {
  Machine machine(args.threads());
  const LoadedModel loaded =
      load_any_model(args.positional[0], machine, model_options(args, false), args.has("allow-paging"));
  if (!loaded.tokenizer)
    throw_error(Exit::data, "{}: it has no tokenizer.json, so there is no text to talk in", loaded.path);
  if (!loaded.chat && !loaded.task && !args.has("raw"))
    throw_error(Exit::data,
                "{}: this model has no chat template (a base model continues texts, it does not talk); --raw takes "
                "what you type as the text to continue",
                loaded.path);
  Chat chat(args, loaded, machine);
  chat.greet();
  install_terminal_signals();
  LineReader reader("> ");
  for (;;) {
    const auto line = reader.read();
    const bool interrupted = stop_requested() && !end_requested();
    clear_stop_request();
    if (!line && interrupted && isatty(STDIN_FILENO)) continue;  // Ctrl+C before the line could be edited
    if (!line && isatty(STDIN_FILENO)) log_info("");             // what comes next begins a line
    if (!line) return interrupted || end_requested() ? static_cast<int>(Exit::resumable) : 0;
    try {
      if (!chat.line(*line)) return 0;
    } catch (const Error& e) {
      log_info("{}", e.what());
    }
    clear_stop_request();
    reader.push(chat.take_typed());
  }
}

}  // namespace ponder::app
