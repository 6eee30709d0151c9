#include "ponder/app/options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder::app {
namespace {

std::string usage_error(const std::vector<std::string>& words) {
  try {
    parse_arguments(words);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::usage) << e.what();
    return e.what();
  }
  return "";
}

TEST(Options, ReadsCommandsOptionsAndPlaces) {
  const Arguments a = parse_arguments({"--threads", "3", "generate", "m", "3 7 12 -> 33", "--temperature=0.5", "--n",
                                       "2", "--stop", "a", "--stop", "b=2", "--json"});
  EXPECT_STREQ(a.command->name, "generate");
  EXPECT_EQ(a.positional, (std::vector<std::string>{"m", "3 7 12 -> 33"}));
  EXPECT_EQ(a.threads(), 3);
  EXPECT_EQ(a.number("temperature", 1, 0, 2), 0.5);
  EXPECT_EQ(a.integer("n", 1, 1, 9), 2);
  EXPECT_EQ(a.all("stop"), (std::vector<std::string>{"a", "b=2"}));
  EXPECT_TRUE(a.json());
  EXPECT_FALSE(a.has("raw"));
  EXPECT_EQ(a.text("out", "none"), "none");
}

TEST(Options, TwoWordCommandsAndAliases) {
  EXPECT_STREQ(parse_arguments({"runs", "list"}).command->name, "runs list");
  EXPECT_STREQ(parse_arguments({"grpo", "r.toml"}).command->name, "rl");
  EXPECT_STREQ(parse_arguments({"train", "pretrain", "r.toml"}).command->name, "pretrain");
  EXPECT_STREQ(parse_arguments({"eval", "run", "m"}).command->name, "eval");
  EXPECT_EQ(parse_arguments({"eval", "run", "m"}).positional, std::vector<std::string>{"m"});
  for (const auto& [other, real] : aliases()) EXPECT_NE(other, real);
}

TEST(Options, OptionsWithAnOptionalValue) {
  EXPECT_EQ(parse_arguments({"rl", "r.toml", "--resume"}).text("resume"), "auto");
  EXPECT_EQ(parse_arguments({"rl", "--resume", "never", "r.toml"}).text("resume"), "never");
  EXPECT_FALSE(parse_arguments({"rl", "r.toml"}).has("resume"));
}

TEST(Options, RecipesHaveFieldsAndChatHasNoJson) {
  EXPECT_EQ(parse_arguments({"--set", "a=1", "rl", "r.toml", "--set", "b=2"}).all("set"),
            (std::vector<std::string>{"a=1", "b=2"}));
  // One value each time that it is given: what follows it is no value of it.
  EXPECT_EQ(parse_arguments({"chat", "--stop", "a", "m", "--stop", "b"}).positional, std::vector<std::string>{"m"});
  for (const char* command : {"chat", "generate", "score", "tokenize"})
    EXPECT_NE(usage_error({command, "m", "--set", "a=1"}).find("unknown option --set"), std::string::npos) << command;
  EXPECT_NE(usage_error({"chat", "m", "--json"}).find("unknown option --json"), std::string::npos);
  EXPECT_EQ(help_text(*parse_arguments({"chat", "m"}).command).find("--json"), std::string::npos);
  setenv("PONDER_JSON", "1", 1);  // meant for the other commands
  EXPECT_FALSE(parse_arguments({"chat", "m"}).json());
  EXPECT_TRUE(parse_arguments({"generate", "m"}).json());
  unsetenv("PONDER_JSON");
}

TEST(Options, EnvironmentStandsBehindTheCommandLine) {
  setenv("PONDER_MAX_TOKENS", "7", 1);
  EXPECT_EQ(parse_arguments({"chat", "m"}).integer("max-tokens", 1, 1, 99), 7);
  EXPECT_EQ(parse_arguments({"chat", "m", "--max-tokens", "9"}).integer("max-tokens", 1, 1, 99), 9);
  unsetenv("PONDER_MAX_TOKENS");
}

TEST(Options, MistakesNameWhatIsNear) {
  EXPECT_NE(usage_error({"piplin", "x"}).find("ponder pipeline"), std::string::npos);
  EXPECT_NE(usage_error({"runs", "lst"}).find("ponder runs list"), std::string::npos);
  EXPECT_NE(usage_error({"model"}).find("model show"), std::string::npos);
  EXPECT_NE(usage_error({"rl", "x", "--sed", "3"}).find("--seed"), std::string::npos);
  EXPECT_NE(usage_error({"xyzzy"}).find("ponder help"), std::string::npos);
  EXPECT_NE(usage_error({"rl"}).find("RECIPE"), std::string::npos);
  EXPECT_NE(usage_error({"rl", "a", "b"}).find("\"b\""), std::string::npos);
  EXPECT_NE(usage_error({"rl", "x", "--seed"}), "");
  const Arguments a = parse_arguments({"rl", "x", "--seed", "three"});
  EXPECT_THROW(a.integer("seed", 0, 0, 9), Error);
}

// help, man page and completions all know every command and option.
TEST(Options, OneTableGivesAllTexts) {
  const std::string man = man_page(), bash = completion_script("bash"), fish = completion_script("fish");
  std::set<std::string> names;
  for (const CommandSpec& c : commands()) {
    EXPECT_TRUE(names.insert(c.name).second) << c.name;
    EXPECT_NE(c.run, nullptr);
    EXPECT_NE(help_text().find(c.name), std::string::npos);
    EXPECT_NE(man.find(fmt::format(".SS ponder {}", c.name)), std::string::npos) << c.name;
    const std::string verb = std::string(c.name).substr(0, std::string_view(c.name).find(' '));
    EXPECT_NE(bash.find(verb), std::string::npos);
    EXPECT_NE(fish.find(verb), std::string::npos);
    for (const OptionSpec& o : c.options) {
      EXPECT_NE(help_text(c).find(fmt::format("--{}", o.name)), std::string::npos);
      EXPECT_NE(bash.find(fmt::format("--{}", o.name)), std::string::npos);
    }
  }
  EXPECT_THROW(completion_script("tcsh"), Error);
}

TEST(Options, CompletionsAreValidScripts) {
  TempFolder folder;
  write_file_atomic(folder.file("ponder.bash"), completion_script("bash"));
  EXPECT_EQ(std::system(fmt::format("bash -n {}", folder.file("ponder.bash")).c_str()), 0);
}

TEST(Options, ExitCodes) {
  const auto run = [](std::vector<std::string> words) {
    std::vector<char*> argv = {const_cast<char*>("ponder")};
    for (std::string& w : words) argv.push_back(w.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    testing::internal::GetCapturedStderr();
    testing::internal::GetCapturedStdout();
    return code;
  };
  EXPECT_EQ(run({"help"}), 0);
  EXPECT_EQ(run({"rl", "--help"}), 0);
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(run({"nonsense"}), 2);
  EXPECT_EQ(run({"recipe", "check", "/nowhere.toml"}), 3);
  EXPECT_EQ(run({"chat", "/nowhere"}), 3);
}

TEST(Completion, QuotesOfFishAreClosed) {
  const std::string script = completion_script("fish");
  size_t lines = 0;
  for (size_t at = 0, end; at < script.size(); at = end + 1, ++lines) {
    end = script.find('\n', at);
    bool open = false;
    for (size_t i = at; i < end; ++i) {
      if (open && script[i] == '\\')
        ++i;
      else if (script[i] == '\'')
        open = !open;
    }
    EXPECT_FALSE(open) << script.substr(at, end - at);
  }
  EXPECT_GT(lines, 100u);
}

}  // namespace
}  // namespace ponder::app
