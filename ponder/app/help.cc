// help, man, completion: printed from the table of options.
#include "ponder/app/commands.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"

namespace ponder::app {

int help_command(const Arguments& args) {
  if (args.positional.empty()) {
    fmt::print("{}", help_text());
    return 0;
  }
  // A word that begins several commands ("runs") shows them all.
  const std::string name = fmt::format("{}", fmt::join(args.positional, " "));
  bool found = false;
  for (const CommandSpec& c : commands())
    if (c.name == name || std::string_view(c.name).starts_with(name + " ")) {
      fmt::print("{}{}", found ? "\n" : "", help_text(c));
      found = true;
    }
  if (!found) parse_arguments(args.positional);  // says which name is near, or knows an alias
  if (!found) fmt::print("{}", help_text(*parse_arguments({name.substr(0, name.find(' ')), "--help"}).command));
  return 0;
}

int man_command(const Arguments&) {
  fmt::print("{}", man_page());
  return 0;
}

int completion_command(const Arguments& args) {
  fmt::print("{}", completion_script(args.positional[0]));
  return 0;
}

}  // namespace ponder::app
