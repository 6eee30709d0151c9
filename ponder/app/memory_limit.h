// What control groups (containers, systemd's slices, batch systems) leave of the machine's memory; versions 1 and 2.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ponder::app {

struct MemoryLimit {
  int64_t bytes = 0;  // that the group may have
  int64_t left = 0;   // of them, without what is in use; pages of files are not, since the system takes them back
  std::string group;  // its path, "/user.slice/job"
};
// The limits on this process: of its own group and of those above it, in this order. Empty: none, or none that can be
// seen (a container may hide the groups above its own). `root` stands for "/"; tests have another.
std::vector<MemoryLimit> memory_limits(const std::string& root = "");

}  // namespace ponder::app
