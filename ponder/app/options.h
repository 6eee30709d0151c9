// The one table of commands and options: parsing, help, the man page, completions and environment names all come from it.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::app {

struct OptionSpec {
  const char* name;   // without the dashes
  const char* value;  // what stands after it, for people ("N", "FILE"); null: a switch
  const char* help;
  const char* fallback = nullptr;  // the value of an option that is given without one (`--resume`)
  bool repeat = false;             // may be given several times
};

class Arguments;

struct CommandSpec {
  const char* name;        // "generate", "runs list"
  const char* group;       // "use", "train", ...
  const char* positional;  // "MODEL [PROMPT]", for people; its words say how many there may be
  const char* summary;
  std::vector<OptionSpec> options;
  int (*run)(const Arguments&);
  bool json = true;  // false: --json has no meaning here, and is unknown
};

std::span<const CommandSpec> commands();
std::span<const OptionSpec> global_options();
// Other names of a command: grpo = rl, eval run = eval, train X = X.
std::span<const std::pair<std::string_view, std::string_view>> aliases();

// What was typed, after the environment had its say (PONDER_NAME is the value of --name).
class Arguments {
 public:
  std::vector<std::string> positional;
  std::vector<std::string> command_line;  // argv as it was
  const CommandSpec* command = nullptr;

  bool has(std::string_view option) const { return values_.find(option) != values_.end(); }
  std::string text(std::string_view option, std::string_view otherwise = "") const;
  const std::vector<std::string>& all(std::string_view option) const;
  // Throws Error (usage) for what is no number or out of range.
  int64_t integer(std::string_view option, int64_t otherwise, int64_t min, int64_t max) const;
  double number(std::string_view option, double otherwise, double min, double max) const;
  int threads() const { return static_cast<int>(integer("threads", 0, 0, 4096)); }
  bool json() const { return has("json"); }

  void add(std::string_view option, std::string value) { values_[std::string(option)].push_back(std::move(value)); }
  // Whether it stands on the command line itself, rather than in the environment.
  bool typed(std::string_view option) const { return typed_.find(option) != typed_.end(); }
  void add_typed(std::string_view option) { typed_.emplace(option); }

 private:
  std::set<std::string, std::less<>> typed_;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
};

// Reads a command line (argv without the program's name). Throws Error (usage), with the nearest known name where a
// command or option is unknown. `--help` and `--version` come back as options of an Arguments whose command may be null.
Arguments parse_arguments(const std::vector<std::string>& words);
// The line that a shell reads as these words.
std::string shell_line(const std::vector<std::string>& words);

// For a command whose subject is a recipe or a model: throws Error (usage) where an option of the other kind is given on
// the command line. (An environment is the same for all commands.)
void check_subject(const Arguments& args, const std::string& subject, bool recipe,
                   std::initializer_list<const char*> of_models, std::initializer_list<const char*> of_recipes);

std::string help_text();                                // all commands
std::string help_text(const CommandSpec& command);      // one
std::string man_page();                                 // roff
std::string completion_script(std::string_view shell);  // bash, zsh, fish

// Runs the command that argv names and returns the exit code; prints errors. This is all of main().
int run_program(int argc, char** argv);

}  // namespace ponder::app
