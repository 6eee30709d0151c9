// Arithmetic expressions over whole numbers, exactly.
//
// + - * / and brackets of any shape, no sign in front of a number or bracket. Also read: the characters × ÷ −. Values
// are rationals in 64 bits; what does not fit is an error, never a wrong value. Linear in the text, no recursion, and
// no exception for any bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/tasks/task.h"

namespace ponder::tasks::puzzle {

// p / q in lowest terms, q > 0.
struct Rational {
  int64_t p = 0, q = 1;
  bool operator==(const Rational&) const = default;
};
// x op y; nothing for a division by zero or a value that does not fit.
std::optional<Rational> apply(Rational x, char op, Rational y);
// -1, 0, 1
int compare(Rational x, Rational y);
std::string to_string(Rational x);  // "24", "8/3"

struct Expression {
  std::optional<Rational> value;
  std::vector<int64_t> numbers;  // as they stand, from left to right
  std::string error;             // where there is no value
  size_t position = 0;           // of the error, in bytes
  bool well_formed = false;      // an error of well-formed text is in its value: a division by zero, an overflow
};
Expression evaluate_expression(std::string_view text);

// Whether `text` makes `target` from exactly the given numbers, each used once, in any shape. "6 * 4 = 24" is read too,
// if what stands after the = is the target. The reward "countdown", and the answer's part of game24. Sets verdict,
// reason, answer and diagnostics.malformed.
Grade grade_expression(std::string_view text, std::span<const int64_t> numbers, int64_t target);

}  // namespace ponder::tasks::puzzle
