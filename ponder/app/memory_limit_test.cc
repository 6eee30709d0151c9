// Limits of control groups, read from folders that look like a system's.
#include "ponder/app/memory_limit.h"

#include <gtest/gtest.h>

#include "ponder/base/file.h"

namespace ponder::app {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

class MemoryLimits : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    make_folders(parent_folder(folder_.file(path)));
    write_file_atomic(folder_.file(path), text + "\n");
  }
  void expect(const std::vector<MemoryLimit>& want) {
    const auto got = memory_limits(folder_.path());
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(got[i].group, want[i].group);
      EXPECT_EQ(got[i].bytes, want[i].bytes) << want[i].group;
      EXPECT_EQ(got[i].left, want[i].left) << want[i].group;
    }
  }
  TempFolder folder_;
};

TEST_F(MemoryLimits, NoneIsNone) {
  expect({});
  write("proc/self/cgroup", "0::/job");
  expect({});
  write("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
  expect({});
  write("sys/fs/cgroup/job/memory.max", "max");
  write("sys/fs/cgroup/job/memory.current", "5000");
  expect({});
}

TEST_F(MemoryLimits, Version2CountsOwnGroupAndThoseAbove) {
  write("proc/self/cgroup", "0::/slice/a:b/job");
  write("proc/self/mountinfo",
        "24 1 8:1 / / rw - ext4 /dev/sda rw\n31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw");
  write("sys/fs/cgroup/slice/a:b/job/memory.max", std::to_string(6 * kGiB));
  write("sys/fs/cgroup/slice/a:b/job/memory.high", "max");
  write("sys/fs/cgroup/slice/a:b/job/memory.current", std::to_string(5 * kGiB));
  // Pages of files are given back; what was written to shared memory (in "file", too) is not.
  write("sys/fs/cgroup/slice/a:b/job/memory.stat",
        "anon 1\nfile 4294967296\nshmem 5\ninactive_file 1073741824\nactive_file 2147483648\ntotal_active_file 7");
  write("sys/fs/cgroup/slice/memory.max", "max");
  write("sys/fs/cgroup/slice/memory.high", std::to_string(8 * kGiB));
  write("sys/fs/cgroup/slice/memory.current", std::to_string(9 * kGiB));
  expect({{6 * kGiB, 4 * kGiB, "/slice/a:b/job"}, {8 * kGiB, 0, "/slice"}});
}

TEST_F(MemoryLimits, Version1CountsOwnGroupAndThoseAbove) {
  // A hybrid system: version 2 is there, and has no say in memory.
  write("proc/self/cgroup", "5:pids:/x\n4:cpuset,memory:/jobs/7\n0::/");
  write("proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  write("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", std::to_string(10 * kGiB));
  write("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", std::to_string(4 * kGiB));
  write("sys/fs/cgroup/memory/jobs/memory.stat",
        "active_file 1\ninactive_file 1\ntotal_inactive_file 1073741824\ntotal_active_file 0");
  write("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", std::to_string(2 * kGiB));
  expect({{2 * kGiB, 2 * kGiB, "/jobs/7"}, {10 * kGiB, 7 * kGiB, "/jobs"}});
}

TEST_F(MemoryLimits, AContainerSeesItsOwnGroupAsTheRoot) {
  write("sys/fs/cgroup/memory.max", std::to_string(3 * kGiB));
  for (const auto& [own, mounted] : std::vector<std::pair<std::string, std::string>>{
           {"/", "/"}, {"/docker/12ab", "/docker/12ab"}, {"/../other", "/"}, {"/elsewhere", "/docker/12ab"}}) {
    write("proc/self/cgroup", "0::" + own);
    write("proc/self/mountinfo", "31 23 0:28 " + mounted + " /sys/fs/cgroup ro - cgroup2 cgroup2 rw");
    expect({{3 * kGiB, 3 * kGiB, "/"}});
  }
}

}  // namespace
}  // namespace ponder::app
