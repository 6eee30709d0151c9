// What the readers of safetensors' JSON share: a header or an index is read part by part, as nlohmann's parser meets it,
// so that it costs what is kept of it and no tree. Internal; include it in .cc files only.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "ponder/base/error.h"
#include "ponder/base/watched_text.h"

namespace ponder {

inline constexpr size_t kMaxTensors = size_t{1} << 17;  // DeepSeek-V3 has 92,000 in all its shards
inline constexpr size_t kMaxTextBytes = size_t{1} << 20;

// Where in a file nlohmann's parser is, for messages. It collects every text whole, and more than once, before anybody
// sees it: how long one may be is looked after on the way.
struct JsonPlace {
  const std::string& path;
  std::string_view text;
  size_t first = 0;               // byte of the file at which the text begins
  size_t at = 0, last_event = 0;  // bytes of the text

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(Exit::data, "{}: {} (byte {})", path, fmt::format(format, std::forward<Args>(args)...), first + at);
  }
  void step() {
    if (++at - last_event > kMaxTextBytes) fail("a text of more than {} bytes", kMaxTextBytes);
  }
};

// Gives the parts of the text to `reader` in order. The parser uses no recursion and builds no tree.
template <class Reader>
void read_events(JsonPlace& place, Reader& reader) {
  const char* begin = place.text.data();
  nlohmann::json::sax_parse(WatchedText<JsonPlace>{begin, &place},
                            WatchedText<JsonPlace>{begin + place.text.size(), &place}, &reader);
}

}  // namespace ponder
