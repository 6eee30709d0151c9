#include "ponder/text/pretokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "ponder/base/error.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

// PCRE2's \s holds U+180E, which was a space before Unicode 6.3; that of tokenizers does not.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr size_t kMaxPattern = 64 << 10;
constexpr uint32_t kMatchLimit = 10'000'000, kHeapKib = 256 << 10;
constexpr size_t kJitStack = 8 << 20;

// The expression for PCRE2. What the two read differently is translated or refused.
std::string translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i], next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\') {
      ++i;
      if (next == 's' || (next == 'S' && !in_class)) {
        out += in_class ? kSpaces : fmt::format("[{}{}]", next == 'S' ? "^" : "", kSpaces);
        continue;
      }
      if (next == 'h' || next == 'H' || next == 'K' || next == 'g' || next == 'C' || next == 'E' || next == 'Q')
        throw_error(Exit::data, "the expression \"{}\" has \\{}, which is not supported", pattern.substr(0, 80), next);
      out += c;
      if (next) out += next;
      continue;
    }
    if (in_class && c == '&' && next == '&')
      throw_error(Exit::data, "the expression \"{}\" has an intersection (&&) of classes, which is not supported",
                  pattern.substr(0, 80));
    if (in_class && c == '[' && next != ':')
      throw_error(Exit::data, "the expression \"{}\" has a class inside a class, which is not supported",
                  pattern.substr(0, 80));
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string message_of(int code) {
  PCRE2_UCHAR text[200];
  return pcre2_get_error_message(code, text, sizeof text) < 0 ? "error " + std::to_string(code)
                                                              : reinterpret_cast<const char*>(text);
}

struct JitStack {
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStack, nullptr);
  ~JitStack() { pcre2_jit_stack_free(stack); }
};

}  // namespace

struct SplitRegex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;
  ~Code() { pcre2_code_free(code); }
};

SplitRegex::SplitRegex(std::string_view pattern, bool literal) : code_(std::make_unique<Code>()) {
  if (pattern.empty() || pattern.size() > kMaxPattern)
    throw_error(Exit::data, "an expression of {} bytes; 1 to {} are possible", pattern.size(), kMaxPattern);
  code_->pattern = pattern;
  const std::string text = literal ? std::string(pattern) : translate(pattern);
  // In Ruby's syntax ^ and $ are the ends of lines, and only \n ends one.
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  const uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
  int error = 0;
  PCRE2_SIZE where = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options, &error, &where, context);
  pcre2_compile_context_free(context);
  if (!code_->code)
    throw_error(Exit::data, "the expression \"{}\" does not compile: {} (near \"{}\")", pattern.substr(0, 80),
                message_of(error), text.substr(std::min(where, text.size()), 20));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, PCRE2 interprets
}

SplitRegex::~SplitRegex() = default;

struct SplitRegex::Scan::State {
  const Code* code;
  pcre2_match_data* data;
  pcre2_match_context* context;
  std::string_view text;
  size_t from = 0, last_end = std::string_view::npos;
};

SplitRegex::Scan::Scan(const SplitRegex& regex)
    : state_(std::make_unique<State>(State{regex.code_.get(),
                                           pcre2_match_data_create_from_pattern(regex.code_->code, nullptr),
                                           pcre2_match_context_create(nullptr)})) {
  thread_local JitStack stack;
  pcre2_set_match_limit(state_->context, kMatchLimit);
  pcre2_set_heap_limit(state_->context, kHeapKib);
  pcre2_jit_stack_assign(state_->context, nullptr, stack.stack);
}

SplitRegex::Scan::~Scan() {
  pcre2_match_context_free(state_->context);
  pcre2_match_data_free(state_->data);
}

void SplitRegex::Scan::start(std::string_view text) {
  state_->text = text;
  state_->from = 0;
  state_->last_end = std::string_view::npos;
}

bool SplitRegex::Scan::next(Match& match) {
  State& s = *state_;
  while (s.from <= s.text.size()) {
    const int found = pcre2_match(s.code->code, reinterpret_cast<PCRE2_SPTR>(s.text.data()), s.text.size(), s.from,
                                  PCRE2_NO_UTF_CHECK, s.data, s.context);
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0)
      throw_error(Exit::data, "the expression \"{}\" of the tokenizer gave up on a text of {} bytes: {}",
                  s.code->pattern.substr(0, 80), s.text.size(), message_of(found));
    const PCRE2_SIZE* at = pcre2_get_ovector_pointer(s.data);
    match = {at[0], at[1]};
    if (match.end > match.begin) {
      s.from = s.last_end = match.end;
      return true;
    }
    // An empty match cuts, but for one right behind another match.
    s.from = match.end < s.text.size() ? match.end + code_point(s.text.data() + match.end).bytes : s.text.size() + 1;
    if (match.end != s.last_end) {
      s.last_end = match.end;
      return true;
    }
  }
  return false;
}

}  // namespace ponder::text
