#include "ponder/text/jinja/lexer.h"

#include <array>
#include <optional>

#include "ponder/base/utf8.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

constexpr size_t kMaxTokens = 50'000;  // each costs some 250 bytes in the tree; the longest templates have 5,000

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_char(char c) { return is_name_start(c) || is_digit(static_cast<unsigned char>(c)); }

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// "\r\n" and "\r" become "\n", and one line end at the very end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name, WhiteSpaceRules rules)
      : source_(normalized(source)), rest_(source_), name_(name), rules_(rules) {}

  std::vector<Token> run() {
    while (!rest_.empty()) {
      check_count();
      text();
    }
    tokens_.push_back({Token::Kind::end, at_, ""});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(Position at, const std::string& what) const { fail_at(name_, at, what); }

  void check_count() const {
    if (tokens_.size() > kMaxTokens) fail(at_, fmt::format("more than {} words and signs in tags", kMaxTokens));
  }

  void advance(size_t bytes) {
    for (const char c : rest_.substr(0, bytes)) {
      if (c == '\n')
        ++at_.line, at_.column = 1;
      else if ((c & 0xC0) != 0x80)
        ++at_.column;
    }
    if (bytes > 0) line_starts_ = rest_[bytes - 1] == '\n';
    rest_.remove_prefix(bytes);
  }
  void skip_space() { advance(rest_.size() - strip(rest_, Side::left).size()); }
  // Where the next token of the tag would be; nothing is consumed.
  static std::string_view after_space(std::string_view text) { return strip(text, Side::left); }

  // Text up to the next tag, then that tag.
  void text() {
    size_t end = 0;
    do {
      end = rest_.find('{', end);
      if (end == rest_.npos || end + 1 == rest_.size()) {
        emit_text(rest_);
        return advance(rest_.size());
      }
    } while (rest_[end + 1] != '{' && rest_[end + 1] != '%' && rest_[end + 1] != '#' && ++end);
    const char kind = rest_[end + 1];
    const char sign = end + 2 < rest_.size() ? rest_[end + 2] : ' ';
    const std::string_view kept = left_of_tag(rest_.substr(0, end), sign, kind != '{');
    emit_text(kept);
    advance(end);
    const Position begin = at_;
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#') {
      comment(begin);
    } else if (kind == '{') {
      tokens_.push_back({Token::Kind::variable_begin, begin, ""});
      tag(begin, false);
    } else if (!raw(begin)) {
      tokens_.push_back({Token::Kind::block_begin, begin, ""});
      tag(begin, true);
    }
  }

  std::string_view left_of_tag(std::string_view before, char sign, bool block) const {
    if (sign == '-') return strip(before, Side::right);
    if (sign == '+' || !block || !rules_.lstrip_blocks) return before;
    const size_t line = before.rfind('\n') + 1;  // 0 if there is none
    if (line == 0 && !line_starts_) return before;
    return strip(before.substr(line), Side::left).empty() ? before.substr(0, line) : before;
  }

  void emit_text(std::string_view text) {
    if (!text.empty()) tokens_.push_back({Token::Kind::text, at_, std::string(text)});
  }

  // "%}" or "#}" with its sign at the front: consumed with the white space that it takes along.
  bool close(std::string_view mark, bool block) {
    if (rest_.starts_with("-") && rest_.substr(1).starts_with(mark)) {
      advance(1 + mark.size());
      skip_space();
      return true;
    }
    if (block && rest_.starts_with("+") && rest_.substr(1).starts_with(mark)) return advance(1 + mark.size()), true;
    if (!rest_.starts_with(mark)) return false;
    advance(mark.size() + (block && rules_.trim_blocks && rest_.substr(mark.size()).starts_with("\n")));
    return true;
  }

  void comment(Position begin) {
    size_t end = rest_.find("#}");
    if (end == rest_.npos) fail(begin, "this comment is not closed; expected #}");
    if (end > 0 && (rest_[end - 1] == '-' || rest_[end - 1] == '+')) --end;
    advance(end);
    close("#}", true);
  }

  // {% raw %} ... {% endraw %}, if that is what stands here.
  bool raw(Position begin) {
    std::string_view look = after_space(rest_);
    if (!look.starts_with("raw")) return false;
    look = after_space(look.substr(3));
    const bool strips = look.starts_with("-%}");
    if (!strips && !look.starts_with("%}")) return false;
    advance(rest_.size() - look.size() + (strips ? 3 : 2));
    if (strips) skip_space();
    for (size_t end = rest_.find("{%"); end != rest_.npos; end = rest_.find("{%", end + 1)) {
      const char sign = end + 2 < rest_.size() ? rest_[end + 2] : ' ';
      std::string_view after = after_space(rest_.substr(end + (sign == '-' || sign == '+' ? 3 : 2)));
      if (!after.starts_with("endraw")) continue;
      after = after_space(after.substr(6));
      if (!(after.starts_with("%}") || after.starts_with("-%}") || after.starts_with("+%}"))) continue;
      emit_text(left_of_tag(rest_.substr(0, end), sign, true));
      advance(rest_.size() - after.size());
      return close("%}", true);
    }
    fail(begin, "this raw block is not closed; expected {% endraw %}");
  }

  void tag(Position begin, bool block) {
    std::string brackets;  // the closing ones expected
    while (true) {
      check_count();
      skip_space();
      if (rest_.empty()) fail(begin, fmt::format("this tag is not closed; expected {}", block ? "%}" : "}}"));
      const Position at = at_;
      if (brackets.empty() && close(block ? "%}" : "}}", block)) {
        tokens_.push_back({block ? Token::Kind::block_end : Token::Kind::variable_end, at, ""});
        return;
      }
      const char c = rest_[0];
      if (is_name_start(c)) {
        size_t end = 1;
        while (end < rest_.size() && is_name_char(rest_[end])) ++end;
        emit(Token::Kind::name, end);
      } else if (is_digit(static_cast<unsigned char>(c))) {
        number();
      } else if (c == '\'' || c == '"') {
        string();
      } else {
        op(brackets);
      }
    }
  }

  void emit(Token::Kind kind, size_t bytes) {
    tokens_.push_back({kind, at_, std::string(rest_.substr(0, bytes))});
    advance(bytes);
  }

  void op(std::string& brackets) {
    static constexpr std::array<std::string_view, 6> kTwo = {"**", "//", "==", "!=", ">=", "<="};
    for (const auto two : kTwo)
      if (rest_.starts_with(two)) return emit(Token::Kind::op, 2);
    const char c = rest_[0];
    if (std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos) {
      const std::string_view shown = rest_.substr(0, code_point_at(rest_, 0).bytes);
      fail(at_, fmt::format("unexpected character {}; names are ASCII letters, digits and _", quoted(shown)));
    }
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty()) fail(at_, fmt::format("unexpected '{}': no bracket is open here", c));
      if (brackets.back() != c) fail(at_, fmt::format("unexpected '{}', expected '{}'", c, brackets.back()));
      brackets.pop_back();
    }
    emit(Token::Kind::op, 1);
  }

  // Digits of the base with single underscores between them; the end of what matches.
  size_t digits(size_t at, int base, bool underscore_first = false) const {
    size_t end = at;
    while (end < rest_.size()) {
      if (digit_value(rest_[end]) < base)
        ++end;
      else if (rest_[end] == '_' && (end > at || underscore_first) && end + 1 < rest_.size() &&
               digit_value(rest_[end + 1]) < base)
        ++end;
      else
        break;
    }
    return end;
  }

  void number() {
    const bool after_dot = !tokens_.empty() && tokens_.back().is(Token::Kind::op, ".");
    size_t end = digits(0, 10);
    Token::Kind kind = Token::Kind::integer;
    if (!after_dot) {
      if (end + 1 < rest_.size() && rest_[end] == '.' && digit_value(rest_[end + 1]) < 10) {
        end = digits(end + 1, 10);
        kind = Token::Kind::real;
      }
      if (end < rest_.size() && (rest_[end] | 32) == 'e') {
        const size_t sign = end + 1 < rest_.size() && (rest_[end + 1] == '+' || rest_[end + 1] == '-');
        const size_t exponent = digits(end + 1 + sign, 10);
        if (exponent > end + 1 + sign) end = exponent, kind = Token::Kind::real;
      }
    }
    if (kind == Token::Kind::integer && rest_[0] == '0') {
      const char mark = rest_.size() > 1 ? static_cast<char>(rest_[1] | 32) : ' ';
      const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
      if (base && digits(2, base, true) > 2) {
        end = digits(2, base, true);
      } else if (rest_.substr(0, end).find_first_not_of("0_") != std::string_view::npos) {
        fail(at_, "an integer does not start with 0");
      }
    }
    emit(kind, end);
    std::erase(tokens_.back().text, '_');
  }

  void string() {
    const Position begin = at_;
    const char quote = rest_[0];
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) fail(begin, fmt::format("this string is not closed; expected {}", quote));
    tokens_.push_back({Token::Kind::string, begin, unescaped(rest_.substr(1, end - 1), begin)});
    advance(end + 1);
  }

  std::string unescaped(std::string_view raw, Position at) const {
    std::string out;
    out.reserve(raw.size());
    for (size_t i = 0; i < raw.size();) {
      if (raw[i] != '\\') {
        out += raw[i++];
        continue;
      }
      const char c = raw[i + 1];  // a string does not end in a lone backslash
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t k = kFrom.find(c); k != kFrom.npos) {
        out += kTo[k];
        i += 2;
      } else if (c == '\n') {
        i += 2;
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        size_t end = i + 1;
        while (end < raw.size() && end < i + 4 && digit_value(raw[end]) < 8) code = code * 8 + digit_value(raw[end++]);
        append_utf8(out, code);
        i = end;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        uint32_t code = 0;
        for (size_t k = i + 2; k < i + 2 + length; ++k) {
          if (k >= raw.size() || digit_value(raw[k]) > 15)
            fail(at, fmt::format("\\{} in a string needs {} hexadecimal digits", c, length));
          code = code * 16 + digit_value(raw[k]);
        }
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
          fail(at, fmt::format("\\{}{:X} in a string is no character", c, code));
        append_utf8(out, code);
        i += 2 + length;
      } else if (c == 'N') {
        fail(at, "\\N{NAME} in a string is not supported; write the character or \\uXXXX");
      } else {
        out += '\\';
        ++i;
      }
    }
    return out;
  }

  std::string source_;
  std::string_view rest_;
  const std::string& name_;
  WhiteSpaceRules rules_;
  Position at_;
  bool line_starts_ = true;  // what was consumed last ended a line
  std::vector<Token> tokens_;
};

}  // namespace

void fail_at(const std::string& name, Position at, const std::string& what) {
  throw_error(Exit::data, "{}:{}:{}: {}", name, at.line, at.column, what);
}

std::vector<Token> tokenize(std::string_view source, const std::string& name, WhiteSpaceRules rules) {
  if (const size_t good = utf8_valid_prefix(source); good < source.size())
    throw_error(Exit::data, "{}: byte {}: a template is UTF-8 text, and this is not", name, good);
  return Lexer(source, name, rules).run();
}

}  // namespace ponder::text::jinja
