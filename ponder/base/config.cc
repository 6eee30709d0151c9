#include "ponder/base/config.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/hash.h"
#include "ponder/base/utf8.h"

// NOTE: toml++ 3.3 asserts, and in release builds tells the optimizer to assume, that a table header starts with a key,
// and then handles the header that does not ("[\x01"). Both are turned off: its own handling is right.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(condition) static_assert(true)
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 32
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

extern char** environ;

namespace ponder {
namespace {

constexpr size_t kMaxRecipeBytes = size_t{256} << 10;
constexpr int kMaxKeyParts = 32;
constexpr int kMaxParents = 16;
constexpr int kStageRank = 1000, kEnvironmentRank = 2000, kSetRank = 3000;

using Path = std::vector<std::string>;

std::string join(const Path& path, size_t from = 0) {
  return fmt::format("{}", fmt::join(path.begin() + from, path.end(), "."));
}

Path split(std::string_view text) {
  Path parts;
  for (size_t at = 0;;) {
    const size_t dot = text.find('.', at);
    parts.emplace_back(text.substr(at, dot - at));
    if (dot == text.npos) return parts;
    at = dot + 1;
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

bool is_none(std::string_view text) { return text == "none" || text == "None" || text == "null"; }

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

// One way of writing for each value, so that equal values have equal text.
std::string toml_number(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", x);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

std::string toml_number(float x) {
  if (!std::isfinite(x)) return toml_number(static_cast<double>(x));
  std::string text = fmt::format("{}", x);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return static_cast<float>(std::strtod(text.c_str(), nullptr)) == x ? text : toml_number(static_cast<double>(x));
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out.append({'\\', c});
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<uint8_t>(c));
    else
      out.push_back(c);
  }
  return out += '"';
}

std::string to_toml(const Node& node) {
  switch (node.kind) {
    case Node::Kind::none: return "\"none\"";
    case Node::Kind::boolean: return node.boolean ? "true" : "false";
    case Node::Kind::integer: return fmt::format("{}", node.integer);
    case Node::Kind::number: return toml_number(node.number);
    case Node::Kind::text: return toml_string(node.text);
    case Node::Kind::date: return "a date";
    case Node::Kind::array: {
      std::vector<std::string> items;
      for (const NodePtr& item : node.items) items.push_back(to_toml(*item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case Node::Kind::table: return "{...}";
  }
  return {};
}

// The text of a scalar without quotes.
std::string plain_text(const Node& node) {
  if (node.typed && !node.raw.empty() && node.kind != Node::Kind::text) return node.raw;
  return node.kind == Node::Kind::text ? node.text : to_toml(node);
}

// toml++ bounds the nesting of values but not of dotted keys, whose tables it then builds and frees recursively.
// In `a.b.c = "..."` dots outside strings belong to keys, numbers or dates.
void check_key_depth(std::string_view text, const std::string& name) {
  int dots = 0, line = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '.') {
      if (++dots >= kMaxKeyParts)
        throw_error(Exit::data, "{}:{}: a key with more than {} parts", name, line, kMaxKeyParts);
    } else if (c == '#') {
      while (i + 1 < text.size() && text[i + 1] != '\n') ++i;
    } else if (c == '"' || c == '\'') {
      const bool multi = text.substr(i, 3) == std::string(3, c);
      i += multi ? 3 : 1;
      for (; i < text.size(); ++i) {
        if (text[i] == '\n') {
          ++line;
          if (!multi) break;  // an unterminated string: toml++ will say so
        }
        if (c == '"' && text[i] == '\\') {
          ++i;
        } else if (text[i] == c && (!multi || text.substr(i, 3) == std::string(3, c))) {
          if (multi) {
            i += 2;
            while (i + 1 < text.size() && text[i + 1] == c) ++i;  // """ may be preceded by up to two quotes
          }
          break;
        }
      }
    } else if (c == '=' || c == ',' || c == '\n' || c == '[' || c == ']' || c == '{' || c == '}') {
      dots = 0;
    }
  }
}

NodePtr convert(const toml::node& value, const std::string& name, int rank) {
  auto node = std::make_shared<Node>();
  node->rank = rank;
  node->where = fmt::format("{}:{}", name, value.source().begin.line);
  node->source = fmt::format("recipe {}:{}", base_name(name), value.source().begin.line);
  if (const auto* table = value.as_table()) {
    node->kind = Node::Kind::table;
    for (const auto& [key, entry] : *table)
      node->entries.emplace_back(std::string(key.str()), convert(entry, name, rank));
  } else if (const auto* array = value.as_array()) {
    node->kind = Node::Kind::array;
    for (const toml::node& item : *array) node->items.push_back(convert(item, name, rank));
  } else if (const auto* boolean = value.as_boolean()) {
    node->kind = Node::Kind::boolean;
    node->boolean = boolean->get();
  } else if (const auto* integer = value.as_integer()) {
    node->kind = Node::Kind::integer;
    node->integer = integer->get();
  } else if (const auto* number = value.as_floating_point()) {
    node->kind = Node::Kind::number;
    node->number = number->get();
  } else if (const auto* text = value.as_string()) {
    node->kind = Node::Kind::text;
    node->text = text->get();
  } else {
    node->kind = Node::Kind::date;
  }
  return node;
}

NodePtr parse_document(std::string_view text, const std::string& name, int rank) {
  if (text.size() > kMaxRecipeBytes)
    throw_error(Exit::data, "{}: a recipe of more than {} bytes", name, kMaxRecipeBytes);
  check_key_depth(text, name);
  const toml::parse_result result = toml::parse(text, name);
  if (!result) {
    const toml::parse_error& error = result.error();
    throw_error(Exit::data, "{}:{}:{}: not valid TOML: {}", name, error.source().begin.line,
                error.source().begin.column, std::string_view(error.description()));
  }
  return convert(result.table(), name, rank);
}

// The value of an override or of a mapped spelling: Python's words, TOML, else the text itself.
NodePtr parse_value(std::string_view text) {
  auto node = std::make_shared<Node>();
  if (text == "True" || text == "False") {
    node->kind = Node::Kind::boolean;
    node->boolean = text == "True";
  } else if (is_none(text)) {
    node->kind = Node::Kind::none;
  } else {
    node->kind = Node::Kind::text;
    node->text = text;
    // A line break would let a value smuggle in further keys.
    if (text.find('\n') == text.npos && text.size() < kMaxRecipeBytes) {
      const std::string document = fmt::format("x = {}", text);
      try {
        check_key_depth(document, "");
        if (const toml::parse_result result = toml::parse(document); result && result.table().size() == 1)
          if (NodePtr parsed = convert(*result.table().get("x"), "", 0); parsed->kind != Node::Kind::date)
            node = parsed;
      } catch (const Error&) {
        // Too deep to be TOML: the text as it stands.
      }
    }
  }
  node->raw = text;
  return node;
}

NodePtr merge(const NodePtr& below, const NodePtr& above) {
  if (!below || below->kind != Node::Kind::table || above->kind != Node::Kind::table) return above;
  auto merged = std::make_shared<Node>(*above);
  for (const auto& [key, node] : below->entries) {
    auto at = std::find_if(merged->entries.begin(), merged->entries.end(),
                           [&, k = &key](const auto& e) { return e.first == *k; });
    if (at == merged->entries.end())
      merged->entries.emplace_back(key, node);
    else
      at->second = merge(node, at->second);
  }
  return merged;
}

NodePtr with_rank(const NodePtr& node, int rank) {
  auto copy = std::make_shared<Node>(*node);
  copy->rank = rank;
  for (NodePtr& item : copy->items) item = with_rank(item, rank);
  for (auto& entry : copy->entries) entry.second = with_rank(entry.second, rank);
  return copy;
}

NodePtr without(const NodePtr& table, std::string_view key) {
  auto copy = std::make_shared<Node>(*table);
  std::erase_if(copy->entries, [&](const auto& entry) { return entry.first == key; });
  return copy;
}

}  // namespace

// --- The struct's side -----------------------------------------------------------------------------------------------

namespace {

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

std::string value_of(const Field& field) {
  return std::visit(
      [](const auto* value) -> std::string {
        using T = std::remove_cvref_t<decltype(*value)>;
        const auto list = [](const auto& items, auto&& show) {
          std::vector<std::string> shown;
          for (const auto& item : items) shown.push_back(show(item));
          return fmt::format("[{}]", fmt::join(shown, ", "));
        };
        if constexpr (std::is_same_v<T, bool>)
          return *value ? "true" : "false";
        else if constexpr (std::is_same_v<T, uint64_t>)
          // TOML integers end at 2^63 - 1; what is larger is written, and read, as text.
          return *value > static_cast<uint64_t>(INT64_MAX) ? fmt::format("\"{}\"", *value) : fmt::format("{}", *value);
        else if constexpr (std::is_integral_v<T>)
          return fmt::format("{}", *value);
        else if constexpr (std::is_floating_point_v<T>)
          return toml_number(*value);
        else if constexpr (std::is_same_v<T, std::string>)
          return toml_string(*value);
        else if constexpr (std::is_same_v<T, std::vector<std::string>>)
          return list(*value, [](const std::string& s) { return toml_string(s); });
        else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
          return list(*value, [](int64_t i) { return fmt::format("{}", i); });
        else if constexpr (std::is_same_v<T, std::vector<double>>)
          return list(*value, [](double x) { return toml_number(x); });
        else if constexpr (std::is_same_v<T, std::optional<double>>)
          return *value ? toml_number(**value) : "\"none\"";
        else if constexpr (std::is_same_v<T, std::optional<int64_t>>)
          return *value ? fmt::format("{}", **value) : "\"none\"";
        else
          return *value ? toml_string(**value) : "\"none\"";
      },
      field.pointer);
}

std::string type_of(const Field& field) {
  static constexpr const char* kNames[] = {"true or false",
                                           "whole number",
                                           "whole number",
                                           "whole number >= 0",
                                           "number",
                                           "number",
                                           "text",
                                           "list of texts",
                                           "list of whole numbers",
                                           "list of numbers",
                                           "number or none",
                                           "whole number or none",
                                           "text or none"};
  return kNames[field.pointer.index()];
}

std::string range_of(const Field& field) {
  if (std::isinf(field.min) && std::isinf(field.max)) return "";
  const auto bound = [](double x) { return fmt::format("{}", x); };
  if (std::isinf(field.max)) return ">= " + bound(field.min);
  if (std::isinf(field.min)) return "<= " + bound(field.max);
  return fmt::format("{} .. {}", bound(field.min), bound(field.max));
}

// Writes a document's value into the struct, with every check and a message that names the place.
class Setter {
 public:
  Setter(const Field& field, const Node& node) : field_(field), node_(node) {}

  void run() const {
    std::visit([this](auto* to) { assign(*to); }, field_.pointer);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(node_.exit(), "{}: {}: {}", node_.where, field_.path, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void wrong_type(const Node& node) const {
    fail("expected a {}, got {}", type_of(field_), to_toml(node));
  }

  void check_range(double x) const {
    if (!(x >= field_.min && x <= field_.max)) fail("{} is out of range ({})", toml_number(x), range_of(field_));
  }

  int64_t integer(const Node& node) const {
    int64_t value = 0;
    if (node.kind == Node::Kind::integer)
      value = node.integer;
    else if (node.kind == Node::Kind::number && node.number == std::trunc(node.number) &&
             std::abs(node.number) < 0x1p53)
      value = static_cast<int64_t>(node.number);  // 1e6 is a fine way to write a million
    else
      wrong_type(node);
    check_range(static_cast<double>(value));
    return value;
  }
  double number(const Node& node) const {
    double value = 0;
    if (node.kind == Node::Kind::number)
      value = node.number;
    else if (node.kind == Node::Kind::integer)
      value = static_cast<double>(node.integer);
    else
      wrong_type(node);
    if (std::isnan(value)) fail("nan is not a value");
    check_range(value);
    return value;
  }
  std::string text(const Node& node) const {
    std::string value;
    if (node.kind == Node::Kind::text)
      value = node.text;
    else if (node.kind == Node::Kind::none)
      value = node.raw == "none" ? node.raw : "";
    else if (!node.raw.empty())
      value = node.raw;  // --set run_name=5
    else
      wrong_type(node);
    if (!field_.choices.empty() &&
        std::find(field_.choices.begin(), field_.choices.end(), value) == field_.choices.end()) {
      const std::string near = nearest_name(value, field_.choices);
      fail("{} is not one of {}{}", toml_string(value), fmt::join(field_.choices, ", "),
           near.empty() ? "" : fmt::format("; did you mean {}?", near));
    }
    return value;
  }
  // A scalar stands for a list of one, and on the command line a,b,c for a list of three.
  template <class F>
  void each(F&& f) const {
    if (node_.kind == Node::Kind::array) {
      for (const NodePtr& item : node_.items) f(*item);
    } else if (node_.kind == Node::Kind::none) {
      return;
    } else if (node_.typed && node_.kind == Node::Kind::text && node_.text.find(',') != std::string::npos) {
      for (size_t at = 0; at != std::string::npos;) {
        const size_t comma = node_.text.find(',', at);
        f(*parse_value(std::string_view(node_.text).substr(at, comma - at)));
        at = comma == std::string::npos ? comma : comma + 1;
      }
    } else {
      f(node_);
    }
  }
  bool none() const {
    return node_.kind == Node::Kind::none || (node_.kind == Node::Kind::text && is_none(node_.text));
  }

  void assign(bool& to) const {
    const std::string word = node_.kind == Node::Kind::text ? lower(node_.text) : "";
    if (node_.kind == Node::Kind::boolean)
      to = node_.boolean;
    else if (word == "true" || word == "false")
      to = word == "true";
    else
      wrong_type(node_);
  }
  void assign(int& to) const {
    const int64_t value = integer(node_);
    if (value < INT32_MIN || value > INT32_MAX) fail("{} is too large for this field", value);
    to = static_cast<int>(value);
  }
  void assign(int64_t& to) const { to = integer(node_); }
  void assign(uint64_t& to) const {
    const std::string digits = plain_text(node_);
    if (digits.size() >= 19 && digits.size() <= 20 && digits.find_first_not_of("0123456789") == digits.npos) {
      errno = 0;
      const unsigned long long value = std::strtoull(digits.c_str(), nullptr, 10);
      if (errno == ERANGE) fail("{} does not fit into 64 bits", digits);
      check_range(static_cast<double>(value));
      to = value;
      return;
    }
    const int64_t value = integer(node_);
    if (value < 0) wrong_type(node_);
    to = static_cast<uint64_t>(value);
  }
  void assign(float& to) const { to = static_cast<float>(number(node_)); }
  void assign(double& to) const { to = number(node_); }
  void assign(std::string& to) const { to = text(node_); }
  void assign(std::vector<std::string>& to) const {
    to.clear();
    each([&](const Node& item) { to.push_back(text(item)); });
  }
  void assign(std::vector<int64_t>& to) const {
    to.clear();
    each([&](const Node& item) { to.push_back(integer(item)); });
  }
  void assign(std::vector<double>& to) const {
    to.clear();
    each([&](const Node& item) { to.push_back(number(item)); });
  }
  void assign(std::optional<double>& to) const {
    if (none())
      to.reset();
    else
      to = number(node_);
  }
  void assign(std::optional<int64_t>& to) const {
    if (none())
      to.reset();
    else
      to = integer(node_);
  }
  void assign(std::optional<std::string>& to) const {
    if (none())
      to.reset();
    else
      to = text(node_);
  }

  const Field& field_;
  const Node& node_;
};

}  // namespace

struct Binder::Tree {
  Section root;
  std::vector<Section*> open{&root};
  std::vector<Ignored> ignored;
};

Binder::Binder() : tree_(std::make_unique<Tree>()) {}
Binder::~Binder() = default;

namespace {

std::string child_path(const Section& section, std::string_view name) {
  return section.path.empty() ? std::string(name) : fmt::format("{}.{}", section.path, name);
}

}  // namespace

void Binder::add_field(std::string_view name, FieldPointer pointer, const FieldInfo& info) {
  Section& section = *tree_->open.back();
  for (const Field& other : section.fields) PONDER_CHECK(other.name != name, "the field {} is bound twice", other.path);
  Field field{.name = std::string(name),
              .path = child_path(section, name),
              .help = std::string(info.help),
              .pointer = pointer,
              .synonyms = {info.synonyms.begin(), info.synonyms.end()},
              .choices = {info.choices.begin(), info.choices.end()},
              .value_synonyms = {},
              .min = info.min,
              .max = info.max,
              .identity = info.identity};
  for (const auto& [from, to] : info.value_synonyms) field.value_synonyms.emplace_back(from, to);
  section.fields.push_back(std::move(field));
}

void Binder::add_list(std::string_view name, std::string_view help, void* list, const ListCalls& calls) {
  Section& section = *tree_->open.back();
  section.lists.push_back({std::string(name), child_path(section, name), std::string(help), list, calls});
}

void Binder::begin_section(std::string_view name, std::string_view help) {
  Section& section = *tree_->open.back();
  // One section may be bound in two steps (two structs that share [data]).
  for (const auto& child : section.sections)
    if (child->name == name) return tree_->open.push_back(child.get());
  auto child = std::make_unique<Section>();
  child->name = name;
  child->path = child_path(section, name);
  child->help = help;
  section.sections.push_back(std::move(child));
  tree_->open.push_back(section.sections.back().get());
}

void Binder::end_section() { tree_->open.pop_back(); }

void Binder::ignored(std::initializer_list<std::string_view> names, std::string_view why) {
  for (const std::string_view name : names) tree_->ignored.push_back({std::string(name), std::string(why)});
}

// --- Names -----------------------------------------------------------------------------------------------------------

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  // Optimal string alignment: insert, delete, replace, swap neighbours. Capital letters and - for _ cost nothing.
  const auto plain = [](std::string_view text) {
    std::string out = lower(text);
    std::replace(out.begin(), out.end(), '-', '_');
    return out;
  };
  const std::string a = plain(name.substr(0, 128));
  const size_t limit = std::clamp<size_t>(a.size() / 3, 1, 3);
  size_t best = limit + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const std::string b = plain(candidate);
    if (b.size() > a.size() + limit || a.size() > b.size() + limit) continue;
    std::vector<size_t> before, last(b.size() + 1), row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      row[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
          row[j] = std::min(row[j], before[j - 2] + 1);
      }
      before = last;
      last = row;
    }
    if (last[b.size()] < best) {
      best = last[b.size()];
      nearest = candidate;
    }
  }
  return nearest;
}

namespace {

bool synonym_matches(const std::string& synonym, const std::string& key) {
  if (key == synonym) return true;
  return synonym.find('.') != synonym.npos && key.size() > synonym.size() && key.ends_with(synonym) &&
         key[key.size() - synonym.size() - 1] == '.';
}

bool pattern_matches(const std::string& pattern, const std::string& key) {
  const auto match = [&](std::string_view text) {
    if (pattern.ends_with('*')) return text.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
    return text == pattern;
  };
  return match(key) || match(std::string_view(key).substr(key.rfind('.') + 1));
}

// What a key of a document means for a struct.
struct Meaning {
  const Field* field = nullptr;
  const List* list = nullptr;
  size_t list_depth = 0;  // parts of the key up to and with the list's name
  const Ignored* ignored = nullptr;
  bool renamed = false;  // by a synonym: worth a note
  bool section = false;  // an empty table of that name is fine
  std::string problem;   // set if there is no meaning
};

Meaning resolve(const Binder::Tree& tree, const Path& path, bool exact_only) {
  Meaning meaning;
  // The full path, as far as it goes.
  std::vector<const Section*> walk{&tree.root};
  for (size_t i = 0; i < path.size(); ++i) {
    const Section& at = *walk.back();
    if (i + 1 == path.size())
      for (const Field& field : at.fields)
        if (field.name == path[i]) return meaning.field = &field, meaning;
    for (const List& list : at.lists)
      if (list.name == path[i]) return meaning.list = &list, meaning.list_depth = i + 1, meaning;
    const auto next =
        std::find_if(at.sections.begin(), at.sections.end(), [&](const auto& s) { return s->name == path[i]; });
    if (next == at.sections.end()) break;
    walk.push_back(next->get());
  }
  if (walk.size() == path.size() + 1) return meaning.section = true, meaning;
  if (exact_only) return meaning;

  // A bare leaf or a synonym, within the innermost section that the path names, then in the sections around it; a
  // synonym with dots may also mean a path from the top.
  const std::string whole = join(path);
  for (size_t depth = walk.size(); depth-- > 0;) {
    const std::string rest = join(path, depth);
    std::vector<const Field*> by_name, by_synonym;
    each_field(*walk[depth], [&](const Field& field) {
      if (field.name == rest) by_name.push_back(&field);
      for (const std::string& synonym : field.synonyms)
        if (synonym_matches(synonym, rest) || synonym_matches(synonym, whole)) {
          by_synonym.push_back(&field);
          break;
        }
    });
    const std::vector<const Field*>& found = by_name.empty() ? by_synonym : by_name;
    if (found.size() == 1) {
      meaning.field = found[0];
      meaning.renamed = by_name.empty();
      return meaning;
    }
    if (found.size() > 1) {
      Path paths;
      for (const Field* field : found) paths.push_back(field->path);
      meaning.problem = fmt::format("`{}` could be any of {}; write the full path", whole, fmt::join(paths, ", "));
      return meaning;
    }
  }
  for (const Ignored& ignored : tree.ignored)
    if (pattern_matches(ignored.pattern, whole)) return meaning.ignored = &ignored, meaning;

  // Unknown. The leaf may stand elsewhere, or be a slip of the hand.
  std::string suggestion;
  std::vector<std::string> names, sections;
  std::map<std::string, std::string> shown;
  const auto candidate = [&](const std::string& name, const std::string& show) {
    names.push_back(name);
    shown.emplace(name, show);
  };
  each_field(tree.root, [&](const Field& field) {
    if (field.name == path.back() && suggestion.empty()) suggestion = field.path;
    candidate(field.name, path.size() == 1 ? field.name : field.path);
    candidate(field.path, field.path);
    for (const std::string& synonym : field.synonyms) candidate(synonym, field.path);
  });
  for (const List& list : tree.root.lists) candidate(list.name, list.name);
  for (const auto& section : tree.root.sections) sections.push_back(section->name);
  if (suggestion.empty()) suggestion = shown[nearest_name(path.back(), names)];
  if (suggestion.empty()) suggestion = shown[nearest_name(whole, names)];
  if (suggestion.empty() && walk.size() == 1) suggestion = nearest_name(path[0], sections);
  meaning.problem = fmt::format(
      "unknown key `{}`; {}", whole,
      suggestion.empty() ? "`ponder recipe show` lists all fields" : fmt::format("did you mean `{}`?", suggestion));
  return meaning;
}

// One thing a document or an override wants.
struct Wish {
  Path path;
  NodePtr node;
};

void collect(const NodePtr& node, Path& path, std::vector<Wish>& wishes) {
  if (node->kind == Node::Kind::table && !node->entries.empty()) {
    for (const auto& [key, entry] : node->entries) {
      path.push_back(key);
      collect(entry, path, wishes);
      path.pop_back();
    }
  } else if (!path.empty()) {
    wishes.push_back({path, node});
  }
}

struct Override {
  std::string key;
  NodePtr node;
};

// What several stages of one recipe know together.
struct Shared {
  std::vector<std::string> notes;
  std::vector<std::string> files;
  std::set<NodePtr> used, peeked;
  std::map<NodePtr, std::string> unknown;  // and the message, should nobody use it
  int unbound_stages = 0;

  void note(std::string text) {
    if (std::find(notes.begin(), notes.end(), text) == notes.end()) notes.push_back(std::move(text));
  }
};

}  // namespace

struct Recipe::Impl {
  NodePtr root = [] {
    auto table = std::make_shared<Node>();
    table->kind = Node::Kind::table;
    return table;
  }();
  std::vector<Override> overrides;                           // --set, in order
  std::vector<std::pair<std::string, NodePtr>> environment;  // name after PONDER_, value
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  bool is_stage = false, bound = false;

  void unknown(const NodePtr& node, const std::string& problem) {
    if (!is_stage || (node->rank >= kStageRank && node->rank < kEnvironmentRank))
      throw_error(node->exit(), "{}: {}", node->where, problem);
    // Another stage may know what a top-level key means. If none does, the message with a suggestion is the better one.
    std::string& known = shared->unknown[node];
    if (known.empty() || problem.find("did you mean") != problem.npos) known = problem;
  }
  void apply(const Field& field, const Wish& wish, bool renamed);
  void bind(Binder::Tree& tree, const NodePtr& table, const std::vector<Override>& sets, bool top);
  void set_list(const List& list, const NodePtr& node, const std::vector<Override>& sets, const Path& path);
  // Path as printed ("reward.0.weight") -> source.
  std::map<std::string, std::string> sources;
  std::string prefix;  // of the list element being bound: "reward.0."
};

void Recipe::Impl::apply(const Field& field, const Wish& wish, bool renamed) {
  NodePtr node = wish.node;
  const std::string before = plain_text(*node);
  for (const auto& [from, to] : field.value_synonyms) {
    if (lower(from) != lower(before)) continue;
    NodePtr mapped = parse_value(to);
    mapped->where = node->where;
    mapped->typed = node->typed;
    shared->note(fmt::format("{} = {} -> {} = {}", join(wish.path), before, field.name, to));
    node = mapped;
    renamed = false;
    break;
  }
  if (renamed) shared->note(fmt::format("{} -> {}", join(wish.path), field.name));
  Setter(field, *node).run();
  sources[prefix + field.path] = wish.node->source;
}

void Recipe::Impl::set_list(const List& list, const NodePtr& node, const std::vector<Override>& sets,
                            const Path& path) {
  if (node) {
    if (node->kind != Node::Kind::array || (!node->items.empty() && !node->is_list_of_tables()))
      throw_error(node->exit(), "{}: `{}` is a list of tables: write [[{}]]", node->where, join(path), list.path);
    list.calls.resize(list.list, node->items.size());
    sources[prefix + list.path] = node->source;
  }
  const size_t size = list.calls.size(list.list);
  std::vector<std::vector<Override>> own(size);
  for (const Override& set : sets) {
    const Path parts = split(set.key);  // element, then the rest
    size_t element = size;
    for (size_t i = 0; i < size && element == size; ++i) {
      if (parts[0] == fmt::format("{}", i)) element = i;
      Binder binder;
      list.calls.visit(list.list, i, binder);
      each_field(binder.tree().root, [&](const Field& field) {
        if (field.path != "name") return;
        std::string name = value_of(field);
        if (node)
          if (const NodePtr* given = node->items[i]->find("name")) name = to_toml(**given);
        if (name == toml_string(parts[0])) element = i;
      });
    }
    if (element == size || parts.size() < 2)
      throw_error(set.node->exit(),
                  "{}: `{}` has {} elements; write {}.NUMBER.field, or their name instead of the number",
                  set.node->where, list.path, size, list.path);
    own[element].push_back({join(parts, 1), set.node});
  }
  for (size_t i = 0; i < size; ++i) {
    Binder binder;
    list.calls.visit(list.list, i, binder);
    const std::string outer = prefix;
    prefix = fmt::format("{}{}.{}.", outer, list.path, i);
    bind(binder.tree(), node ? node->items[i] : nullptr, own[i], false);
    prefix = outer;
  }
}

void Recipe::Impl::bind(Binder::Tree& tree, const NodePtr& table, const std::vector<Override>& sets, bool top) {
  struct Winner {
    Wish wish;
    bool renamed;
  };
  std::map<const Field*, Winner> winners;
  std::map<const List*, Wish> lists;
  std::map<const List*, std::vector<Override>> list_sets;
  const auto claim = [&](const Field* field, Wish wish, bool renamed) {
    const auto [at, fresh] = winners.try_emplace(field, Winner{wish, renamed});
    if (fresh) return;
    const Node& old = *at->second.wish.node;
    if (old.rank == wish.node->rank && !wish.node->typed)
      throw_error(Exit::data, "{}: `{}` is set a second time (the first is `{}` at {})", wish.node->where,
                  join(wish.path), join(at->second.wish.path), old.where);
    if (wish.node->rank >= old.rank) at->second = {std::move(wish), renamed};
  };
  const auto place = [&](const Wish& wish) {
    const Meaning meaning = resolve(tree, wish.path, shared->peeked.count(wish.node) > 0);
    if (meaning.field) {
      claim(meaning.field, wish, meaning.renamed);
    } else if (meaning.list && meaning.list_depth == wish.path.size()) {
      Wish& known = lists[meaning.list];
      if (!known.node || known.node->rank <= wish.node->rank) known = wish;
    } else if (meaning.list && wish.node->typed) {
      list_sets[meaning.list].push_back({join(wish.path, meaning.list_depth), wish.node});
    } else if (meaning.list) {
      return unknown(wish.node,
                     fmt::format("`{}` is a list of tables: write [[{}]]", meaning.list->path, meaning.list->path));
    } else if (meaning.ignored) {
      shared->note(fmt::format("{} does nothing here: {}", join(wish.path), meaning.ignored->why));
    } else if (meaning.section && wish.node->kind != Node::Kind::table) {
      return unknown(wish.node, fmt::format("`{}` is a section, not a value", join(wish.path)));
    } else if (!meaning.problem.empty()) {
      return unknown(wish.node, meaning.problem);
    }
    shared->used.insert(wish.node);
  };

  std::vector<Wish> wishes;
  Path path;
  if (table) collect(table, path, wishes);
  for (const Wish& wish : wishes) place(wish);

  if (top) {
    for (const auto& variable : environment) {
      const std::string& name = variable.first;
      const NodePtr& node = variable.second;
      const Field* match = nullptr;
      std::vector<std::string> names;
      int leaves = 0;
      each_field(tree.root, [&](const Field& field) {
        std::string leaf = lower(field.name), full = lower(field.path);
        std::replace(full.begin(), full.end(), '.', '_');
        if (lower(name) == full)
          match = &field, leaves = -1;
        else if (lower(name) == leaf && leaves >= 0)
          match = &field, ++leaves;
        names.push_back(leaf);
        names.push_back(full);
      });
      if (leaves > 1)
        throw_error(Exit::usage, "{}: several fields have that name; use PONDER_SECTION_NAME", node->where);
      if (match) {
        claim(match, {{match->path}, node}, false);
        shared->used.insert(node);
      } else if (const std::string near = nearest_name(name, names); !near.empty()) {
        std::string upper = near;
        for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        shared->note(fmt::format("PONDER_{} matches no field; did you mean PONDER_{}?", name, upper));
      }
    }
  }
  for (const Override& set : sets) place({split(set.key), set.node});

  each_field(tree.root, [&](const Field& field) {
    if (const auto at = winners.find(&field); at != winners.end()) apply(field, at->second.wish, at->second.renamed);
  });

  const auto each_list = [&](const auto& self, const Section& section) -> void {
    for (const List& list : section.lists) {
      const Wish& wish = lists[&list];
      set_list(list, wish.node, list_sets[&list], wish.path);
    }
    for (const auto& child : section.sections) self(self, *child);
  };
  each_list(each_list, tree.root);
}

// --- Recipe ----------------------------------------------------------------------------------------------------------

namespace {

// Replaces `extends` by what it names.
NodePtr with_parents(NodePtr document, const std::string& name, std::vector<std::string>& files) {
  const NodePtr* extends = document->find("extends");
  if (!extends) return document;
  const NodePtr clause = *extends;
  if (clause->kind != Node::Kind::text || clause->text.empty())
    throw_error(Exit::data, "{}: `extends` names one file, as text", clause->where);
  const std::string path = join_path(parent_folder(name), clause->text);
  if (std::find(files.begin(), files.end(), path) != files.end() || files.size() > kMaxParents)
    throw_error(Exit::data, "{}: `extends` goes round in a circle: {} -> {}", clause->where, fmt::join(files, " -> "),
                path);
  if (!path_exists(path)) throw_error(Exit::data, "{}: `extends` names {}, which does not exist", clause->where, path);
  files.push_back(path);
  const int rank = -static_cast<int>(files.size()) + 1;
  NodePtr parent = parse_document(read_file(path, kMaxRecipeBytes), path, rank);
  return merge(with_parents(parent, path, files), without(document, "extends"));
}

}  // namespace

Recipe::Recipe() : impl_(std::make_unique<Impl>()) {}
Recipe::Recipe(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Recipe::~Recipe() = default;
Recipe::Recipe(Recipe&&) noexcept = default;
Recipe& Recipe::operator=(Recipe&&) noexcept = default;

Recipe Recipe::load(const std::string& path) { return parse(read_file(path, kMaxRecipeBytes), path); }

Recipe Recipe::parse(std::string_view text, const std::string& name) {
  Recipe recipe;
  std::vector<std::string>& files = recipe.impl_->shared->files;
  files.push_back(name);
  recipe.impl_->root = with_parents(parse_document(text, name, 0), name, files);
  return recipe;
}

void Recipe::read_environment() {
  for (char** entry = environ; *entry; ++entry) {
    std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (!text.starts_with("PONDER_") || equals == text.npos) continue;
    NodePtr node = parse_value(text.substr(equals + 1));
    node->where = text;
    node->source = fmt::format("env {}", text.substr(0, equals));
    node->rank = kEnvironmentRank;
    node->typed = true;
    if (!is_utf8(text)) throw_error(Exit::usage, "{}: not valid UTF-8", text.substr(0, equals));
    impl_->environment.emplace_back(text.substr(7, equals - 7), node);
  }
  std::sort(impl_->environment.begin(), impl_->environment.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

void Recipe::set(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == assignment.npos || equals == 0)
    throw_error(Exit::usage, "--set {}: expected field=value, for example --set learning_rate=1e-4", assignment);
  if (!is_utf8(assignment)) throw_error(Exit::usage, "--set: not valid UTF-8");
  const auto trim = [](std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
  };
  NodePtr node = parse_value(trim(assignment.substr(equals + 1)));
  node->where = fmt::format("--set {}", assignment);
  node->source = "--set";
  node->rank = kSetRank + static_cast<int>(impl_->overrides.size());
  node->typed = true;
  impl_->overrides.push_back({std::string(trim(assignment.substr(0, equals))), node});
}

std::optional<std::string> Recipe::peek(std::string_view path) const {
  NodePtr found = impl_->root;
  for (const std::string& part : split(path)) {
    const NodePtr* next = found->find(part);
    found = next ? *next : nullptr;
    if (!found) break;
  }
  if (found) impl_->shared->peeked.insert(found);
  for (const Override& set : impl_->overrides) {
    if (set.key != path) continue;
    found = set.node;
    impl_->shared->peeked.insert(found);
  }
  if (!found || found->kind == Node::Kind::table || found->kind == Node::Kind::none) return std::nullopt;
  return plain_text(*found);
}

std::vector<Recipe> Recipe::stages() const {
  std::vector<Recipe> stages;
  const auto add = [&](NodePtr root, std::vector<Override> overrides) {
    auto impl = std::make_unique<Impl>();
    impl->root = std::move(root);
    impl->overrides = std::move(overrides);
    impl->environment = impl_->environment;
    impl->shared = impl_->shared;
    impl->is_stage = true;
    stages.push_back(Recipe(std::move(impl)));
  };
  const NodePtr* list = impl_->root->find("stage");
  impl_->shared->unbound_stages = 1;
  if (!list) {
    add(impl_->root, impl_->overrides);
    return stages;
  }
  if (!(*list)->is_list_of_tables())
    throw_error((*list)->exit(), "{}: `stage` is a list of tables: write [[stage]]", (*list)->where);
  const std::vector<NodePtr>& tables = (*list)->items;
  std::vector<std::string> names;
  for (const NodePtr& table : tables) {
    const NodePtr* name = table->find("name");
    names.push_back(name ? plain_text(**name) : fmt::format("{}", names.size()));
    if (std::count(names.begin(), names.end(), names.back()) > 1)
      throw_error(Exit::data, "{}: a second stage with the name `{}`", table->where, names.back());
  }
  std::vector<std::vector<Override>> overrides(tables.size());
  for (const Override& set : impl_->overrides) {
    const Path parts = split(set.key);
    bool placed = false;
    for (size_t i = 0; i < tables.size(); ++i) {
      const bool own = parts[0] == "stage" && parts.size() > 2;
      if (own && parts[1] != names[i] && parts[1] != fmt::format("{}", i)) continue;
      overrides[i].push_back({own ? join(parts, 2) : set.key, set.node});
      placed = true;
    }
    if (!placed) throw_error(Exit::usage, "{}: no such stage; there are {}", set.node->where, fmt::join(names, ", "));
  }
  const NodePtr top = without(impl_->root, "stage");
  for (size_t i = 0; i < tables.size(); ++i) {
    add(merge(top, with_rank(tables[i], kStageRank)), std::move(overrides[i]));
    stages.back().peek("name");
  }
  impl_->shared->unbound_stages = static_cast<int>(tables.size());
  return stages;
}

Origins Recipe::bind_tree(Binder::Tree& tree) {
  Impl& impl = *impl_;
  impl.sources.clear();
  impl.bind(tree, impl.root, impl.overrides, true);
  if (impl.is_stage && !impl.bound && --impl.shared->unbound_stages == 0)
    for (const auto& [node, problem] : impl.shared->unknown)
      if (!impl.shared->used.count(node) && !impl.shared->peeked.count(node))
        throw_error(node->exit(), "{}: {}", node->where, problem);
  impl.bound = true;

  Origins origins;
  const auto snapshot = [&](const auto& self, const Section& section, const std::string& prefix) -> void {
    const auto source = [&](const std::string& path) {
      const auto at = impl.sources.find(path);
      return at == impl.sources.end() ? std::string("default") : at->second;
    };
    for (const Field& field : section.fields) {
      const std::string path = prefix + field.path;
      origins[path] = {source(path), value_of(field)};
    }
    for (const auto& child : section.sections) self(self, *child, prefix);
    for (const List& list : section.lists) {
      const size_t size = list.calls.size(list.list);
      origins[prefix + list.path] = {source(prefix + list.path), fmt::format("{}", size)};
      for (size_t i = 0; i < size; ++i) {
        Binder binder;
        list.calls.visit(list.list, i, binder);
        self(self, binder.tree().root, fmt::format("{}{}.{}.", prefix, list.path, i));
      }
    }
  };
  snapshot(snapshot, tree.root, "");
  return origins;
}

const std::vector<std::string>& Recipe::notes() const { return impl_->shared->notes; }
const std::vector<std::string>& Recipe::files() const { return impl_->shared->files; }

// --- Printing --------------------------------------------------------------------------------------------------------

namespace {

struct Printer {
  std::string out;
  const Origins* origins;

  struct Line {
    std::string text, origin;
  };

  std::string origin(const std::string& path, const std::string& value) const {
    if (!origins) return "";
    const auto at = origins->find(path);
    if (at == origins->end() || at->second.value != value) return "derived";
    return at->second.source;
  }

  // `header`: what stands in brackets; `prefix`: the path of the tree in the document; `element`: its path in origins.
  void section(const Section& section, const std::string& header, const std::string& prefix, const std::string& element,
               bool force_header) {
    std::vector<Line> lines;
    for (const Field& field : section.fields) {
      const std::string value = value_of(field);
      lines.push_back({fmt::format("{} = {}", field.name, value), origin(element + field.path, value)});
    }
    for (const List& list : section.lists)
      if (list.calls.size(list.list) == 0)
        lines.push_back({fmt::format("{} = []", list.name), origin(element + list.path, "0")});
    if (!header.empty() && (!lines.empty() || force_header))
      out += fmt::format("{}{}\n", out.empty() ? "" : "\n", header);
    size_t width = 0;
    for (const Line& line : lines)
      if (line.text.size() <= 44) width = std::max(width, line.text.size());
    for (const Line& line : lines) {
      if (line.origin.empty())
        out += line.text + "\n";
      else
        out += fmt::format("{:<{}}  # {}\n", line.text, width, line.origin);
    }
    for (const auto& child : section.sections)
      this->section(*child, fmt::format("[{}{}]", prefix, child->path), prefix, element, false);
    for (const List& list : section.lists)
      for (size_t i = 0; i < list.calls.size(list.list); ++i) {
        Binder binder;
        list.calls.visit(list.list, i, binder);
        this->section(binder.tree().root, fmt::format("[[{}{}]]", prefix, list.path),
                      fmt::format("{}{}.", prefix, list.path), fmt::format("{}{}.{}.", element, list.path, i), true);
      }
  }
};

template <class F>
void visit_all(const Section& section, const std::string& prefix, F&& f) {
  for (const Field& field : section.fields) f(prefix + field.path, field);
  for (const auto& child : section.sections) visit_all(*child, prefix, f);
  for (const List& list : section.lists)
    for (size_t i = 0; i < list.calls.size(list.list); ++i) {
      Binder binder;
      list.calls.visit(list.list, i, binder);
      visit_all(binder.tree().root, fmt::format("{}{}.{}.", prefix, list.path, i), f);
    }
}

void describe(const Section& section, const std::string& prefix, std::vector<FieldHelp>& rows) {
  for (const Field& field : section.fields)
    rows.push_back({prefix + field.path, type_of(field), value_of(field), field.help, field.synonyms, field.choices,
                    range_of(field)});
  for (const auto& child : section.sections) describe(*child, prefix, rows);
  for (const List& list : section.lists) {
    Binder binder;
    list.calls.describe(binder);
    describe(binder.tree().root, fmt::format("{}{}[].", prefix, list.path), rows);
  }
}

}  // namespace

std::string resolved_toml(Binder& binder, const Origins* origins) {
  Printer printer{"", origins};
  printer.section(binder.tree().root, "", "", "", false);
  return printer.out;
}

std::vector<FieldHelp> field_help(Binder& binder) {
  std::vector<FieldHelp> rows;
  describe(binder.tree().root, "", rows);
  return rows;
}

std::vector<FlatValue> flat_values(Binder& binder) {
  std::vector<FlatValue> values;
  visit_all(binder.tree().root, "", [&](const std::string& path, const Field& field) {
    values.push_back({path, value_of(field), field.identity});
  });
  return values;
}

std::vector<FlatValue> flat_values_of_toml(std::string_view text, const std::string& name) {
  std::vector<FlatValue> values;
  const auto flatten = [&](const auto& self, const Node& node, const std::string& path) -> void {
    const std::string prefix = path.empty() ? "" : path + ".";
    if (node.kind == Node::Kind::table) {
      for (const auto& [key, entry] : node.entries) self(self, *entry, prefix + key);
    } else if (node.is_list_of_tables()) {
      for (size_t i = 0; i < node.items.size(); ++i) self(self, *node.items[i], fmt::format("{}{}", prefix, i));
    } else {
      values.push_back({path, to_toml(node), true});
    }
  };
  flatten(flatten, *parse_document(text, name, 0), "");
  return values;
}

std::string config_hash(const std::vector<FlatValue>& values) {
  std::string text;
  for (const FlatValue& value : values)
    if (value.identity) text += fmt::format("{} = {}\n", value.path, value.value);
  return hash_bytes(text);
}

std::vector<std::string> config_diff(const std::vector<FlatValue>& before, const std::vector<FlatValue>& after) {
  struct Sides {
    std::string before = "(absent)", after = "(absent)";
    bool identity = true;
  };
  std::map<std::string, Sides> sides;
  for (const FlatValue& value : before) {
    sides[value.path].before = value.value;
    sides[value.path].identity &= value.identity;
  }
  for (const FlatValue& value : after) {
    sides[value.path].after = value.value;
    sides[value.path].identity &= value.identity;
  }
  std::vector<std::string> lines;
  for (const auto& [path, side] : sides) {
    const bool empty_list =
        (side.before == "[]" && side.after == "(absent)") || (side.after == "[]" && side.before == "(absent)");
    if (side.identity && side.before != side.after && !empty_list)
      lines.push_back(fmt::format("{}: {} -> {}", path, side.before, side.after));
  }
  return lines;
}

std::string format_help(const std::vector<FieldHelp>& rows) {
  std::string out;
  for (const FieldHelp& row : rows) {
    out += fmt::format("{} = {}\n    {}", row.path, row.value, row.help);
    out += fmt::format("{}[{}", row.help.empty() ? "" : "  ",
                       row.choices.empty() ? row.type : fmt::format("{}", fmt::join(row.choices, ", ")));
    if (!row.range.empty()) out += fmt::format(", {}", row.range);
    out += "]";
    if (!row.synonyms.empty()) out += fmt::format("  also: {}", fmt::join(row.synonyms, ", "));
    out += "\n";
  }
  return out;
}

}  // namespace ponder
