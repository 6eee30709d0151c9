// The program on a terminal of its own, for tests.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace ponder::test {

class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& words) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ == 0) {
      setenv("TERM", "xterm", 1);
      std::vector<char*> argv = {const_cast<char*>(PONDER_BINARY)};
      for (const std::string& w : words) argv.push_back(const_cast<char*>(w.c_str()));
      argv.push_back(nullptr);
      execv(PONDER_BINARY, argv.data());
      _exit(127);
    }
  }
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    if (fd_ >= 0) close(fd_);
  }
  void type(const std::string& text) {
    if (write(fd_, text.data(), text.size()) < 0) ADD_FAILURE() << "the terminal is closed";
  }
  // Everything up to `text`, which must come within a minute.
  std::string until(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (;;) {
      const size_t at = seen_.find(text);
      if (at != std::string::npos) {
        const std::string out = seen_.substr(0, at + text.size());
        seen_.erase(0, out.size());
        return out;
      }
      pollfd p{fd_, POLLIN, 0};
      char buffer[4096];
      const ssize_t n = poll(&p, 1, 200) > 0 ? read(fd_, buffer, sizeof buffer) : 0;
      if (n > 0) seen_.append(buffer, static_cast<size_t>(n));
      if (n < 0 || std::chrono::steady_clock::now() > end) {
        ADD_FAILURE() << "no \"" << text << "\" in: " << seen_;
        return seen_;
      }
    }
  }
  void signal(int number) { ::kill(pid_, number); }
  // As when its window is closed.
  void hang_up() { close(std::exchange(fd_, -1)); }
  // Its exit code; it must end within a minute.
  int wait() {
    int status = 0;
    for (int i = 0; i < 600; ++i, usleep(100'000)) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
    }
    ADD_FAILURE() << "it does not end: " << seen_;
    return -1;
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string seen_;
};

}  // namespace ponder::test
