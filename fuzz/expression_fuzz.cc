// Any text as an arithmetic expression: a value or an error with a place in the text, never an exception.
#include <array>
#include <string_view>

#include "ponder/tasks/puzzle/expression.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder::tasks;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto e = puzzle::evaluate_expression(text);
  if (e.value.has_value() != e.error.empty() || e.position > size) __builtin_trap();
  if (e.value && (!e.well_formed || e.value->q <= 0)) __builtin_trap();
  const std::array<int64_t, 4> numbers = {8, 8, 3, 3};
  const Grade g = puzzle::grade_expression(text, numbers, 24);
  if (g.reason.empty()) __builtin_trap();
  return 0;
}
