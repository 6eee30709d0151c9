// Reading JSON from anyone: bounded in size, depth and number of values, valid UTF-8 only, no key twice, doubles exact.
// Include it in .cc files only: nlohmann/json is a heavy header.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "ponder/base/error.h"

namespace ponder {

using Json = nlohmann::json;

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;
  size_t max_values = size_t{4} << 20;  // a parsed value takes up to 100 bytes, whatever its text takes
};

// `path` and `line` (of the first byte) are for messages: "data.jsonl:17: byte 8: unexpected end of input".
Json parse_json(std::string_view text, const std::string& path, int line = 1, const JsonLimits& limits = {});

// The whole file as one value.
Json read_json(const std::string& path, const JsonLimits& limits = {});

// Every line that is not blank. The limits are those of a line.
void read_json_lines(const std::string& path, const std::function<void(Json& value, int line)>& f,
                     const JsonLimits& limits = {});

}  // namespace ponder
