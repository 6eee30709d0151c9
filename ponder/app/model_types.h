// How many tensors of which types a model has, and what a conversion has made of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ponder/model/source.h"

namespace ponder::app {

struct TypeCount {
  int64_t tensors = 0, bytes = 0;
};
std::map<std::string, TypeCount> count_types(const model::WeightSource& source);  // by name: "Q8_0"
std::string type_name(BlockType type);

// So many tensors of `made` have the type `to`, and had `from` in the source ("": it has none of that name).
struct TypeChange {
  std::string from, to;
  int64_t tensors = 0;
};
std::vector<TypeChange> type_changes(const model::WeightSource& source, const model::WeightSource& made);
// "14 BF16 to Q8_0, 5 F32 as they were"
std::string type_changes_text(const std::vector<TypeChange>& changes);

}  // namespace ponder::app
