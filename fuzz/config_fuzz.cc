// Any text as a recipe (lines "#set a=b" as overrides): it binds or it is refused with an Error; and what binds, prints
// as TOML that binds to the same values.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ponder/base/config.h"
#include "ponder/base/error.h"

namespace {

struct Inner {
  int64_t tokens = 1;
  std::vector<std::string> files = {"a"};
  template <class V>
  void fields(V& v) {
    v.field("tokens", tokens, {.synonyms = {"budget"}, .min = 0});
    v.field("files", files);
  }
};

struct Item {
  std::string name = "x";
  double weight = 1;
  Inner inner;
  template <class V>
  void fields(V& v) {
    v.field("name", name);
    v.field("weight", weight);
    v.section("inner", inner);
  }
};

struct Numbers {
  float slope = 0.1f;
  double rate = 1e-3;
  std::vector<double> betas = {0.9};
  std::vector<int64_t> sizes;
  std::optional<double> limit = 2.0;
  std::optional<int64_t> steps;
  template <class V>
  void fields(V& v) {
    v.field("slope", slope);
    v.field("rate", rate, {.synonyms = {"lr", "optim.lr"}, .min = 0, .max = 1});
    v.field("betas", betas);
    v.field("sizes", sizes);
    v.field("limit", limit);
    v.field("steps", steps);
  }
};

struct Config {
  bool flag = false;
  int count = 3;
  uint64_t seed = 42;
  std::string kind = "a", title;
  std::optional<std::string> path;
  Inner inner;
  Numbers numbers;
  std::vector<Item> items = {{}};
  template <class V>
  void fields(V& v) {
    v.field("flag", flag, {.value_synonyms = {{"on", "true"}}});
    v.field("count", count);
    v.field("kind", kind, {.synonyms = {"k", "other.kind"}, .choices = {"a", "b", "none"}});
    v.field("title", title);
    v.field("seed", seed);
    v.field("path", path);
    v.section("inner", inner);
    v.section("numbers", numbers);
    v.list("item", items);
    v.ignored({"use_*"}, "it means nothing here");
  }
};

void bind_stages(const ponder::Recipe& recipe) {
  for (ponder::Recipe& stage : recipe.stages()) {
    Config config;
    Numbers numbers;
    if (stage.peek("type") == "numbers")
      stage.bind(numbers);
    else
      stage.bind(config);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.find("extends") != text.npos) return 0;  // it would read files
  try {
    const auto load = [&] {
      ponder::Recipe recipe = ponder::Recipe::parse(text);
      for (size_t at = 0; (at = text.find("#set ", at)) != text.npos;) {
        at += 5;
        recipe.set(text.substr(at, text.find('\n', at) - at));
      }
      return recipe;
    };
    if (text.find("stage") != text.npos) bind_stages(load());
    ponder::Recipe recipe = load();
    Config config;
    const ponder::Origins origins = recipe.bind(config);
    const std::string printed = ponder::resolved_toml(config, &origins);
    Config again;
    ponder::Recipe::parse(printed).bind(again);
    const auto values = ponder::flat_values(config);
    if (ponder::config_hash(values) != ponder::config_hash(ponder::flat_values(again))) std::abort();
    if (!ponder::config_diff(ponder::flat_values_of_toml(printed, "printed"), values).empty()) std::abort();
  } catch (const ponder::Error& e) {
    if (e.code() != ponder::Exit::data && e.code() != ponder::Exit::usage) std::abort();
  }
  return 0;
}
