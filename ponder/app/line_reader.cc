#include "ponder/app/line_reader.h"

#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <iostream>
#include <utility>

#include "ponder/app/machine.h"

#ifdef PONDER_HAVE_LIBEDIT
#include <histedit.h>
#endif

namespace ponder::app {

#ifdef PONDER_HAVE_LIBEDIT
struct LineReader::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  std::string prompt;
  bool more = false;

  explicit Editor(std::string text) : prompt(std::move(text)) {
    // Without it libedit leaves out all that is not ASCII. What models read and write is UTF-8, whatever LANG says.
    std::setlocale(LC_CTYPE, "C.UTF-8");
    HistEvent event;
    history = history_init();
    ::history(history, &event, H_SETSIZE, 1000);
    ::history(history, &event, H_SETUNIQUE, 1);
    // The prompt is for people, and stdout may be a pipe.
    line = el_init("ponder", stdin, stderr, stderr);
    el_set(line, EL_CLIENTDATA, this);
    el_set(
        line, EL_PROMPT, +[](EditLine* e) {
          Editor* self = nullptr;
          el_get(e, EL_CLIENTDATA, &self);
          static char continuation[] = "... ";
          return self->more ? continuation : self->prompt.data();
        });
    el_set(line, EL_EDITOR, "emacs");
    // Signals end the reading by `read_key`; libedit would send them to the whole process group again, and go on.
    el_set(line, EL_SIGNAL, 0);
    el_set(line, EL_GETCFN, read_key);
    el_set(line, EL_HIST, ::history, history);
    // Ctrl+C is a key here, and clears the line. As a signal it would end the reading, and a second one the program.
    el_set(line, EL_SETTY, "-d", "-isig", nullptr);
    el_set(line, EL_BIND, "^C", "em-kill-line", nullptr);
    // Ctrl+D ends the chat on an empty line. Pressed just while libedit takes the terminal over it comes in as a letter,
    // and the line would never be empty again: control characters do not count.
    el_set(
        line, EL_ADDFN, "end-of-input", "end of input", +[](EditLine* e, int) -> unsigned char {
          const LineInfo* l = el_line(e);
          const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' '; };
          return std::all_of(l->buffer, l->lastchar, is_control) ? CC_EOF : CC_NORM;
        });
    el_set(line, EL_BIND, "^D", "end-of-input", nullptr);
  }
  ~Editor() {
    el_end(line);
    history_end(history);
  }

  // One character; 0 or less is the end.
  static int read_key(EditLine* e, wchar_t* key) {
    std::mbstate_t state{};
    for (;;) {
      const Wake woken = wait_for_input(STDIN_FILENO);
      if (woken == Wake::stop) return 0;
      if (woken == Wake::terminal) {
        el_resize(e);
        el_set(e, EL_PREP_TERM, 1);
        el_set(e, EL_REFRESH);
        continue;
      }
      char byte;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n <= 0) return static_cast<int>(n);
      const size_t length = std::mbrtowc(key, &byte, 1, &state);
      if (length == static_cast<size_t>(-1)) state = {};  // no UTF-8: left out
      if (length <= 1) return 1;
    }
  }
};
#else
struct LineReader::Editor {};
#endif

LineReader::LineReader(std::string prompt) : prompt_(std::move(prompt)) {
#ifdef PONDER_HAVE_LIBEDIT
  if (isatty(STDIN_FILENO)) editor_ = std::make_unique<Editor>(prompt_);
#endif
}
LineReader::~LineReader() = default;

std::optional<std::string> LineReader::read_line(bool more) {
#ifdef PONDER_HAVE_LIBEDIT
  if (editor_) {
    editor_->more = more;
    int count = 0;
    const char* text = el_gets(editor_->line, &count);
    if (!text || count <= 0) return std::nullopt;
    std::string line(text, static_cast<size_t>(count));
    if (line.find_first_not_of(" \t\n") != line.npos) {
      HistEvent event;
      ::history(editor_->history, &event, H_ENTER, text);
    }
    if (!line.empty() && line.back() == '\n') line.pop_back();
    return line;
  }
#endif
  if (isatty(STDIN_FILENO)) std::cerr << (more ? "... " : prompt_) << std::flush;
  for (;;) {
    if (const size_t end = unread_.find('\n'); end != unread_.npos) {
      const std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return line;
    }
    const Wake woken = wait_for_input(STDIN_FILENO);
    if (woken == Wake::stop) return std::nullopt;
    if (woken == Wake::terminal) continue;
    char text[4096];
    const ssize_t n = ::read(STDIN_FILENO, text, sizeof text);
    if (n > 0) {
      unread_.append(text, static_cast<size_t>(n));
      continue;
    }
    if (unread_.empty()) return std::nullopt;
    return std::exchange(unread_, "");  // a last line without an end
  }
}

void LineReader::push(const std::string& typed) {
#ifdef PONDER_HAVE_LIBEDIT
  if (editor_ && !typed.empty()) el_push(editor_->line, typed.c_str());
#endif
}

std::optional<std::string> LineReader::read() {
  constexpr const char* kMark = "\"\"\"";
  std::optional<std::string> line = read_line(false);
  if (!line || !line->starts_with(kMark)) return line;
  std::string text = line->substr(3);
  for (size_t end = text.find(kMark);; end = text.find(kMark)) {
    if (end != text.npos) return text.substr(0, end);
    line = read_line(true);
    if (!line) return text;
    text += (text.empty() ? "" : "\n") + *line;
  }
}

}  // namespace ponder::app
