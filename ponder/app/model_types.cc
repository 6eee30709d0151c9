#include "ponder/app/model_types.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ponder/base/log.h"

namespace ponder::app {

std::string type_name(BlockType type) { return block_spec(type).name; }

std::map<std::string, TypeCount> count_types(const model::WeightSource& source) {
  std::map<std::string, TypeCount> types;
  for (const std::string& name : source.names()) {
    const model::StoredTensor t = source.find(name);
    TypeCount& count = types[type_name(t.matrix.type)];
    ++count.tensors;
    count.bytes += (t.shape.size() > 1 ? t.shape[0] : 1) * block_row_bytes(t.matrix.type, t.matrix.cols);
  }
  return types;
}

std::vector<TypeChange> type_changes(const model::WeightSource& source, const model::WeightSource& made) {
  std::map<std::pair<std::string, std::string>, int64_t> counts;
  for (const std::string& name : made.names()) {
    const model::StoredTensor before = source.find(name), after = made.find(name);
    ++counts[{before.matrix.data ? type_name(before.matrix.type) : "", type_name(after.matrix.type)}];
  }
  std::vector<TypeChange> changes;
  for (const auto& [types, tensors] : counts) changes.push_back({types.first, types.second, tensors});
  return changes;
}

std::string type_changes_text(const std::vector<TypeChange>& changes) {
  std::vector<std::string> parts;
  for (const TypeChange& c : changes) {
    const std::string n = format_grouped(c.tensors);
    if (c.from == c.to)
      parts.push_back(fmt::format("{} {} as {}", n, c.to, c.tensors == 1 ? "it was" : "they were"));
    else
      parts.push_back(c.from.empty() ? fmt::format("{} {} that the source has not", n, c.to)
                                     : fmt::format("{} {} to {}", n, c.from, c.to));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace ponder::app
