// Errors that reach people: what happened, where, and what to do about it.
//
// `Error` is thrown at the edges (files, recipes, requests, resources) and caught in app, which prints it and exits
// with its code. `PONDER_CHECK` is for our own mistakes; it is always on and stays out of inner loops.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace ponder {

// Exit codes of the program (docs/formats.md).
enum class Exit : int {
  ok = 0,
  failure = 1,
  usage = 2,
  data = 3,
  resources = 4,
  peer_lost = 5,
  resumable = 75,
  interrupted = 130
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

// throw_error(Exit::data, "{}: line {}: expected a number", path, line);
template <class... Args>
[[noreturn]] void throw_error(Exit code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

#define PONDER_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::ponder::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (0)

}  // namespace ponder
