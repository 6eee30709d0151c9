#include "ponder/tasks/jsonl.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/tasks/puzzle/game24.h"
#include "tests/shared.h"

namespace ponder::tasks {
namespace {

const Game24& game() {
  static const Game24 task;
  return task;
}

std::string error_of(std::string_view text) {
  try {
    parse_puzzles(text, "a.jsonl", game());
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "";
}

TEST(Jsonl, ReadsBothShapesAndKeepsColumns) {
  const auto numbers = parse_puzzles(
      "{\"id\":\"g1\",\"numbers\":[1,1,4,6],\"target\":24,\"human_solved_rate\":0.992}\n\n{\"numbers\":[3,3,8,8],"
      "\"target\":24}",
      "a.jsonl", game());
  ASSERT_EQ(numbers.size(), 2u);
  EXPECT_EQ(numbers[0].id, "g1");
  EXPECT_EQ(numbers[0].text, "6 4 1 1 -> 24");
  EXPECT_EQ(numbers[0].columns.at("human_solved_rate"), "0.992");
  EXPECT_EQ(numbers[1].id, "8-8-3-3-24");
  EXPECT_EQ(parse_puzzles("{\"nums\":[1,2,3,4],\"target\":10}\r\n", "a.jsonl", game()).size(), 1u);
}

TEST(Jsonl, ErrorsNameFileAndLine) {
  const struct {
    const char *text, *expected;
  } cases[] = {
      {"{\"numbers\":[1,2,3,4],\"target\":24}\n{", "a.jsonl:2:"},
      {"{\"numbers\":[1,2,3,4],\"target\":24}\n\n{\"nums\":[1,2,3,4],\"target\":24}",
       "a.jsonl:3: a record without \"numbers\""},
      {"{\"numbers\":[1,2,3,4]}", "a.jsonl:1: expected"},
      {"[1]", "a.jsonl:1: expected"},
      {"{\"numbers\":7,\"target\":24}", "not a list"},
      {"{\"numbers\":[1,2,3,4.5],\"target\":24}", "4.5"},
      {"{\"numbers\":[1,2,3,4],\"target\":\"24\"}", "not a whole number"},
      {"{\"numbers\":[1,2,3],\"target\":24}", "a.jsonl:1: 3 numbers given; allowed are four"},
      {"{\"numbers\":[1,2,3,14],\"target\":24}", "14 is out of range"},
      {"{\"numbers\":[1,2,3,18446744073709551615],\"target\":24}", "only whole numbers below 2^63"},
  };
  for (const auto& c : cases)
    EXPECT_NE(error_of(c.text).find(c.expected), std::string::npos) << c.text << ": " << error_of(c.text);
}

TEST(Jsonl, FilesFoldersAndGlobs) {
  const TempFolder folder;
  write_file_atomic(folder.file("b.jsonl"), "{\"numbers\":[1,1,4,6],\"target\":24}\n");
  write_file_atomic(folder.file("a.jsonl"), "{\"numbers\":[3,3,8,8],\"target\":24}\n");
  write_file_atomic(folder.file("notes.txt"), "nothing");
  for (const auto& path : {folder.path(), folder.file("*.jsonl")}) {
    const auto problems = read_puzzles(path, game());
    ASSERT_EQ(problems.size(), 2u) << path;
    EXPECT_EQ(problems[0].numbers.front(), 8);
  }
  EXPECT_EQ(read_puzzles(folder.file("b.jsonl"), game()).size(), 1u);
  EXPECT_THROW(read_puzzles(folder.file("c.jsonl"), game()), Error);
  write_file_atomic(folder.file("d.jsonl.zst"), "x");
  EXPECT_THROW(read_puzzles(folder.file("d.jsonl.zst"), game()), Error);
}

// The puzzles made here are those of the file that people know.
TEST(Jsonl, Game24FileEqualsTheGenerator) {
  const std::string path = test::shared_folder() / "data/game24.jsonl";
  PONDER_NEED_SHARED(path);
  std::set<std::vector<int64_t>> read, made;
  for (const Problem& p : read_puzzles(path, game())) {
    EXPECT_EQ(p.target, 24);
    read.insert(p.numbers);
  }
  for (const Problem& p : game24_puzzles()) made.insert(p.numbers);
  EXPECT_EQ(made.size(), 1362u);
  EXPECT_EQ(read, made);
}

}  // namespace
}  // namespace ponder::tasks
