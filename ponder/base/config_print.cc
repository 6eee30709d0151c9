#include <cmath>

#include "ponder/base/config_parts.h"
#include "ponder/base/hash.h"

namespace ponder {

using namespace config;

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
    list.calls.describe(
        [&](Binder& binder) { describe(binder.tree().root, fmt::format("{}{}[].", prefix, list.path), rows); });
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
