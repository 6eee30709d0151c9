// recipe show, recipe check.
#include "ponder/app/commands.h"
#include "ponder/app/options.h"
#include "ponder/app/recipe.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {

int recipe_show_command(const Arguments& args) {
  Plan plan = load_plan(args.positional[0], "", args.all("set"), "rl");
  for (const std::string& note : plan.notes) log_info("{}", note);
  if (args.has("fields")) {
    for (StageRecipe& s : plan.stage) fmt::print("{}", format_help(field_help(s)));
  } else if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("name", plan.name).member("hash", plan.hash()).key("values").begin_object();
    for (const FlatValue& v : plan.values()) {
      const std::string& origin = plan.origins.count(v.path) ? plan.origins.at(v.path).source : "derived";
      w.key(v.path).begin_object().member("value", v.value).member("origin", origin).end_object();
    }
    w.end_object().end_object();
    fmt::print("{}\n", json);
  } else {
    fmt::print("{}", plan.toml());
  }
  return 0;
}

int recipe_check_command(const Arguments& args) {
  for (const std::string& path : args.positional) {
    Plan plan = load_plan(path, "", args.all("set"), "rl");
    for (const std::string& note : plan.notes) log_info("{}: {}", path, note);
    if (args.json()) {
      std::string json;
      JsonWriter w(json);
      w.begin_object().member("recipe", path).member("hash", plan.hash()).key("stages").begin_array();
      for (const StageRecipe& s : plan.stage)
        w.begin_object().member("name", s.name).member("type", s.type).end_object();
      w.end_array().end_object();
      fmt::print("{}\n", json);
      continue;
    }
    std::vector<std::string> stages;
    for (const StageRecipe& s : plan.stage) stages.push_back(fmt::format("{} ({})", s.name, s.type));
    fmt::print("{}: fine; {}; hash {}\n", path, fmt::join(stages, ", "), plan.hash());
  }
  return 0;
}

}  // namespace ponder::app
