// Filters that make and change numbers, with Python's rules for reading and rounding them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "ponder/text/jinja/filters.h"
#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

// Python's float(text).
std::optional<double> parse_real(std::string_view text) {
  std::string s(strip(text, Side::both));
  for (size_t i = 0; i < s.size(); ++i)
    if (s[i] == '_' && (i == 0 || i + 1 == s.size() || !is_digit(static_cast<unsigned char>(s[i - 1])) ||
                        !is_digit(static_cast<unsigned char>(s[i + 1]))))
      return std::nullopt;
  std::erase(s, '_');
  if (s.empty() || s.size() > 1000 || s.find_first_of("xX(pP") != s.npos) return std::nullopt;
  char* end = nullptr;
  const double d = std::strtod(s.c_str(), &end);
  return end == s.c_str() + s.size() ? std::optional(d) : std::nullopt;
}

// Python's int(text, base).
std::optional<int64_t> parse_integer(std::string_view text, int base) {
  std::string s(strip(text, Side::both));
  const bool negative = s.starts_with('-');
  if (negative || s.starts_with('+')) s.erase(0, 1);
  const char mark = s.size() > 2 && s[0] == '0' ? static_cast<char>(s[1] | 32) : ' ';
  const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  if (marked != 0 && (base == marked || base == 0)) {
    base = marked;
    s.erase(0, 2);
    if (s.starts_with('_')) s.erase(0, 1);
  } else if (base == 0) {
    if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0_") != s.npos) return std::nullopt;
    base = 10;
  }
  if (s.empty() || s.front() == '_' || s.back() == '_' || s.find("__") != s.npos || s[0] == '-') return std::nullopt;
  std::erase(s, '_');
  if (negative) s.insert(s.begin(), '-');
  int64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (end != s.data() + s.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range)
    fail("{} is beyond 64 bits; Python has larger integers, this does not", text.substr(0, 40));
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

Value truncated_integer(double d) {
  if (!(std::fabs(d) < 9223372036854775808.0))
    fail("a number beyond 64 bits; Python has larger integers, this does not");
  return Value::integer(static_cast<int64_t>(d));
}

Value to_integer(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "int", {"default", "base"}, 0);
  const Value otherwise = b[0] ? *b[0] : Value::integer(0);
  if (subject.is_undefined()) fail("{}", subject.text());
  if (subject.is_integral()) return Value::integer(subject.as_integer());
  if (subject.is(Value::Kind::big_integer)) return subject;
  if (subject.is(Value::Kind::real))
    return std::isnan(subject.as_real()) ? otherwise : truncated_integer(subject.as_real());
  if (!subject.is_string()) return otherwise;
  const int64_t base = b.integer(1, 10);
  if (base != 0 && (base < 2 || base > 36)) return otherwise;
  if (const auto i = parse_integer(subject.text(), static_cast<int>(base))) return Value::integer(*i);
  const auto d = parse_real(subject.text());
  return d && std::isfinite(*d) ? truncated_integer(*d) : otherwise;
}

Value to_real(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "float", {"default"}, 0);
  if (subject.is_undefined()) fail("{}", subject.text());
  if (subject.is_number()) return Value::real(subject.as_real());
  const bool text = subject.is_string() || subject.is(Value::Kind::big_integer);
  if (const auto d = text ? parse_real(subject.text()) : std::nullopt) return Value::real(*d);
  return b[0] ? *b[0] : Value::real(0);
}

Value absolute(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "abs", {}, 0);
  if (!subject.is_number()) fail("abs is for numbers, not for {}", described(subject));
  if (!subject.is_integral()) return Value::real(std::fabs(subject.as_real()));
  if (subject.as_integer() == std::numeric_limits<int64_t>::min()) fail("abs: beyond 64 bits");
  return Value::integer(std::abs(subject.as_integer()));
}

Value rounded(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "round", {"precision", "method"}, 0);
  const std::string method = b[1] ? b.string(1) : "common";
  if (!subject.is_number()) fail("round is for numbers, not for {}", described(subject));
  const int64_t precision = std::clamp<int64_t>(b.integer(0, 0), -400, 400);
  const double x = subject.as_real();
  if (method == "common") {
    if (subject.is_integral() && precision >= 0) return Value::integer(subject.as_integer());
    // Half to even on the exact value, as Python rounds.
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    const double result = !std::isfinite(x)   ? x
                          : precision >= 0    ? std::strtod(fmt::format("{:.{}f}", x, precision).c_str(), nullptr)
                          : std::isinf(scale) ? 0.0
                                              : std::nearbyint(x / scale) * scale;
    return subject.is_integral() ? truncated_integer(result) : Value::real(result);
  }
  if (method != "ceil" && method != "floor") fail("round: the method is common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = x * scale;
  if (!std::isfinite(scaled)) fail("round: the number is too large");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

}  // namespace

const FilterTable& number_filters() {
  static const FilterTable all = {{"abs", absolute}, {"float", to_real}, {"int", to_integer}, {"round", rounded}};
  return all;
}

}  // namespace ponder::text::jinja
