// A Jinja interpreter for chat templates: the language as transformers sets it up (sandboxed Jinja2 3.1 with
// trim_blocks, lstrip_blocks and loop controls), byte for byte. docs: https://jinja.palletsprojects.com/templates/
//
//   const auto t = jinja::Template::parse("{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}", "chat");
//   t.render(jinja::Value::from_json(R"({"messages": [{"role": "user", "content": " Hi "}]})", "request"));  // "user: Hi"
//
// Tags: if, for (else, if, recursive), set (also blocks and namespace attributes), macro, call, filter, with, print, raw,
// generation, break, continue. All of Jinja's operators, literals and tests; the filters of filters.h (HTML is left
// out); the methods of str, dict and list that change nothing, since transformers' sandbox refuses the others.
// Not there: include, import, extends, block, autoescape.
// What differs from Python: integers have 64 bits (beyond is an error), names are ASCII, and a generator has no text.
//
// A template is untrusted code. It sees nothing but the values given to it, and its work, output, strings, recursion and
// nesting are bounded. Everything that goes wrong is an Error (Exit::data) "NAME:LINE:COLUMN: what".
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {

struct ParseOptions {
  bool trim_blocks = true;
  bool lstrip_blocks = true;
  size_t max_bytes = size_t{1} << 20;
};

struct RenderOptions {
  uint64_t max_steps = 20'000'000;  // about a second
  size_t max_output_bytes = size_t{64} << 20;
  size_t max_string_bytes = size_t{16} << 20;
  std::optional<std::tm> now;  // what strftime_now shows; else this machine's local time
};

class Template {
 public:
  static Template parse(std::string_view source, std::string name, const ParseOptions& options = {});

  // `variables` is a dict of the names that the template sees.
  std::string render(const Value& variables, const RenderOptions& options = {}) const;

  const std::string& name() const { return name_; }

 private:
  struct Program;
  std::string name_;
  std::shared_ptr<const Program> program_;
};

}  // namespace ponder::text::jinja
