#include "ponder/app/memory_limit.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "ponder/app/machine.h"

namespace ponder::app {
namespace {

constexpr int64_t kNone = INT64_MAX;

// "6442450944"; "max", nothing, and the largest whole pages of version 1 are no limit.
int64_t bytes_in(const std::string& path) {
  const std::string text = system_file(path);
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error != std::errc{} || n < 0 || n > kNone / 2 ? kNone : n;
}

// Pages of files that the group has in memory.
int64_t file_bytes(const std::string& stat, bool first_version) {
  std::istringstream lines(system_file(stat));
  const std::string prefix = first_version ? "total_" : "";  // version 2 counts the groups below by itself
  int64_t sum = 0, n = 0;
  for (std::string key; lines >> key >> n;)
    if (key == prefix + "active_file" || key == prefix + "inactive_file") sum += n;
  return sum;
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// Where a version's groups are mounted, and which of them is mounted there.
struct Mount {
  std::string root, point;
};
std::vector<Mount> mounts(const std::string& root, bool first_version) {
  // 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
  std::vector<Mount> out;
  std::istringstream lines(system_file(root + "/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == line.npos) continue;
    std::istringstream before(line), after(line.substr(dash + 3));
    std::string skipped, type, device, options;
    Mount m;
    before >> skipped >> skipped >> skipped >> m.root >> m.point;
    after >> type >> device >> options;
    if (first_version ? type == "cgroup" && has_word(options, "memory") : type == "cgroup2") out.push_back(m);
  }
  return out;
}

}  // namespace

std::vector<MemoryLimit> memory_limits(const std::string& root) {
  std::vector<MemoryLimit> out;
  std::istringstream lines(system_file(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/job" of version 1, "0::/job" of version 2
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), own = line.substr(second + 1);
    const bool first_version = !controllers.empty();
    if (first_version && !has_word(controllers, "memory")) continue;
    for (const Mount& m : mounts(root, first_version)) {
      // A container sees its own group as the root of the mount, whatever the group's name is outside.
      std::string below = m.root == "/" ? own : (own + "/").starts_with(m.root + "/") ? own.substr(m.root.size()) : "";
      if (below.starts_with("/..")) below.clear();
      for (;;) {
        while (below.ends_with('/')) below.pop_back();
        const auto file = [&](const char* name) { return root + m.point + below + "/" + name; };
        // Above memory.high a group is slowed down until it has given memory back: as good as a limit.
        const int64_t limit = first_version ? bytes_in(file("memory.limit_in_bytes"))
                                            : std::min(bytes_in(file("memory.max")), bytes_in(file("memory.high")));
        const int64_t used = bytes_in(file(first_version ? "memory.usage_in_bytes" : "memory.current"));
        if (limit != kNone) {
          const int64_t held =
              used == kNone ? 0 : std::max<int64_t>(0, used - file_bytes(file("memory.stat"), first_version));
          out.push_back({limit, std::max<int64_t>(0, limit - held), below.empty() ? "/" : below});
        }
        if (below.empty()) break;
        below.resize(below.rfind('/'));
      }
    }
  }
  return out;
}

}  // namespace ponder::app
