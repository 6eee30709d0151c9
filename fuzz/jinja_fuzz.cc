// A template, a line of \x01, and variables as JSON (none: no variables): a text within the limits or an Error, and what
// rendered once renders the same again.
#include <string>
#include <string_view>

#include "ponder/text/jinja/jinja.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder::text::jinja;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find("\n\x01\n");
  RenderOptions options;
  options.max_steps = 3'000;
  options.max_output_bytes = 1 << 13;
  options.max_string_bytes = 1 << 13;
  options.now = std::tm{.tm_mday = 1, .tm_year = 125};
  try {
    const Value variables = cut == text.npos ? Value::dict({}) : Value::from_json(text.substr(cut + 3), "variables");
    if (!variables.is_dict()) return 0;
    const Template t = Template::parse(text.substr(0, cut), "fuzz");
    const std::string rendered = t.render(variables, options);
    if (rendered.size() > options.max_output_bytes || t.render(variables, options) != rendered) __builtin_trap();
    if (Value::from_json(variables.to_json(), "again").to_json() != variables.to_json()) __builtin_trap();
  } catch (const ponder::Error& e) {
    if (std::string_view(e.what()).empty()) __builtin_trap();
  }
  return 0;
}
