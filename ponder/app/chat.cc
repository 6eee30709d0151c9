// chat: type a line, see the thinking dimmed and then the answer.
#include <unistd.h>

#include <cstdio>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/line_reader.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

// Answers go to stdout, thinking too where it is a terminal; everything else to stderr.
class Screen {
 public:
  explicit Screen(bool hide_thinking) : hide_(hide_thinking), color_(isatty(STDOUT_FILENO) && stderr_has_color()) {}
  void show(const AnswerText::Delta& d) {
    const bool thinking = d.part == text::ThinkSplitter::State::reasoning;
    if (thinking && hide_) return;
    if (thinking != dim_) {
      if (color_) std::fputs(thinking ? "\x1b[2m" : "\x1b[0m", stdout);
      if (!thinking && begun_) std::fputs("\n", stdout);
      dim_ = thinking;
    }
    std::fwrite(d.text.data(), 1, d.text.size(), stdout);
    std::fflush(stdout);
    begun_ = true;
  }
  void end() {
    if (dim_ && color_) std::fputs("\x1b[0m", stdout);
    std::fputs("\n", stdout);
    std::fflush(stdout);
    dim_ = begun_ = false;
  }

 private:
  bool hide_, color_, dim_ = false, begun_ = false;
};

std::string dimmed(const std::string& text) { return stderr_has_color() ? "\x1b[2m" + text + "\x1b[0m" : text; }

}  // namespace

int chat_command(const Arguments& args) {
  Machine machine(args.threads());
  const LoadedModel loaded = load_any_model(args.positional[0], machine);
  if (!loaded.tokenizer)
    throw_error(Exit::data, "{}: it has no tokenizer.json, so there is no text to talk in", loaded.path);
  const engine::Sampling sampling = sampling_options(args, loaded);
  const int64_t context = loaded.model->config().max_position_embeddings;
  const auto engine = make_chat_engine(loaded, *machine.backend, 1, context, false);
  uint64_t seed = static_cast<uint64_t>(args.integer("seed", 0, 0, INT64_MAX));
  log_info("{}", loaded.path);
  if (loaded.task)
    log_info("{}", dimmed(fmt::format("{}: type a puzzle such as  {}   (Ctrl+C ends an answer, Ctrl+D the chat)",
                                      loaded.task->name(), loaded.task->problem(tasks::Split::held_out, 0).text)));
  install_stop_signals();
  LineReader reader("> ");
  while (const auto line = reader.read()) {
    clear_stop_request();
    if (line->find_first_not_of(" \t\r\n") == line->npos) continue;
    if (*line == "/exit" || *line == "/quit" || *line == "exit" || *line == "quit") break;
    Prompt prompt;
    try {
      prompt = make_prompt(loaded, *line, args.has("raw"));
      if (static_cast<int64_t>(prompt.ids.size()) >= context)
        throw_error(Exit::data, "that is {} tokens; the model's context is {}", prompt.ids.size(), context);
    } catch (const Error& e) {
      log_info("{}", e.what());
      continue;
    }
    if (!prompt.note.empty()) log_info("{}", dimmed("note: " + prompt.note));
    const auto longest = static_cast<int64_t>(default_max_tokens(loaded, prompt.ids.size()));
    const int max_tokens = static_cast<int>(
        std::min(args.integer("max-tokens", longest, 1, 1 << 24), context - static_cast<int64_t>(prompt.ids.size())));

    Screen screen(args.has("hide-thinking"));
    AnswerText text(*loaded.tokenizer, prompt.ids);
    std::vector<int32_t> tokens;
    int64_t thinking = 0;
    bool in_thinking = false;
    const double start = seconds_now();
    double first = 0;
    const int64_t id = engine->add({.prompt = prompt.ids,
                                    .seeds = {seed++},
                                    .sampling = sampling,
                                    .max_new_tokens = max_tokens,
                                    .stop_tokens = stop_tokens(loaded)});
    while (!engine->idle()) {
      for (const engine::Event& e : engine->step()) {
        if (e.token < 0) continue;
        if (tokens.empty()) first = seconds_now() - start;
        tokens.push_back(e.token);
        for (const auto& d : text.push(e.token)) {
          screen.show(d);
          in_thinking = d.part == text::ThinkSplitter::State::reasoning;
        }
        thinking += in_thinking;
      }
      if (stop_requested()) engine->cancel(id);
    }
    for (const auto& d : text.finish()) screen.show(d);
    screen.end();
    const double seconds = seconds_now() - start;
    std::string footer = fmt::format("{} thinking + {} answer tokens, {:.0f} tokens/s, first after {:.0f} ms", thinking,
                                     static_cast<int64_t>(tokens.size()) - thinking,
                                     static_cast<double>(tokens.size()) / seconds, 1000 * first);
    if (prompt.problem && !stop_requested()) {
      const tasks::Grade grade = loaded.task->grade(*prompt.problem, tokens);
      footer = (grade.right() ? "right; " : fmt::format("wrong: {}; ", grade.reason)) + footer;
    }
    log_info("{}", dimmed(footer));
  }
  return 0;
}

}  // namespace ponder::app
