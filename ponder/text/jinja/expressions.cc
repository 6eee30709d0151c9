// How the interpreter evaluates expressions.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

constexpr std::string_view kTooLarge = "is beyond 64 bits; Python has larger integers, this does not";

[[noreturn]] void too_large(std::string_view what) { fail("the {} {}", what, kTooLarge); }

bool is_big(const Value& v) { return v.is(Value::Kind::big_integer); }

int64_t checked_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) too_large("power");
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) too_large("power");
  }
  return result;
}

Value floor_divide(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    const int64_t x = a.as_integer(), y = b.as_integer();
    if (y == 0) fail("division by zero");
    if (x == std::numeric_limits<int64_t>::min() && y == -1) too_large("quotient");
    return Value::integer(x / y - (x % y != 0 && (x < 0) != (y < 0)));
  }
  const double x = a.as_real(), y = b.as_real();
  if (y == 0) fail("division by zero");
  const double remainder = std::fmod(x, y);
  double quotient = (x - remainder) / y;
  if (remainder != 0 && (remainder < 0) != (y < 0)) quotient -= 1;
  if (quotient == 0) return Value::real(std::copysign(0.0, x / y));
  double floor = std::floor(quotient);
  if (quotient - floor > 0.5) floor += 1;
  return Value::real(floor);
}

Value modulo(const Value& a, const Value& b) {  // the sign of the divisor, as in Python
  if (a.is_integral() && b.is_integral()) {
    const int64_t x = a.as_integer(), y = b.as_integer();
    if (y == 0) fail("modulo by zero");
    if (y == -1) return Value::integer(0);
    const int64_t r = x % y;
    return Value::integer(r != 0 && (r < 0) != (y < 0) ? r + y : r);
  }
  const double y = b.as_real();
  if (y == 0) fail("modulo by zero");
  const double r = std::fmod(a.as_real(), y);
  if (r == 0) return Value::real(std::copysign(0.0, y));
  return Value::real((r < 0) != (y < 0) ? r + y : r);
}

}  // namespace

Value Interpreter::make_string(std::string s) {
  meter.string(s.size());
  return Value::string(std::move(s));
}

Value Interpreter::make_list(Value::Items items) {
  meter.work(items.size());
  return Value::list(std::move(items));
}

std::string Interpreter::text(const Value& v) {
  if (v.is_string()) meter.string(v.text().size());
  return to_text(v, meter);
}

Value::Items Interpreter::iterate(const Value& v) {
  Value::Items out;
  switch (v.kind()) {
    case Value::Kind::undefined: break;
    case Value::Kind::list:
    case Value::Kind::tuple: out = v.items(); break;
    case Value::Kind::dict:
      out.reserve(v.members().size());
      for (const auto& [key, value] : v.members()) out.push_back(key);
      break;
    case Value::Kind::string:
      meter.work(v.text().size());
      for (const std::string_view c : code_points(v.text())) out.push_back(Value::string(std::string(c)));
      break;
    case Value::Kind::iterator: {
      const auto& it = v.as_iterator();
      out.assign(it.items.begin() + static_cast<std::ptrdiff_t>(it.next), it.items.end());
      if (it.once) it.next = it.items.size();
      break;
    }
    default: fail("{} cannot be iterated over", described(v));
  }
  meter.work(out.size());
  return out;
}

Value Interpreter::eval(const Expr& e) {
  meter.work();
  at_ = e.at;
  switch (e.kind) {
    case Expr::Kind::literal: return e.value;
    case Expr::Kind::name: return eval_name(e);
    case Expr::Kind::list:
    case Expr::Kind::tuple: return eval_sequence(e);
    case Expr::Kind::dict: return eval_dict(e);
    case Expr::Kind::unary: return eval_unary(e);
    case Expr::Kind::binary: return eval_binary(e);
    case Expr::Kind::compare: return eval_compare(e);
    case Expr::Kind::concat: return eval_concat(e);
    case Expr::Kind::both: {
      Value v = eval(*e.children[0]);
      return v.truth() ? eval(*e.children[1]) : v;
    }
    case Expr::Kind::either: {
      Value v = eval(*e.children[0]);
      return v.truth() ? v : eval(*e.children[1]);
    }
    case Expr::Kind::negation: return Value::boolean(!eval(*e.children[0]).truth());
    case Expr::Kind::conditional:
      if (eval(*e.children[1]).truth()) return eval(*e.children[0]);
      if (e.children[2]) return eval(*e.children[2]);
      return Value::undefined("the inline if-expression evaluated to false and has no else");
    case Expr::Kind::attribute: {
      const Value object = eval(*e.children[0]);
      at_ = e.at;
      return get_attribute(object, e.name);
    }
    case Expr::Kind::item: {
      const Value object = eval(*e.children[0]);
      const Value key = eval(*e.children[1]);
      at_ = e.at;
      return get_item(object, key);
    }
    case Expr::Kind::slice: return eval_slice(e);
    case Expr::Kind::call: return eval_call(e);
    case Expr::Kind::filter: return eval_filter(e);
    case Expr::Kind::test: return Value::boolean(eval_test(e));
  }
  return {};
}

Value Interpreter::eval_name(const Expr& e) {
  if (const Value* v = find_name(e.name)) return *v;
  if (const Value* v = variables_.find(e.name)) return *v;
  if (const auto f = find_function(e.name)) return Value::object(std::make_shared<Function>(e.name, f));
  return Value::undefined(fmt::format("{} is undefined", quoted(e.name)));
}

Value Interpreter::eval_sequence(const Expr& e) {
  Value::Items items;
  items.reserve(e.children.size());
  for (const auto& child : e.children) items.push_back(eval(*child));
  at_ = e.at;
  return e.kind == Expr::Kind::list ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

Value Interpreter::eval_dict(const Expr& e) {
  Value::Members members;
  for (size_t i = 0; i < e.children.size(); i += 2) {
    Value key = eval(*e.children[i]);
    members.emplace_back(std::move(key), eval(*e.children[i + 1]));
  }
  at_ = e.at;
  return Value::dict(std::move(members));
}

Value Interpreter::eval_unary(const Expr& e) {
  const Value v = eval(*e.children[0]);
  at_ = e.at;
  if (v.is_undefined()) fail("{}", v.text());
  if (is_big(v)) too_large("integer");
  if (!v.is_number()) fail("{} has no sign", described(v));
  if (e.op == Op::plus) return v.is_integral() ? Value::integer(v.as_integer()) : v;
  if (!v.is_integral()) return Value::real(-v.as_real());
  int64_t negative = 0;
  if (__builtin_sub_overflow(int64_t{0}, v.as_integer(), &negative)) too_large("integer");
  return Value::integer(negative);
}

Value Interpreter::eval_binary(const Expr& e) {
  const Value a = eval(*e.children[0]);
  const Value b = eval(*e.children[1]);
  at_ = e.at;
  return e.op == Op::add ? add(a, b) : arithmetic(e.op, a, b);
}

Value Interpreter::add(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    meter.string(a.text().size() + b.text().size());
    return Value::string(a.text() + b.text());
  }
  if (a.is_integral() && b.is_integral()) {
    int64_t sum = 0;
    if (__builtin_add_overflow(a.as_integer(), b.as_integer(), &sum)) too_large("sum");
    return Value::integer(sum);
  }
  if (a.is_number() && b.is_number()) return Value::real(a.as_real() + b.as_real());
  if (a.is_sequence() && a.kind() == b.kind()) {
    meter.work(a.items().size() + b.items().size());
    Value::Items items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.is(Value::Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
  }
  if (a.is_undefined()) fail("{}", a.text());
  if (b.is_undefined()) fail("{}", b.text());
  if (is_big(a) || is_big(b)) too_large("integer");
  fail("{} and {} cannot be added; `~` joins anything as text", described(a), described(b));
}

Value Interpreter::multiply(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    int64_t product = 0;
    if (__builtin_mul_overflow(a.as_integer(), b.as_integer(), &product)) too_large("product");
    return Value::integer(product);
  }
  if (a.is_number() && b.is_number()) return Value::real(a.as_real() * b.as_real());
  if (a.is_integral()) return multiply(b, a);
  if (!b.is_integral() || !(a.is_string() || a.is_sequence()))
    fail("{} and {} cannot be multiplied", described(a), described(b));
  const auto times = static_cast<uint64_t>(std::max<int64_t>(0, b.as_integer()));
  if (a.is_string()) {
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(times, a.text().size(), &bytes)) bytes = std::numeric_limits<uint64_t>::max();
    meter.string(bytes);
    if (bytes == 0) return Value::string("");
    std::string text;
    text.reserve(bytes);
    for (uint64_t i = 0; i < times; ++i) text += a.text();
    return Value::string(std::move(text));
  }
  uint64_t n = 0;
  if (__builtin_mul_overflow(times, a.items().size(), &n)) n = std::numeric_limits<uint64_t>::max();
  meter.work(n);
  Value::Items items;
  if (n > 0)
    for (uint64_t i = 0; i < times; ++i) items.insert(items.end(), a.items().begin(), a.items().end());
  return a.is(Value::Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

Value Interpreter::arithmetic(Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) fail("{}", a.text());
  if (op == Op::modulo && a.is_string()) return make_string(format_percent(a.text(), b, meter));
  if (b.is_undefined()) fail("{}", b.text());
  if (is_big(a) || is_big(b)) too_large("integer");
  if (op == Op::multiply) return multiply(a, b);
  if (!a.is_number() || !b.is_number()) fail("{} and {} cannot be computed with", described(a), described(b));
  const bool integral = a.is_integral() && b.is_integral();
  switch (op) {
    case Op::subtract: {
      if (!integral) return Value::real(a.as_real() - b.as_real());
      int64_t difference = 0;
      if (__builtin_sub_overflow(a.as_integer(), b.as_integer(), &difference)) too_large("difference");
      return Value::integer(difference);
    }
    case Op::divide:
      if (b.as_real() == 0) fail("division by zero");
      return Value::real(a.as_real() / b.as_real());
    case Op::floor_divide: return floor_divide(a, b);
    case Op::modulo: return modulo(a, b);
    default: break;
  }
  if (integral && b.as_integer() >= 0) return Value::integer(checked_power(a.as_integer(), b.as_integer()));
  if (a.as_real() == 0 && b.as_real() < 0) fail("zero to a negative power");
  const double power = std::pow(a.as_real(), b.as_real());
  if (std::isnan(power) && !unordered(a, b)) fail("a negative number to a broken power is not real");
  if (std::isinf(power) && std::isfinite(a.as_real()) && std::isfinite(b.as_real())) fail("the power is too large");
  return Value::real(power);
}

Value Interpreter::eval_compare(const Expr& e) {
  Value left = eval(*e.children[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = eval(*e.children[i + 1]);
    at_ = e.at;
    if (!compare_by(e.ops[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

bool Interpreter::compare_by(Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::equal: return equal(a, b, meter);
    case Op::not_equal: return !equal(a, b, meter);
    case Op::in: return contains(b, a);
    case Op::not_in: return !contains(b, a);
    default: break;
  }
  const int order = compare(a, b, meter);
  if (unordered(a, b)) return false;
  switch (op) {
    case Op::less: return order < 0;
    case Op::less_equal: return order <= 0;
    case Op::greater: return order > 0;
    default: return order >= 0;
  }
}

bool Interpreter::contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Value::Kind::string:
      if (!item.is_string()) fail("`in` a string needs a string to look for, not {}", described(item));
      meter.work(container.text().size() / 32);
      return find_text(container.text(), item.text()) != std::string::npos;
    case Value::Kind::dict:
      if (item.is_undefined()) return false;
      check_hashable(item);
      return container.find(item) != nullptr;
    case Value::Kind::list:
    case Value::Kind::tuple:
      for (const Value& v : container.items())
        if (v.same(item) || equal(v, item, meter)) return true;
      return false;
    case Value::Kind::iterator:
    case Value::Kind::undefined:
      for (const Value& v : iterate(container))
        if (equal(v, item, meter)) return true;
      return false;
    default: fail("`in` needs a string, list or dict to look into, not {}", described(container));
  }
}

Value Interpreter::eval_concat(const Expr& e) {
  std::string joined;
  for (const auto& child : e.children) {
    const Value v = eval(*child);
    at_ = e.at;
    if (v.is_string()) {
      meter.string(joined.size() + v.text().size());
      joined += v.text();
    } else {
      joined += to_text(v, meter);
    }
  }
  return make_string(std::move(joined));
}

Value Interpreter::eval_slice(const Expr& e) {
  const Value object = eval(*e.children[0]);
  Value parts[3];
  for (int i = 0; i < 3; ++i)
    if (e.children[i + 1]) parts[i] = eval(*e.children[i + 1]);
  at_ = e.at;
  if (object.is_undefined()) fail("{}", object.text());
  for (const Value& p : parts)
    if (!p.is_none() && !p.is_integral()) fail("a slice is cut at integers, not at {}", described(p));
  if (!object.is_string() && !object.is_sequence() && !object.is(Value::Kind::iterator))
    return Value::undefined(fmt::format("{} has no slices", described(object)));

  const int64_t step = parts[2].is_none() ? 1 : parts[2].as_integer();
  if (step == 0) fail("the step of a slice is zero");
  std::vector<std::string_view> characters;
  Value::Items items;
  if (object.is_string()) {
    meter.work(object.text().size() / 8);
    characters = code_points(object.text());
  } else if (object.is_sequence()) {
    meter.work(object.items().size());
  } else {
    if (object.as_iterator().once) return Value::undefined("a generator has no slices");
    items = iterate(object);
  }
  const Value::Items& from = object.is_sequence() ? object.items() : items;
  const auto n = static_cast<int64_t>(object.is_string() ? characters.size() : from.size());
  // Python's rule: negative counts from the end, and both ends are moved into what there is.
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  const auto placed = [&](const Value& p, int64_t otherwise) {
    if (p.is_none()) return otherwise;
    const int64_t at = p.as_integer() < 0 ? p.as_integer() + n : p.as_integer();
    return std::clamp(at, low, std::max(low, high));
  };
  const int64_t start = placed(parts[0], step < 0 ? high : low), stop = placed(parts[1], step < 0 ? low : high);
  std::string text;
  Value::Items chosen;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (object.is_string())
      text += characters[static_cast<size_t>(i)];
    else
      chosen.push_back(from[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (object.is_string()) return make_string(std::move(text));
  return object.is(Value::Kind::tuple) ? Value::tuple(std::move(chosen)) : Value::list(std::move(chosen));
}

Arguments Interpreter::eval_arguments(const CallArguments& a) {
  Arguments out;
  out.positional.reserve(a.positional.size());
  for (const auto& e : a.positional) out.positional.push_back(eval(*e));
  for (const auto& [name, e] : a.named) out.named.emplace_back(name, eval(*e));
  if (a.list)
    for (Value& v : iterate(eval(*a.list))) out.positional.push_back(std::move(v));
  if (a.dict) {
    const Value more = eval(*a.dict);
    if (!more.is_dict()) fail("** needs a dict, not {}", described(more));
    meter.work(more.members().size() * (1 + out.named.size()));
    for (const auto& [key, value] : more.members()) {
      if (!key.is_string()) fail("** needs keys that are strings");
      for (const auto& [name, other] : a.named)
        if (name == key.text()) fail("the argument {} is given twice", quoted(name));
      out.named.emplace_back(key.text(), value);
    }
  }
  return out;
}

Value Interpreter::eval_call(const Expr& e) {
  const Value callee = eval(*e.children[0]);
  const Arguments args = eval_arguments(e.arguments);
  at_ = e.at;
  return call(callee, args);
}

Value Interpreter::eval_filter(const Expr& e) {
  const Value subject = e.children[0] ? eval(*e.children[0]) : *block_text_;
  const Arguments args = eval_arguments(e.arguments);
  at_ = e.at;
  return apply_filter(e.name, subject, args);
}

bool Interpreter::eval_test(const Expr& e) {
  const Value subject = eval(*e.children[0]);
  const Arguments args = eval_arguments(e.arguments);
  at_ = e.at;
  return apply_test(e.name, subject, args);
}

Value Interpreter::apply_filter(std::string_view name, const Value& subject, const Arguments& args) {
  const Filter f = find_filter(name);
  if (!f) fail("no filter is called {}; filters are {}", quoted(name), filter_names());
  meter.work();
  return f(*this, subject, args);
}

bool Interpreter::apply_test(std::string_view name, const Value& subject, const Arguments& args) {
  const Test t = find_test(name);
  if (!t) fail("no test is called {}; tests are {}", quoted(name), test_names());
  meter.work();
  return t(*this, subject, args);
}

// --- Attributes and items --------------------------------------------------------------------------------------------

Value Interpreter::get_item(const Value& object, const Value& key) {
  switch (object.kind()) {
    case Value::Kind::undefined: fail("{}", object.text());
    case Value::Kind::dict:
      if (!key.is_undefined() && !key.is(Value::Kind::list) && !key.is_dict())
        if (const Value* v = object.find(key)) return *v;
      break;
    case Value::Kind::list:
    case Value::Kind::tuple:
    case Value::Kind::string:
    case Value::Kind::iterator: {
      if (!key.is_integral() || (object.is(Value::Kind::iterator) && !object.as_iterator().type.starts_with("range")))
        break;
      int64_t i = key.as_integer();
      if (object.is_string()) {
        meter.work(object.text().size() / 8);
        const auto characters = code_points(object.text());
        const auto n = static_cast<int64_t>(characters.size());
        if (i < 0) i += n;
        if (i >= 0 && i < n) return Value::string(std::string(characters[static_cast<size_t>(i)]));
      } else {
        const Value::Items& items = object.is_sequence() ? object.items() : object.as_iterator().items;
        const auto n = static_cast<int64_t>(items.size());
        if (i < 0) i += n;
        if (i >= 0 && i < n) return items[static_cast<size_t>(i)];
      }
      return Value::undefined(fmt::format("{} has no item {}", described(object), key.as_integer()));
    }
    default: break;
  }
  if (!key.is_string()) return Value::undefined(fmt::format("{} has no such item", described(object)));
  if (object.is(Value::Kind::object)) {
    Value made;
    if (const Value* v = object.as_object()->attribute(key.text(), made)) return *v;
  } else if (const auto method = find_method(object, key.text())) {
    return Value::object(std::make_shared<Function>(key.text(), method, object));
  }
  return Value::undefined(fmt::format("{} has no attribute {}", described(object), quoted(key.text())));
}

Value Interpreter::get_attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail("{}", object.text());
  if (const auto method = find_method(object, name))
    return Value::object(std::make_shared<Function>(name, method, object));
  if (changes_its_value(object, name))
    return Value::undefined(fmt::format("a template cannot change a {}, as .{} would; `x + [y]` makes a longer list",
                                        object.type_name(), name));
  if (const Value* v = object.find(name)) return *v;
  if (object.is(Value::Kind::object)) {
    Value made;
    if (const Value* v = object.as_object()->attribute(name, made)) return *v;
  }
  return Value::undefined(fmt::format("{} has no attribute {}", described(object), quoted(name)));
}

Value Interpreter::get_path(Value object, const Value& path) {
  if (!path.is_string()) return get_item(object, path);
  for (const std::string_view part : split(path.text(), ".", -1, false)) {
    const bool number = !part.empty() && part.size() < 18 &&
                        std::all_of(part.begin(), part.end(), [](unsigned char c) { return is_digit(c); });
    object =
        get_item(object, number ? Value::integer(std::stoll(std::string(part))) : Value::string(std::string(part)));
  }
  return object;
}

}  // namespace ponder::text::jinja
