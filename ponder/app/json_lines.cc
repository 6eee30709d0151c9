#include "ponder/app/json_lines.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>

#include "ponder/app/machine.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

[[noreturn]] void wrong(const std::string& key, const char* what) { throw_error(Exit::data, "{}: {}", key, what); }

}  // namespace

int read_json_requests(const std::string& path, const std::function<void(const JsonLine&)>& take,
                       const std::function<void(const std::string& id, const std::string& error)>& fail,
                       const std::function<void()>& idle) {
  std::ifstream file;
  if (path.empty()) {
    std::ios::sync_with_stdio(false);  // std::cin then knows whether more is there
  } else {
    if (is_folder(path) || !path_exists(path)) throw_error(Exit::data, "{}: no such file", path);
    file.open(path);
    if (!file) throw_error(Exit::data, "{}: cannot be read", path);
  }
  std::istream& in = path.empty() ? std::cin : file;
  const std::string name = path.empty() ? "stdin" : path;
  const auto next_line = [&](std::string& line) {
    if (in.rdbuf()->in_avail() <= 0) {
      if (idle && path.empty() && !input_ready(STDIN_FILENO)) idle();
      flush_output();
      if (path.empty() && wait_for_input(STDIN_FILENO) == Wake::stop) throw_error(Exit::resumable, "stopped");
    }
    return static_cast<bool>(std::getline(in, line));
  };
  std::string line;
  int64_t wrong_lines = 0;
  int first_wrong = 0;
  for (int number = 1; next_line(line); ++number) {
    if (line.find_first_not_of(" \t\r") != line.npos) {
      std::string id = fmt::format("{}", number);
      bool object = false;
      try {
        const Json json = parse_json(line, name, number);
        object = json.is_object();
        if (!object) throw_error(Exit::data, "{}:{}: an object is expected", name, number);
        const bool has_id = json.contains("id");
        if (has_id) id = json["id"].dump();
        take({json, line, id, has_id});
      } catch (const Error& e) {
        if (e.code() != Exit::data) throw;
        fail(id, e.what());
        if (!object && wrong_lines++ == 0) first_wrong = number;
      }
    }
  }
  if (in.bad()) throw_error(Exit::data, "{}: reading it failed", name);
  if (wrong_lines == 0) return 0;
  log_error("{}: {} of the lines {} no JSON object{}, the first is line {}", name, wrong_lines,
            wrong_lines == 1 ? "is" : "are", wrong_lines == 1 ? "" : "s", first_wrong);
  return static_cast<int>(Exit::data);
}

std::string error_line(const std::string& id, const std::string& error) {
  std::string json;
  JsonWriter(json).begin_object().key("id").raw(id).member("error", error).end_object();
  return json;
}

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw_error(Exit::resources, "stdout: not all could be written ({})", std::strerror(errno));
}

void print_line(const std::string& json) {
  std::fwrite(json.data(), 1, json.size(), stdout);
  std::fputc('\n', stdout);
}

double json_number(const Json& value, const std::string& key, double min, double max) {
  if (!value.is_number()) wrong(key, "a number is expected");
  const double x = value.get<double>();
  if (!(x >= min && x <= max)) throw_error(Exit::data, "{}: {:g} is out of range ({:g} to {:g})", key, x, min, max);
  return x;
}

int64_t json_integer(const Json& value, const std::string& key, int64_t min, int64_t max) {
  if (!value.is_number_integer()) wrong(key, "a whole number is expected");
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    wrong(key, "it is too large");
  const auto x = value.get<int64_t>();
  if (x < min || x > max) throw_error(Exit::data, "{}: {} is out of range ({} to {})", key, x, min, max);
  return x;
}

bool json_bool(const Json& value, const std::string& key) {
  if (!value.is_boolean()) wrong(key, "true or false is expected");
  return value.get<bool>();
}

const std::string& json_text(const Json& value, const std::string& key) {
  if (!value.is_string()) wrong(key, "a text is expected");
  return value.get_ref<const std::string&>();
}

std::vector<int32_t> json_ids(const Json& value, const std::string& key, int32_t vocab) {
  if (!value.is_array()) wrong(key, "a list of ids is expected");
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= vocab)
      throw_error(Exit::data, "{}: {} is none of the {} tokens", key, id.dump(), vocab);
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace ponder::app
