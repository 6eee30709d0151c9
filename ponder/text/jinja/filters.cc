// Finding a filter by its name.
#include "ponder/text/jinja/filters.h"

#include <fmt/ranges.h>

#include <array>
#include <set>

namespace ponder::text::jinja {
namespace {

std::array<const FilterTable*, 3> tables() { return {&text_filters(), &number_filters(), &list_filters()}; }

}  // namespace

Filter find_filter(std::string_view name) {
  for (const FilterTable* table : tables())
    if (const auto at = table->find(name); at != table->end()) return at->second;
  return nullptr;
}

std::string filter_names() {
  std::set<std::string_view> names;
  for (const FilterTable* table : tables())
    for (const auto& [name, f] : *table) names.insert(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace ponder::text::jinja
