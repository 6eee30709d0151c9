// JSON read event by event, as nlohmann's parser meets its parts: it costs what the reader keeps, and no tree. Internal
// to readers of files; include it in .cc files only, nlohmann/json is a heavy header.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "ponder/base/error.h"

namespace ponder {

// Where in a file nlohmann's parser is, for messages: itself it knows that of syntax errors only. It collects every text
// whole, and more than once, before anybody sees it: how long one may be is looked after on the way.
struct JsonPlace {
  const std::string& path;
  std::string_view text;
  size_t first = 0;                        // byte of the file at which the text begins
  int line = 0;                            // the line of that byte, in files that have lines
  size_t max_collected = size_t{1} << 20;  // bytes from one event to the next
  size_t at = 0, last_event = 0;           // bytes of the text; the reader of the events moves the second on

  // Throws Error (data).
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    const std::string what = fmt::format(format, std::forward<Args>(args)...);
    if (line == 0) throw_error(Exit::data, "{}: {} (byte {})", path, what, first + at);
    const auto here = line + std::count(text.data(), text.data() + at, '\n');
    throw_error(Exit::data, "{}:{}: byte {}: {}", path, here, first + at, what);
  }
  void step() {
    if (++at - last_event > max_collected) too_long();
  }
  [[noreturn]] void too_long() const;  // apart from `step`, which is so small enough to be inlined
};

// The characters that the parser takes, from `p` on; the place moves with them.
struct JsonText {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* p;
  JsonPlace* place;

  reference operator*() const { return *p; }
  JsonText& operator++() {
    place->step();
    ++p;
    return *this;
  }
  bool operator==(const JsonText& other) const { return p == other.p; }
  bool operator!=(const JsonText& other) const { return p != other.p; }
};

// Gives the parts of the text to `reader` in order: an object with the methods of nlohmann::json_sax. The parser uses no
// recursion.
template <class Reader>
void read_events(JsonPlace& place, Reader& reader) {
  // The parser takes NUL for the end and would not look at what follows it.
  if (const size_t nul = place.text.find('\0'); nul != place.text.npos) {
    place.at = nul;
    place.fail("a NUL byte");
  }
  const char* begin = place.text.data();
  nlohmann::json::sax_parse(JsonText{begin, &place}, JsonText{begin + place.text.size(), &place}, &reader);
}

// What the parser found to be wrong, without the place.
std::string json_problem(const nlohmann::json::exception& e);

}  // namespace ponder
