#include "ponder/tasks/jsonl.h"

#include <limits>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"

namespace ponder::tasks {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30, kMaxLineBytes = size_t{1} << 20;
constexpr std::string_view kShapes[] = {"numbers", "nums"};

// A whole number that an int64_t holds.
bool is_whole(const Json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
}

// `shape` is empty before the first record.
void append_puzzles(std::string_view text, const std::string& name, const Task& task, std::string_view& shape,
                    std::vector<Problem>& out) {
  int line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view record = text.substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (record.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json j = parse_json(record, name, line, {.max_bytes = kMaxLineBytes, .max_values = 10'000});
    const auto fail = [&](const std::string& what) { throw_error(Exit::data, "{}:{}: {}", name, line, what); };
    const auto has = [&](std::string_view key) { return j.is_object() && j.contains(std::string(key)); };
    if (shape.empty()) {
      for (const auto key : kShapes) {
        if (has(key) && has("target")) shape = key;
      }
    }
    if (shape.empty()) fail("expected {\"numbers\": [..], \"target\": ..} or {\"nums\": [..], \"target\": ..}");
    if (!has(shape) || !has("target")) {
      fail(fmt::format("a record without \"{}\" and \"target\", which the first one has; one file holds one shape",
                       shape));
    }
    Problem p;
    for (const auto& [key, value] : j.items()) {
      if (key == shape) {
        if (!value.is_array()) fail(fmt::format("\"{}\" is not a list", key));
        for (const Json& n : value) {
          if (!is_whole(n))
            fail(
                fmt::format("\"{}\" holds {}; only whole numbers below 2^63 are allowed", key, n.dump().substr(0, 40)));
          p.numbers.push_back(n.get<int64_t>());
        }
      } else if (key == "target") {
        if (!is_whole(value)) fail(fmt::format("the target {} is not a whole number", value.dump().substr(0, 40)));
        p.target = value.get<int64_t>();
      } else if (key == "id" && (value.is_string() || is_whole(value))) {
        p.id = value.is_string() ? value.get<std::string>() : value.dump();
      } else {
        p.columns.emplace(key, value.dump());
      }
    }
    if (const std::string error = task.admit(p); !error.empty()) fail(error);
    out.push_back(std::move(p));
  }
}

}  // namespace

std::vector<Problem> parse_puzzles(std::string_view text, const std::string& name, const Task& task) {
  std::vector<Problem> out;
  std::string_view shape;
  append_puzzles(text, name, task, shape, out);
  return out;
}

std::vector<Problem> read_puzzles(const std::string& path, const Task& task) {
  std::vector<std::string> files;
  if (is_folder(path)) {
    files = glob_files(join_path(path, "*.jsonl"));
  } else if (path_exists(path)) {
    files = {path};
  } else {
    files = glob_files(path);
  }
  if (files.empty())
    throw_error(Exit::data, "{}: no such file, folder with *.jsonl files, or pattern that matches one", path);
  std::vector<Problem> out;
  std::string_view shape;
  for (const std::string& file : files) {
    if (file.ends_with(".gz") || file.ends_with(".zst")) {
      throw_error(Exit::data, "{}: compressed files are not read; unpack it first: {} -d {}", file,
                  file.ends_with(".gz") ? "gzip" : "zstd", file);
    }
    append_puzzles(read_file(file, kMaxFileBytes), file, task, shape, out);
  }
  if (out.empty()) throw_error(Exit::data, "{}: no problem in it", path);
  return out;
}

}  // namespace ponder::tasks
