// Memory of a step: what is given out stays where it is, and limits of the system are errors that say so.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>

#include "ponder/tensor/tensor.h"

namespace ponder {
namespace {

TEST(Arena, GrowsInPlaceAndGivesMemoryAgain) {
  Arena arena;
  auto* first = static_cast<char*>(arena.allocate(100));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  std::memset(first, 7, 100);
  const Arena::Mark mark = arena.mark();
  auto* second = static_cast<char*>(arena.allocate(size_t{40} << 20));
  std::memset(second, 8, size_t{40} << 20);
  EXPECT_EQ(second, first + 128);
  EXPECT_EQ(first[99], 7);
  EXPECT_EQ(arena.peak(), (size_t{40} << 20) + 128);
  arena.release(mark);
  EXPECT_EQ(arena.allocate(1), second);
  const size_t reserved = arena.reserved();
  arena.reset();
  EXPECT_EQ(arena.used(), 0u);
  EXPECT_EQ(arena.allocate(size_t{40} << 20), first);
  EXPECT_EQ(arena.reserved(), reserved);
}

TEST(Arena, SaysWhatTheSystemRefuses) {
  Arena arena;
  arena.allocate(1);
  try {
    arena.allocate(size_t{1} << 50);
    FAIL() << "a petabyte";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::resources);
    EXPECT_NE(std::string(e.what()).find("1073741824 MiB"), std::string::npos) << e.what();
  }
  std::memset(arena.allocate(1000), 1, 1000);  // it can still be used
}

// A limit of the address space (ulimit -v) leaves less room, not none.
TEST(Arena, LivesWithLittleAddressSpace) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need addresses themselves";
#endif
  EXPECT_EXIT(
      {
        rlimit limit;
        limit.rlim_cur = limit.rlim_max = size_t{1} << 30;
        setrlimit(RLIMIT_AS, &limit);
        void* more = mmap(nullptr, size_t{2} << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (more != MAP_FAILED) std::exit(0);  // nobody holds the limit: an emulated process
        Arena arena;
        std::memset(arena.allocate(size_t{100} << 20), 1, size_t{100} << 20);
        try {
          arena.allocate(size_t{2} << 30);
        } catch (const Error&) {
          std::exit(0);
        }
        std::exit(1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace ponder
