// A model that is replaced is never lost: every file call of the replacement fails once, or ends the process.
#include "ponder/app/model_output.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "ponder/base/error.h"

namespace ponder::app {
namespace {

// What a model is here: files with one word in each, by their paths in a folder.
using Files = std::map<std::string, std::string>;

Files files_in(const std::string& folder, const std::string& below = "") {
  Files out;
  if (!is_folder(join_path(folder, below))) return out;
  for (const std::string& name : list_folder(join_path(folder, below))) {
    const std::string path = below.empty() ? name : join_path(below, name);
    if (is_folder(join_path(folder, path)))
      out.merge(files_in(folder, path));
    else
      out[path] = read_file(join_path(folder, path));
  }
  return out;
}

struct Shape {
  const char* name;
  std::string out;
  Files before, after;  // what stands beside other things in the folder
};
const Shape kShapes[] = {
    {"a file", "m.gguf", {{"m.gguf", "old"}}, {{"m.gguf", "new"}}},
    {"a folder",
     "m",
     {{"m/config.json", "old"}, {"m/a", "old"}, {"m/gone", "old"}},
     {{"m/config.json", "new"}, {"m/a", "new"}, {"m/b", "new"}}},
    {"parts by parts",
     "m.gguf",
     {{"m-00001-of-00002.gguf", "old"}, {"m-00002-of-00002.gguf", "old"}},
     {{"m-00001-of-00002.gguf", "new"}, {"m-00002-of-00002.gguf", "new"}}},
    {"a file by parts",
     "m.gguf",
     {{"m.gguf", "old"}},
     {{"m-00001-of-00002.gguf", "new"}, {"m-00002-of-00002.gguf", "new"}}},
    {"nothing", "m", {}, {{"m/config.json", "new"}, {"m/a", "new"}}},
};

void write_files(const std::string& folder, const Files& files) {
  // Not by base/file: the faults are for what ModelOutput does.
  for (const auto& [path, text] : files) {
    const std::filesystem::path whole = join_path(folder, path);
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
}

// As a command writes it.
std::string write(const std::string& folder, const Shape& shape, bool force) {
  ModelOutput output(join_path(folder, shape.out), {.force = force, .split = true});
  write_files(parent_folder(output.aside()), shape.after);
  std::string first = join_path(parent_folder(output.aside()), shape.after.begin()->first);
  if (!shape.out.ends_with(".gguf")) first = output.aside();
  return output.publish(first);
}

bool holds(const Files& all, const Files& some) {
  return std::all_of(some.begin(), some.end(),
                     [&](const auto& f) { return all.count(f.first) && all.at(f.first) == f.second; });
}

TEST(ModelOutput, ReplacesWhatMayBeReplaced) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(shape.name);
    TempFolder folder;
    write_file_atomic(folder.file("other"), "other");
    write_files(folder.path(), shape.before);
    Files want = shape.before;
    want["other"] = "other";
    if (!shape.before.empty()) {
      EXPECT_THROW(write(folder.path(), shape, false), Error);
      EXPECT_EQ(files_in(folder.path()), want);
    }
    const std::string first = write(folder.path(), shape, true);
    want = shape.after;
    want["other"] = "other";
    EXPECT_EQ(files_in(folder.path()), want);
    EXPECT_TRUE(path_exists(first)) << first;
    EXPECT_FALSE(path_exists(folder.file(shape.out + ".ponder")));
  }
}

TEST(ModelOutput, EveryFaultLeavesAWholeModel) {
  using Kind = FileFault::Kind;
  for (const Shape& shape : kShapes)
    for (const Kind kind : {Kind::exit_before, Kind::exit_after, Kind::eio}) {
      bool finished = false;
      for (int64_t at = 1; !finished; ++at) {
        SCOPED_TRACE(fmt::format("{}, fault {} at call {}", shape.name, static_cast<int>(kind), at));
        ASSERT_LT(at, 300);
        TempFolder folder;
        write_files(folder.path(), shape.before);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
          set_file_fault({.kind = kind, .at = at});
          try {
            write(folder.path(), shape, true);
          } catch (const Error&) {
            _exit(1);
          }
          _exit(file_calls() < at ? 0 : 2);  // 2: it failed, and that did no harm
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status));
        finished = WEXITSTATUS(status) == 0;

        // One of both is complete at one place.
        const std::string work = folder.file(shape.out + ".ponder");
        const Files here = files_in(folder.path()), fresh = files_in(join_path(work, "new")),
                    old = files_in(join_path(work, "old"));
        const bool is_old = holds(here, shape.before) || holds(old, shape.before),
                   is_new = holds(here, shape.after) || holds(fresh, shape.after);
        ASSERT_TRUE(is_old || is_new);
        if (finished) {
          ASSERT_EQ(here, shape.after);
        }
        // The next command, even one that may replace nothing, leaves one of both, and nothing else.
        try {
          ModelOutput(folder.file(shape.out), {.force = false, .split = true});
        } catch (const Error& e) {
          ASSERT_EQ(e.code(), Exit::data) << e.what();
        }
        const Files then = files_in(folder.path());
        ASSERT_TRUE(then == shape.before || then == shape.after) << then.size() << " files";
        ASSERT_FALSE(path_exists(work));
        write(folder.path(), shape, true);
        ASSERT_EQ(files_in(folder.path()), shape.after);
      }
    }
}

Exit refusal(const std::string& out, const ModelOutput::Options& options, const char* says) {
  try {
    ModelOutput output(out, options);
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    return e.code();
  }
  return Exit::ok;
}

TEST(ModelOutput, RefusesWhatWouldBeLost) {
  TempFolder folder;
  write_files(folder.path(), {{"src/config.json", "x"},
                              {"src/m.gguf", "x"},
                              {"s-00001-of-00002.gguf", "x"},
                              {"s-00002-of-00002.gguf", "x"},
                              {"mine/diary", "x"},
                              {"taken.ponder/diary", "x"}});
  const Files before = files_in(folder.path());
  const std::string source = folder.file("src/m.gguf"), part = folder.file("s-00001-of-00002.gguf");
  EXPECT_EQ(refusal(source, {.force = true, .source = source}, "source itself"), Exit::usage);
  EXPECT_EQ(refusal(folder.file("src"), {.force = true, .source = source}, "holds the source"), Exit::usage);
  EXPECT_EQ(refusal(folder.file("s-00002-of-00002.gguf"), {.force = true, .source = part}, "part of the source"),
            Exit::usage);
  EXPECT_EQ(refusal(folder.file("s.gguf"), {.force = true, .source = part, .split = true}, "part of the source"),
            Exit::usage);
  EXPECT_EQ(refusal(folder.file("s.gguf"), {.force = true, .source = part}, ""), Exit::ok) << "that is what merge does";
  EXPECT_EQ(refusal(folder.file("mine"), {.force = true}, "no model folder"), Exit::data);
  EXPECT_EQ(refusal(folder.file("taken"), {.force = true}, "move it away"), Exit::data);
  EXPECT_EQ(refusal(folder.file("src"), {}, "nothing is overwritten"), Exit::data);
  EXPECT_EQ(refusal(folder.file("src/m.gguf"), {.force = false}, "--force"), Exit::data);
  {
    ModelOutput busy(folder.file("busy.gguf"), {});
    EXPECT_EQ(refusal(folder.file("busy.gguf"), {.force = true}, "another process"), Exit::failure);
  }
  EXPECT_EQ(files_in(folder.path()), before);
}

TEST(ModelOutput, NamesAreAsTheyWereTyped) {
  TempFolder folder;
  const std::string before = std::filesystem::current_path();
  ASSERT_EQ(chdir(folder.path().c_str()), 0);
  write_files(".", {{"sub/x", "x"}});
  for (const char* out : {"m.gguf", "./m.gguf", "sub/m.gguf", "sub/../m.gguf"}) {
    ModelOutput output(out, {.force = true});
    write_files(parent_folder(output.aside()), {{"m.gguf", "new"}});
    EXPECT_EQ(output.publish(output.aside()), out);
    EXPECT_EQ(read_file(out), "new");
  }
  ASSERT_EQ(chdir(before.c_str()), 0);
}

// A link stays, what it names is replaced.
TEST(ModelOutput, FollowsALink) {
  TempFolder folder;
  write_files(folder.path(), {{"disk/big/config.json", "old"}});
  ASSERT_EQ(symlink("disk/big", folder.file("m").c_str()), 0);
  ModelOutput output(folder.file("m"), {.force = true});
  write_files(output.aside(), {{"config.json", "new"}});
  EXPECT_EQ(output.publish(output.aside()), std::filesystem::canonical(folder.file("disk/big")));
  EXPECT_EQ(read_file(folder.file("disk/big/config.json")), "new");
  EXPECT_EQ(read_file(folder.file("m/config.json")), "new");
}

}  // namespace
}  // namespace ponder::app
