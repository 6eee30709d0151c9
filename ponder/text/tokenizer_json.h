// Reads JSON in place, from front to back: nothing is built, so that what it costs is what its caller keeps. A large
// file is passed over once, which holds it against the grammar; what is wanted of it is then read where it stands.
//
// The text must be well-formed wherever it is passed, skipped or not; a copy of a reader reads the same again. Errors
// (Exit::data) begin with the file's name, the line and how many bytes were read, the faulty one included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ponder::text {

class JsonReader {
 public:
  static constexpr int kMaxDepth = 64;
  static constexpr size_t kMaxTextBytes = size_t{1} << 20;  // of a text that is read; others are as long as they like

  // `text` and `name` are not copied.
  JsonReader(std::string_view text, std::string_view name);

  // The first character of the value ahead: '{', '[', '"', 't', 'f', 'n', '-' or a digit if it is one.
  char ahead();

  // Passes an object; f(name) must pass the value of each member. The name lives as long as that call.
  template <class F>
  void members(F&& f) {
    std::string unescaped;
    if (!open('{')) return;
    do {
      const std::string_view name = text(unescaped);
      colon();
      f(name);
    } while (next('}'));
  }
  // Passes an array; f() must pass each item.
  template <class F>
  void items(F&& f) {
    if (!open('[')) return;
    do f();
    while (next(']'));
  }

  // Passes a text, which is found in the file itself or, if it has escapes, in `unescaped`.
  std::string_view text(std::string& unescaped);

  // Passes any value: its bytes, and how many items or members it has itself.
  struct Passed {
    std::string_view json;
    size_t items = 0;
  };
  Passed skip();

  // Only white space may follow.
  void finish();

  const char* position() const { return at_; }

 private:
  [[noreturn]] void fail(std::string_view what) const;
  [[noreturn]] void fail_expected(std::string_view what) const;
  bool at(char c) const { return at_ < end_ && *at_ == c; }
  void space();
  bool open(char bracket);
  bool next(char closing);
  void colon();
  void pass_text();
  void pass_escape();
  uint32_t pass_hex();
  void pass_number();
  void pass_digits();
  void pass_scalar();

  std::string_view file_, name_;
  const char *at_, *end_;  // end_: of what is well-formed UTF-8
  int depth_ = 0;
  bool escaped_ = false;  // the last text had escapes
};

// The whole number that a value is, or nothing (texts, fractions, what 64 bits do not hold).
std::optional<int64_t> json_integer(std::string_view json);

}  // namespace ponder::text
