// The tests of `x is ...`. docs: https://jinja.palletsprojects.com/templates/#builtin-tests
#include <cmath>
#include <map>

#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

using Kind = Value::Kind;

template <bool (*F)(const Value&)>
bool alone(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "this test", {}, 0);
  return F(v);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_true(const Value& v) { return v.is(Kind::boolean) && v.as_bool(); }
bool is_false(const Value& v) { return v.is(Kind::boolean) && !v.as_bool(); }
bool is_boolean(const Value& v) { return v.is(Kind::boolean); }
bool is_integer(const Value& v) { return v.is(Kind::integer) || v.is(Kind::big_integer); }
bool is_real(const Value& v) { return v.is(Kind::real); }
bool is_number(const Value& v) { return v.is_number() || v.is(Kind::big_integer); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_mapping(const Value& v) { return v.is_dict(); }
bool is_iterable(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is_dict() || v.is(Kind::iterator) || v.is_undefined();
}
bool is_sequence(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is_dict() || v.is_undefined() ||
         (v.is(Kind::iterator) && v.as_iterator().type.starts_with("range"));
}
bool is_callable(const Value& v) { return v.is_undefined() || (v.is(Kind::object) && v.as_object()->callable()); }
bool is_escaped(const Value&) { return false; }

template <bool upper>
bool cased(Interpreter& in, const Value& v, const Arguments& args) {
  const Bound b(args, upper ? "upper" : "lower", {}, 0);
  bool any = false;
  const std::string text = in.text(v);
  in.meter.work(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (upper ? is_lower(c.value) : is_upper(c.value)) return false;
    any |= upper ? is_upper(c.value) : is_lower(c.value);
    at += c.bytes;
  }
  return any;
}

template <int remainder>
bool has_parity(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "odd and even", {}, 0);
  if (v.is(Kind::real)) return std::fabs(std::fmod(v.as_real(), 2)) == remainder;
  if (!v.is_integral()) fail("odd and even are for integers, not for {}", described(v));
  return (v.as_integer() & 1) == remainder;
}

bool is_divisible(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "divisibleby", {"num"}, 1);
  if (!v.is_integral()) fail("divisibleby is for integers, not for {}", described(v));
  const int64_t by = b.integer(0, 0);
  if (by == 0) fail("divisibleby zero");
  return by == -1 || v.as_integer() % by == 0;
}

template <Op op>
bool compares(Interpreter& in, const Value& v, const Arguments& args) {
  const Bound b(args, "a comparison", {"other"}, 1);
  return in.compare_by(op, v, *b[0]);
}

bool is_same(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "sameas", {"other"}, 1);
  return v.same(*b[0]);
}

bool names_filter(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "filter", {}, 0);
  return v.is_string() && find_filter(v.text());
}
bool names_test(Interpreter&, const Value& v, const Arguments& args) {
  const Bound b(args, "test", {}, 0);
  return v.is_string() && find_test(v.text());
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> all = {{"boolean", alone<is_boolean>},
                                                       {"callable", alone<is_callable>},
                                                       {"defined", alone<is_defined>},
                                                       {"divisibleby", is_divisible},
                                                       {"eq", compares<Op::equal>},
                                                       {"==", compares<Op::equal>},
                                                       {"equalto", compares<Op::equal>},
                                                       {"escaped", alone<is_escaped>},
                                                       {"even", has_parity<0>},
                                                       {"false", alone<is_false>},
                                                       {"filter", names_filter},
                                                       {"float", alone<is_real>},
                                                       {"ge", compares<Op::greater_equal>},
                                                       {">=", compares<Op::greater_equal>},
                                                       {"greaterthan", compares<Op::greater>},
                                                       {"gt", compares<Op::greater>},
                                                       {">", compares<Op::greater>},
                                                       {"in", compares<Op::in>},
                                                       {"integer", alone<is_integer>},
                                                       {"iterable", alone<is_iterable>},
                                                       {"le", compares<Op::less_equal>},
                                                       {"<=", compares<Op::less_equal>},
                                                       {"lessthan", compares<Op::less>},
                                                       {"lower", cased<false>},
                                                       {"lt", compares<Op::less>},
                                                       {"<", compares<Op::less>},
                                                       {"mapping", alone<is_mapping>},
                                                       {"ne", compares<Op::not_equal>},
                                                       {"!=", compares<Op::not_equal>},
                                                       {"none", alone<is_none>},
                                                       {"number", alone<is_number>},
                                                       {"odd", has_parity<1>},
                                                       {"sameas", is_same},
                                                       {"sequence", alone<is_sequence>},
                                                       {"string", alone<is_string>},
                                                       {"test", names_test},
                                                       {"true", alone<is_true>},
                                                       {"undefined", alone<is_undefined>},
                                                       {"upper", cased<true>}};
  return all;
}

}  // namespace

Test find_test(std::string_view name) {
  const auto at = tests().find(name);
  return at == tests().end() ? nullptr : at->second;
}

std::string test_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, t] : tests()) names.push_back(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace ponder::text::jinja
