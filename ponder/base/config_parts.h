// Inside of config: documents (TOML as a tree of nodes that know their place) and the struct's side (the fields that a
// Binder was told of). config.h is the door; config_document.cc, config_fields.cc and config_print.cc are its parts.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/base/config.h"
#include "ponder/base/error.h"

namespace ponder::config {

constexpr size_t kMaxRecipeBytes = size_t{256} << 10;

using Path = std::vector<std::string>;

inline std::string join(const Path& path, size_t from = 0) {
  return fmt::format("{}", fmt::join(path.begin() + static_cast<Path::difference_type>(from), path.end(), "."));
}
Path split(std::string_view text);
std::string lower(std::string_view text);
inline bool is_none(std::string_view text) { return text == "none" || text == "None" || text == "null"; }

// --- Documents -------------------------------------------------------------------------------------------------------

// A TOML value with its place. Immutable once built, shared between merged documents.
struct Node {
  enum class Kind { none, boolean, integer, number, text, date, array, table };
  Kind kind = Kind::none;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;
  std::string text;
  std::vector<std::shared_ptr<Node>> items;
  std::vector<std::pair<std::string, std::shared_ptr<Node>>> entries;

  std::string where;   // for messages: "a.toml:12", "--set lr=x"
  std::string source;  // for origins: "recipe a.toml:12", "--set"
  std::string raw;     // what was typed, for overrides
  bool typed = false;  // an override: its text may stand for any type
  int rank = 0;        // of two nodes for one field the higher rank wins

  Exit exit() const { return typed ? Exit::usage : Exit::data; }
  const std::shared_ptr<Node>* find(std::string_view key) const {
    for (const auto& [name, node] : entries)
      if (name == key) return &node;
    return nullptr;
  }
  bool is_list_of_tables() const {
    return kind == Kind::array && !items.empty() &&
           std::all_of(items.begin(), items.end(), [](const auto& item) { return item->kind == Kind::table; });
  }
};
using NodePtr = std::shared_ptr<Node>;

std::string toml_number(double x);
std::string toml_number(float x);
std::string toml_string(std::string_view text);
std::string to_toml(const Node& node);
// The text of a value as somebody would type it.
std::string plain_text(const Node& node);

NodePtr parse_document(std::string_view text, const std::string& name, int rank);
// The value of an override or of a mapped spelling: Python's words, TOML, else the text itself.
NodePtr parse_value(std::string_view text);
// Tables are joined, everything else in `above` replaces what is below.
NodePtr merge(const NodePtr& below, const NodePtr& above);
NodePtr with_rank(const NodePtr& node, int rank);
NodePtr without(const NodePtr& table, std::string_view key);

// --- The struct's side -----------------------------------------------------------------------------------------------

struct Field {
  std::string name, path, help;
  FieldPointer pointer;
  std::vector<std::string> synonyms, choices;
  std::vector<std::pair<std::string, std::string>> value_synonyms;
  double min, max;
  bool identity;
};

struct List {
  std::string name, path, help;
  void* list;
  Binder::ListCalls calls;
};

struct Section {
  std::string name, path, help;
  std::vector<Field> fields;
  std::vector<std::unique_ptr<Section>> sections;
  std::vector<List> lists;
};

struct Ignored {
  std::string pattern, why;
};

template <class F>
void each_field(const Section& section, F&& f) {
  for (const Field& field : section.fields) f(field);
  for (const auto& child : section.sections) each_field(*child, f);
}

std::string value_of(const Field& field);
std::string type_of(const Field& field);
std::string range_of(const Field& field);
// Writes a document's value into the struct, with every check and a message that names the place.
void assign(const Field& field, const Node& node);

}  // namespace ponder::config

namespace ponder {

struct Binder::Tree {
  config::Section root;
  std::vector<config::Section*> open{&root};
  std::vector<config::Ignored> ignored;
};

}  // namespace ponder
