// JSON Lines in, JSON Lines out: what score, generate, tokenize and template render have in common (docs/formats.md).
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::app {

// One line of the input: an object.
struct JsonLine {
  const nlohmann::json& value;
  std::string_view text;  // as it stands: nlohmann sorts the keys of objects, and templates show them
  const std::string& id;  // its "id" as JSON; without one, the number of the line
  bool has_id;
};

// Reads a file, or stdin where `path` is empty, line by line; blank lines are skipped. A line that is no object, and one
// for which `take` throws Error (data), goes to `fail` with what is wrong. Both are called in input order. Returns the exit
// code of a command that has done nothing else wrong: Exit::data, said on stderr, where a line was no object. A stop
// signal that the command catches ends the waiting for a line of stdin: Error (resumable). `idle` is called before such a
// waiting: whoever writes the input may wait for the answers to what was read.
int read_json_requests(const std::string& path, const std::function<void(const JsonLine&)>& take,
                       const std::function<void(const std::string& id, const std::string& error)>& fail,
                       const std::function<void()>& idle = {});

// {"id", "error"}
std::string error_line(const std::string& id, const std::string& error);
// A line on stdout. It is on its way at once where whoever writes the input waits for it.
void print_line(const std::string& json);
// What was printed leaves the program now. Throws Error (resources) where stdout takes no more, so that work whose results
// nobody can have ends.
void flush_output();

// The values of fields. Each throws Error (data) that begins with the key and says what is allowed.
double json_number(const nlohmann::json& value, const std::string& key, double min, double max);
int64_t json_integer(const nlohmann::json& value, const std::string& key, int64_t min, int64_t max);
bool json_bool(const nlohmann::json& value, const std::string& key);
const std::string& json_text(const nlohmann::json& value, const std::string& key);
std::vector<int32_t> json_ids(const nlohmann::json& value, const std::string& key, int32_t vocab);

}  // namespace ponder::app
