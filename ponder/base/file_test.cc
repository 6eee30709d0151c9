#include "ponder/base/file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "ponder/base/error.h"
#include "ponder/base/hash.h"

namespace ponder {
namespace {

std::string raw_contents(const std::string& path) {
  clear_file_fault();
  return path_exists(path) ? read_file(path) : "(absent)";
}

Exit code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return Exit::ok;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(File, ReadWriteAndLimits) {
  TempFolder folder;
  const std::string path = folder.file("a");
  std::string bytes(100000, 'x');
  bytes[5] = '\0';
  write_file_atomic(path, bytes);
  EXPECT_EQ(read_file(path), bytes);
  EXPECT_EQ(read_file(path, bytes.size()), bytes);
  EXPECT_EQ(file_size(path), bytes.size());
  EXPECT_EQ(message_of([&] { read_file(path, 99999); }),
            "cannot read " + path + ": it is larger than the 99999 bytes allowed here");
  EXPECT_EQ(message_of([&] { read_file(folder.file("b")); }),
            "cannot open " + folder.file("b") + ": No such file or directory");
  EXPECT_EQ(code_of([&] { read_file(folder.file("b")); }), Exit::data);
  EXPECT_EQ(code_of([&] { read_file(folder.path()); }), Exit::data);
  EXPECT_EQ(code_of([&] { MappedFile(folder.path()); }), Exit::data);
  EXPECT_EQ(code_of([&] { write_file_atomic(folder.file("no/where"), "x"); }), Exit::resources);
  EXPECT_EQ(message_of([&] { write_file_atomic(folder.file("no/where"), "x"); }),
            "cannot create " + folder.file("no/where") + ": No such file or directory");
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"a"});
  write_file_atomic(path, "");
  EXPECT_EQ(read_file(path), "");
  EXPECT_EQ(MappedFile(path).size(), 0u);
  EXPECT_GT(read_file("/proc/self/status").size(), 100u);  // says it has no size
  EXPECT_EQ(code_of([] { read_file("/dev/zero", 1000); }), Exit::data);
}

TEST(File, MapAndReader) {
  TempFolder folder;
  const std::string path = folder.file("a");
  std::string bytes;
  for (int i = 0; i < 300000; ++i) bytes.push_back(static_cast<char>(i * 7));
  write_file_atomic(path, bytes);
  MappedFile map(path);
  EXPECT_EQ(map.text(), bytes);
  want_pages(map.bytes().data() + 5000, 100);
  MappedFile other = std::move(map);
  EXPECT_EQ(other.text(), bytes);
  EXPECT_EQ(map.size(), 0u);
  map = std::move(other);
  EXPECT_EQ(map.text(), bytes);
  FileReader reader(path);
  std::string part(1000, 0);
  EXPECT_EQ(reader.read_at(part.data(), 1000, 299500), 500u);
  EXPECT_EQ(part.substr(0, 500), bytes.substr(299500));
  EXPECT_EQ(reader.read(part.data(), 1000), 1000u);
  EXPECT_EQ(part, bytes.substr(0, 1000));
  EXPECT_EQ(hash_file(path), hash_bytes(bytes));
  Hasher hasher;
  hasher.add(bytes.substr(0, 77777));
  hasher.add(bytes.substr(77777));
  EXPECT_EQ(hasher.hex(), hash_bytes(bytes));
  EXPECT_EQ(hash_bytes(""), "99aa06d3014798d86001c324468d497f");  // XXH3-128 of nothing, from its specification
}

TEST(File, AppendCutsATornLine) {
  TempFolder folder;
  const std::string path = folder.file("log");
  {
    AppendFile file(path);
    file.append_line("one");
    file.append_line("two");
  }
  for (const std::string& torn : {std::string("thr"), std::string(10000, 'x')}) {
    write_file_atomic(path, "one\ntwo\n" + torn);
    EXPECT_EQ(read_whole_lines(path), (std::vector<std::string>{"one", "two"}));
    AppendFile file(path);
    EXPECT_EQ(read_file(path), "one\ntwo\n" + torn);  // opening changes nothing
    file.append_line("three");
    file.sync();
    EXPECT_EQ(read_file(path), "one\ntwo\nthree\n");
  }
  write_file_atomic(path, std::string(9000, 'x'));
  AppendFile(path).append_line("first");
  EXPECT_EQ(read_file(path), "first\n");
}

TEST(File, Names) {
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("a", "/b"), "/b");
  EXPECT_EQ(join_path("", "b"), "b");
  EXPECT_EQ(parent_folder("a/b/c"), "a/b");
  EXPECT_EQ(parent_folder("a/b/"), "a");
  EXPECT_EQ(parent_folder("a"), ".");
  EXPECT_EQ(parent_folder("/a"), "/");
  EXPECT_EQ(parent_folder("/"), "/");
  EXPECT_EQ(base_name("a/b"), "b");
  EXPECT_EQ(base_name("a/b/"), "b");
  EXPECT_EQ(base_name("/"), "/");
}

TEST(File, FoldersAndPointers) {
  TempFolder folder;
  make_folders(folder.file("a/b/c"));
  make_folders(folder.file("a/b/c"));
  EXPECT_TRUE(is_folder(folder.file("a/b/c")));
  EXPECT_FALSE(make_folder(folder.file("a")));
  EXPECT_FALSE(is_folder(folder.file("nothing")));
  write_pointer(folder.file("a/LATEST"), "checkpoints/step-000400");
  EXPECT_EQ(read_file(folder.file("a/LATEST")), "checkpoints/step-000400\n");
  EXPECT_EQ(read_pointer(folder.file("a/LATEST")), "checkpoints/step-000400");
  EXPECT_EQ(read_pointer(folder.file("a/BEST")), std::nullopt);
  write_file_atomic(folder.file("a/BEST"), "\n");
  EXPECT_EQ(code_of([&] { read_pointer(folder.file("a/BEST")); }), Exit::data);
  EXPECT_EQ(glob_files(folder.file("a/*EST")),
            (std::vector<std::string>{folder.file("a/BEST"), folder.file("a/LATEST")}));
  EXPECT_TRUE(glob_files(folder.file("x*")).empty());
  EXPECT_EQ(::symlink(folder.path().c_str(), folder.file("a/loop").c_str()), 0);
  rename_path(folder.file("a"), folder.file("z"));
  remove_tree(folder.file("z"));  // and not what the link points to
  remove_tree(folder.file("z"));
  remove_file(folder.file("z"));
  EXPECT_TRUE(list_folder(folder.path()).empty());
  EXPECT_GT(free_space(folder.path()), 0u);
  EXPECT_FALSE(on_network_disk(folder.path()));
  EXPECT_EQ(code_of([&] { make_folders("/proc/nowhere/x"); }), Exit::resources);
}

TEST(File, LockIsExclusiveAndEndsWithItsHolder) {
  TempFolder folder;
  {
    const auto lock = FileLock::try_lock(folder.file("lock"));
    ASSERT_TRUE(lock);
    EXPECT_FALSE(FileLock::try_lock(folder.file("lock")));
  }
  EXPECT_TRUE(FileLock::try_lock(folder.file("lock")));
}

// --- Faults at every call --------------------------------------------------------------------------------------------

// Runs `work` with a fault at call 1, 2, .. until one run has fewer calls; after each, `check(code)`.
void with_every_fault(FileFault::Kind kind, bool sticky, const std::function<void()>& prepare,
                      const std::function<void()>& work, const std::function<void(Exit)>& check) {
  for (int64_t k = 1; k < 1000; ++k) {
    clear_file_fault();
    prepare();
    set_file_fault({.kind = kind, .at = k, .sticky = sticky});
    const Exit code = code_of(work);
    const int64_t calls = file_calls();
    clear_file_fault();
    SCOPED_TRACE(testing::Message() << "call " << k);
    check(code);
    if (calls < k) {
      EXPECT_EQ(code, Exit::ok);
      return;
    }
  }
  FAIL() << "never ends";
}

TEST(FileFaults, AtomicWriteLeavesOldOrNew) {
  TempFolder folder;
  const std::string path = folder.file("a");
  const auto prepare = [&] { write_file_atomic(path, "old"); };
  const auto work = [&] { write_file_atomic(path, std::string(10000, 'n')); };
  for (const auto kind : {FileFault::Kind::enospc, FileFault::Kind::eio, FileFault::Kind::short_write})
    for (const bool sticky : {false, true})
      with_every_fault(kind, sticky, prepare, work, [&](Exit code) {
        const std::string found = raw_contents(path);
        if (code == Exit::ok) {
          EXPECT_EQ(found, std::string(10000, 'n'));
        } else {
          EXPECT_EQ(code, Exit::resources);
        }
        EXPECT_TRUE(found == "old" || found == std::string(10000, 'n'));
        EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"a"});  // nothing left beside it
        if (kind == FileFault::Kind::short_write) {
          EXPECT_EQ(code, Exit::ok);
        }
      });
}

TEST(FileFaults, AppendedLinesAreWholeOrAbsentAndLaterOnesSurvive) {
  TempFolder folder;
  const std::string path = folder.file("log");
  for (const auto kind : {FileFault::Kind::enospc, FileFault::Kind::eio, FileFault::Kind::short_write})
    with_every_fault(
        kind, false, [&] { write_file_atomic(path, "zero\ntor"); },
        [&] {
          AppendFile file(path);
          Exit first = code_of([&] { file.append_line("one"); });
          file.append_line("two");
          file.sync();
          if (first != Exit::ok) throw Error(first, "first line lost");
        },
        [&](Exit code) {
          for (const std::string& line : read_whole_lines(path))
            EXPECT_TRUE(line == "zero" || line == "one" || line == "two") << line;
          if (code == Exit::ok) {
            EXPECT_EQ(read_file(path), "zero\none\ntwo\n");
          }
        });
}

TEST(FileFaults, ReadersReportDataErrors) {
  TempFolder folder;
  const std::string path = folder.file("a");
  write_file_atomic(path, std::string(5000, 'x'));
  with_every_fault(
      FileFault::Kind::eio, false, [] {},
      [&] {
        read_file(path);
        MappedFile map(path);
        FileReader reader(path);
        char buffer[10];
        reader.read(buffer, 10);
        reader.read_at(buffer, 10, 10);
        list_folder(folder.path());
        path_exists(path);
        free_space(path);
      },
      [&](Exit code) { EXPECT_TRUE(code == Exit::ok || code == Exit::data); });
}

// The process dies at the k-th call: before it, or after it with half of a write done.
TEST(FileFaults, CrashAtEveryCallLeavesOldOrNew) {
  TempFolder folder;
  const std::string path = folder.file("a");
  const std::string fresh(10000, 'n');
  for (const auto kind : {FileFault::Kind::exit_before, FileFault::Kind::exit_after}) {
    bool finished = false;
    for (int64_t k = 1; !finished && k < 100; ++k) {
      write_file_atomic(path, "old");
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        set_file_fault({.kind = kind, .at = k});
        write_file_atomic(path, fresh);
        _exit(0);
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      finished = WEXITSTATUS(status) == 0;
      if (!finished) {
        EXPECT_EQ(WEXITSTATUS(status), 137);
      }
      const std::string found = read_file(path);
      EXPECT_TRUE(found == "old" || found == fresh) << k;
      if (finished) {
        EXPECT_EQ(found, fresh);
      }
    }
    EXPECT_TRUE(finished);
  }
}

TEST(FileFaults, PlanFromText) {
  const FileFault fault = parse_file_fault("enospc@12+");
  EXPECT_EQ(fault.kind, FileFault::Kind::enospc);
  EXPECT_EQ(fault.at, 12);
  EXPECT_TRUE(fault.sticky);
  EXPECT_EQ(parse_file_fault("exit_after@1").kind, FileFault::Kind::exit_after);
  for (const char* bad : {"", "enospc", "enospc@", "enospc@0", "enospc@x", "burn@3", "eio@3x", "eio@-1"})
    EXPECT_EQ(code_of([&] { parse_file_fault(bad); }), Exit::usage) << bad;
}

}  // namespace
}  // namespace ponder
