#include "ponder/tasks/puzzle/expression.h"

#include <gtest/gtest.h>

#include "ponder/base/rng.h"

namespace ponder::tasks::puzzle {
namespace {

TEST(Expression, Values) {
  const struct {
    const char *text, *value;  // "" is an error
    size_t position;
  } cases[] = {
      {"8/(3-8/3)", "24", 0},
      {"1+2*3", "7", 0},
      {"(1+2)*3", "9", 0},
      {"10-4-3", "3", 0},
      {"24/4/3", "2", 0},
      {"1/2/3", "1/6", 0},
      {"3-7", "-4", 0},
      {"((((7))))", "7", 0},
      {" 6 \xC3\x97 4 \xC3\xB7 2 \xE2\x88\x92 1\n", "11", 0},
      {"007", "7", 0},
      {"0*5", "0", 0},
      {"", "", 0},
      {"  ", "", 2},
      {"1+", "", 2},
      {"-1", "", 0},
      {"1 2", "", 2},
      {"2(3)", "", 1},
      {"()", "", 1},
      {"(1", "", 2},
      {"1)", "", 1},
      {"1+*2", "", 2},
      {"1.5", "", 1},
      {"x", "", 0},
      {"1\xFF", "", 1},
      {"5/(3-3)", "", 7},
      {"9223372036854775808", "", 0},
      {"9223372036854775807+1", "", 21},
      {"9223372036854775807*3/3", "", 21},
  };
  for (const auto& c : cases) {
    const Expression e = evaluate_expression(c.text);
    EXPECT_EQ(e.value ? to_string(*e.value) : "", c.value) << c.text << ": " << e.error;
    EXPECT_EQ(e.error.empty(), e.value.has_value()) << c.text;
    EXPECT_EQ(e.position, c.position) << c.text << ": " << e.error;
  }
}

TEST(Expression, IsBounded) {
  const std::string deep = std::string(2000, '(') + "1" + std::string(2000, ')');
  EXPECT_NE(evaluate_expression(deep).error.find("nested"), std::string::npos);
  EXPECT_NE(evaluate_expression(std::string(5000, '1')).error.find("longer"), std::string::npos);
  std::string many = "1";
  for (int i = 0; i < 100; ++i) many += "+1";
  EXPECT_NE(evaluate_expression(many).error.find("numbers"), std::string::npos);
}

TEST(Expression, GradesAnyShape) {
  const struct {
    const char* text;
    std::vector<int64_t> numbers;
    int64_t target;
    bool right, malformed;
  } cases[] = {
      {"8/(3-8/3)", {3, 3, 8, 8}, 24, true, false},
      {"(1+2)/3 = 1", {1, 2, 3}, 1, true, false},
      {"6*4=24", {4, 6}, 24, true, false},
      {"6*4=25", {4, 6}, 24, false, false},
      {"6*4=", {4, 6}, 24, false, false},
      {"6*4=24=24", {4, 6}, 24, false, false},
      {"6*4*1", {4, 6}, 24, false, false},
      {"6*4", {4, 6, 1}, 24, false, false},
      {"24", {4, 6}, 24, false, false},
      {"6-", {4, 6}, 24, false, true},
      {"6/(4-4)", {4, 4, 6}, 24, false, false},
  };
  for (const auto& c : cases) {
    const Grade g = grade_expression(c.text, c.numbers, c.target);
    EXPECT_EQ(g.right(), c.right) << c.text << ": " << g.reason;
    EXPECT_EQ(g.diagnostics.malformed, c.malformed) << c.text;
    EXPECT_FALSE(g.reason.empty());
  }
}

TEST(Expression, AnyBytesAnyOrder) {
  const std::string alphabet = "0123456789()+-*/ =\xC3\x97\xE2\x88\x92x";
  for (uint64_t i = 0; i < 100'000; ++i) {
    CounterRng rng(1, Stream::test, i);
    std::string text(rng.below(24), ' ');
    for (char& c : text) c = rng.below(30) ? alphabet[rng.below(alphabet.size())] : static_cast<char>(rng.next_u32());
    const Expression e = evaluate_expression(text);
    ASSERT_EQ(e.error.empty(), e.value.has_value()) << text;
    ASSERT_LE(e.position, text.size());
    if (e.value) {
      // The value of an expression in brackets is the value of the expression.
      ASSERT_EQ(evaluate_expression("(" + text + ")").value, e.value) << text;
      ASSERT_GT(e.value->q, 0);
    }
  }
}

TEST(Rational, Exact) {
  EXPECT_EQ(apply({1, 3}, '+', {1, 6}), (Rational{1, 2}));
  EXPECT_EQ(apply({1, 2}, '/', {-3, 4}), (Rational{-2, 3}));
  EXPECT_EQ(apply({1, 2}, '/', {0, 1}), std::nullopt);
  EXPECT_EQ(apply({INT64_MIN, 1}, '*', {1, 1}), std::nullopt);
  EXPECT_LT(compare({1, 3}, {1, 2}), 0);
  EXPECT_EQ(compare({INT64_MAX, 2}, {INT64_MAX, 2}), 0);
}

}  // namespace
}  // namespace ponder::tasks::puzzle
