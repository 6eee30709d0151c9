#include <cmath>

#include "ponder/base/config_parts.h"

namespace ponder::config {

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

namespace {

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
    if (!std::isfinite(x)) fail("{} is not finite", toml_number(x));
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

void assign(const Field& field, const Node& node) { Setter(field, node).run(); }

}  // namespace ponder::config

namespace ponder {

using namespace config;

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

}  // namespace ponder
