// Recipes: TOML bound to plain structs through one visitor.
//
//   struct OptimConfig {
//     double learning_rate = 3e-4;
//     std::string lr_scheduler_type = "cosine";
//     template <class V>
//     void fields(V& v) {
//       v.field("learning_rate", learning_rate, {.help = "peak rate of AdamW", .synonyms = {"lr", "optim.lr"}, .min =
//       0}); v.field("lr_scheduler_type", lr_scheduler_type, {.help = "shape", .choices = {"constant", "cosine"}});
//     }
//   };
//   struct SftRecipe { OptimConfig optim; ... template <class V> void fields(V& v) { v.section("optim", optim); ... }
//   };
//
//   Recipe recipe = Recipe::load("tiny.toml");     // with its `extends`
//   recipe.read_environment();                     // PONDER_LEARNING_RATE=...
//   recipe.set("lr=1e-4");                         // --set, in order
//   SftRecipe config;
//   const Origins origins = recipe.bind(config);   // throws: unknown key, wrong type, out of range, malformed
//   for (const std::string& note : recipe.notes()) ...      // "lr -> learning_rate"
//   write_file_atomic("recipe.toml", resolved_toml(config, &origins));
//
// Precedence: --set, environment, recipe (child over `extends` parent, [[stage]] over top level), the struct's own
// value. A key may be written as its full path (`optim.learning_rate`), as a bare leaf name that is unique in the
// struct
// (`learning_rate`, also as a flat list at the top of a file), or as a synonym. Everything wrong in a recipe is an
// Error with Exit::data that says file:line and, where there is one, the nearest name; a wrong --set is Exit::usage.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ponder {

// What is known about one field. Everything is copied by the visitor, so braces in the call are fine.
struct FieldInfo {
  std::string_view help = {};
  // Other frameworks' names. One with dots ("rollout.n") matches that path, with or without a prefix before it.
  std::initializer_list<std::string_view> synonyms = {};
  std::initializer_list<std::string_view> choices = {};  // of a string (or each string of a list)
  // Other spellings of values, compared as text: {"token-mean", "dapo"}, {"False", "none"}.
  std::initializer_list<std::pair<std::string_view, std::string_view>> value_synonyms = {};
  double min = -std::numeric_limits<double>::infinity();  // both inclusive, for numbers and each number of a list
  double max = std::numeric_limits<double>::infinity();
  bool identity = true;  // false: does not change results (where to write, how often to print), so not part of the hash
};

using FieldPointer = std::variant<bool*, int*, int64_t*, uint64_t*, float*, double*, std::string*,
                                  std::vector<std::string>*, std::vector<int64_t>*, std::vector<double>*,
                                  std::optional<double>*, std::optional<int64_t>*, std::optional<std::string>*>;

// The visitor: it only registers; all work is in config.cc.
class Binder {
 public:
  Binder();
  ~Binder();
  Binder(const Binder&) = delete;
  Binder& operator=(const Binder&) = delete;

  template <class T>
  void field(std::string_view name, T& value, const FieldInfo& info = {}) {
    add_field(name, FieldPointer(&value), info);
  }
  template <class T>
  void section(std::string_view name, T& value, std::string_view help = {}) {
    begin_section(name, help);
    value.fields(*this);
    end_section();
  }
  // [[name]]: a list in a recipe replaces the struct's list (and a parent recipe's) as a whole.
  template <class T>
  void list(std::string_view name, std::vector<T>& values, std::string_view help = {}) {
    add_list(name, help, &values,
             {[](void* v) { return static_cast<std::vector<T>*>(v)->size(); },
              [](void* v, size_t n) {
                static_cast<std::vector<T>*>(v)->clear();
                static_cast<std::vector<T>*>(v)->resize(n);
              },
              [](void* v, size_t i, Binder& binder) { (*static_cast<std::vector<T>*>(v))[i].fields(binder); },
              [](const std::function<void(Binder&)>& f) {
                T element;  // alive while f looks at it
                Binder binder;
                element.fields(binder);
                f(binder);
              }});
  }
  // Names that other frameworks have and that mean nothing here: accepted with a note. "vllm_*" matches a family.
  void ignored(std::initializer_list<std::string_view> names, std::string_view why);

  struct ListCalls {
    size_t (*size)(void* list);
    void (*resize)(void* list, size_t n);  // to n fresh elements
    void (*visit)(void* list, size_t i, Binder& binder);
    void (*describe)(const std::function<void(Binder&)>& f);  // shows f a fresh element
  };
  struct Tree;
  Tree& tree() { return *tree_; }

 private:
  void add_field(std::string_view name, FieldPointer pointer, const FieldInfo& info);
  void add_list(std::string_view name, std::string_view help, void* list, const ListCalls& calls);
  void begin_section(std::string_view name, std::string_view help);
  void end_section();

  std::unique_ptr<Tree> tree_;
};

// Path of a field -> where its value came from and what it was. What the program changes after bind prints as
// "derived".
struct Origin {
  std::string source;  // "recipe a.toml:12", "--set", "env PONDER_BETA"
  std::string value;   // as TOML
};
using Origins = std::map<std::string, Origin>;

// A document and what overrides it; knows nothing of any struct until `bind`.
class Recipe {
 public:
  Recipe();  // empty: all defaults
  ~Recipe();
  Recipe(Recipe&&) noexcept;
  Recipe& operator=(Recipe&&) noexcept;
  static Recipe load(const std::string& path);
  static Recipe parse(std::string_view text,
                      const std::string& name = "<text>");  // `extends` relative to the working folder

  void read_environment();                // every PONDER_* variable of the process
  void set(std::string_view assignment);  // "beta=0.001"; the value is TOML, else text; True, False, None as in Python

  // A value before anything is bound, as text: the recipe's `type`, a stage's `name`. Overrides count.
  std::optional<std::string> peek(std::string_view path) const;

  // One recipe per [[stage]]: its own keys over the top level's, each with all overrides that mean it (`stage.NAME.x`,
  // `stage.0.x`, or a bare leaf, which sets every stage that has it). Without [[stage]]: this recipe alone.
  // A top-level key or an override must mean something in at least one stage: checked when the last stage is bound.
  std::vector<Recipe> stages() const;

  template <class T>
  Origins bind(T& config) {
    Binder binder;
    config.fields(binder);
    return bind_tree(binder.tree());
  }

  // One line per synonym used, ignored name and unmatched environment variable. Grows with bind.
  const std::vector<std::string>& notes() const;
  const std::vector<std::string>& files() const;  // the recipe and its parents, nearest first

  struct Impl;

 private:
  explicit Recipe(std::unique_ptr<Impl> impl);
  Origins bind_tree(Binder::Tree& tree);
  std::unique_ptr<Impl> impl_;
};

// --- What a bound struct says about itself ---------------------------------------------------------------------------

struct FieldHelp {
  std::string path, type, value, help;  // value: the current one, as TOML
  std::vector<std::string> synonyms, choices;
  std::string range;  // "0 .. 1", "" without limits
};
struct FlatValue {
  std::string path, value;  // value as TOML
  bool identity;
};

std::string resolved_toml(Binder& binder, const Origins* origins);
std::vector<FieldHelp> field_help(Binder& binder);
std::vector<FlatValue> flat_values(Binder& binder);

// TOML that binds to the same values, in the order of `fields`, each line with its origin in a comment (none without
// origins).
template <class T>
std::string resolved_toml(T& config, const Origins* origins = nullptr) {
  Binder binder;
  config.fields(binder);
  return resolved_toml(binder, origins);
}
// Every field, in order; elements of lists as `name[]`.
template <class T>
std::vector<FieldHelp> field_help(T& config) {
  Binder binder;
  config.fields(binder);
  return field_help(binder);
}
template <class T>
std::vector<FlatValue> flat_values(T& config) {
  Binder binder;
  config.fields(binder);
  return flat_values(binder);
}
// The same from a stored recipe.toml, as far as a document can tell (identity: always true).
std::vector<FlatValue> flat_values_of_toml(std::string_view text, const std::string& name);

// XXH3-128 of all identity fields, hex: equal recipes, equal hash, whatever file or flag the values came from.
std::string config_hash(const std::vector<FlatValue>& values);
// One line per difference: "optim.learning_rate: 0.001 -> 0.002", "(absent)" where a side lacks the field.
std::vector<std::string> config_diff(const std::vector<FlatValue>& before, const std::vector<FlatValue>& after);
// A table for people.
std::string format_help(const std::vector<FieldHelp>& rows);

// The candidate nearest to `name` if it is near enough to be a slip of the hand, else "".
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace ponder
