#include "ponder/text/jinja/expression_parser.h"

#include <charconv>
#include <cstdlib>

namespace ponder::text::jinja {
namespace {

std::string describe(const Token& t) {
  using Kind = Token::Kind;
  switch (t.kind) {
    case Kind::text: return "text";
    case Kind::block_begin: return "{%";
    case Kind::block_end: return "%}";
    case Kind::variable_begin: return "{{";
    case Kind::variable_end: return "}}";
    case Kind::end: return "the end of the template";
    case Kind::string: return "a string";
    default: return quoted(t.text);
  }
}

}  // namespace

void ExpressionParser::unexpected(std::string_view expected) const {
  fail(now().at, fmt::format("expected {}, found {}", expected, describe(now())));
}

// Several expressions between commas are a tuple.
ExprPtr ExpressionParser::tuple_or_expression(bool with_conditional, std::string_view end_word, bool may_be_empty) {
  const Position at = now().at;
  const auto ended = [&] {
    return now().kind == Kind::block_end || now().kind == Kind::variable_end || is_op(")") ||
           (!end_word.empty() && is_word(end_word));
  };
  if (may_be_empty && ended()) return node(Expr::Kind::tuple, at);
  if (ended()) unexpected("an expression");
  ExprPtr first = expression(with_conditional);
  if (!is_op(",")) return first;
  ExprPtr list = node(Expr::Kind::tuple, at);
  add(*list, std::move(first));
  while (skip_op(",")) {
    if (ended()) break;
    add(*list, expression(with_conditional));
  }
  return list;
}

ExprPtr ExpressionParser::expression(bool with_conditional) {
  const Nested nested(*this);
  ExprPtr e = either();
  while (with_conditional && is_word("if")) {
    const Position at = take().at;
    ExprPtr condition = either();
    ExprPtr otherwise = skip_word("else") ? expression() : nullptr;
    e = node(Expr::Kind::conditional, at, std::move(e), std::move(condition), std::move(otherwise));
  }
  return e;
}

ExprPtr ExpressionParser::either() {
  ExprPtr e = both();
  while (is_word("or")) {
    const Position at = take().at;
    ExprPtr right = both();
    e = node(Expr::Kind::either, at, std::move(e), std::move(right));
  }
  return e;
}

ExprPtr ExpressionParser::both() {
  ExprPtr e = negation();
  while (is_word("and")) {
    const Position at = take().at;
    ExprPtr right = negation();
    e = node(Expr::Kind::both, at, std::move(e), std::move(right));
  }
  return e;
}

ExprPtr ExpressionParser::negation() {
  if (!is_word("not")) return comparison();
  const Nested nested(*this);
  const Position at = take().at;
  return node(Expr::Kind::negation, at, negation());
}

Op ExpressionParser::comparison_op() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::equal},  {"!=", Op::not_equal},
                                                             {"<", Op::less},    {"<=", Op::less_equal},
                                                             {">", Op::greater}, {">=", Op::greater_equal}};
  if (now().kind == Kind::op)
    for (const auto& [text, op] : kOps)
      if (skip_op(text)) return op;
  if (skip_word("in")) return Op::in;
  if (is_word("not") && ahead().is(Kind::name, "in")) {
    at_ += 2;
    return Op::not_in;
  }
  return Op::none;
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr e = sum();
  const Position at = now().at;
  Op op = comparison_op();
  if (op == Op::none) return e;
  ExprPtr chain = node(Expr::Kind::compare, at, std::move(e));
  for (; op != Op::none; op = comparison_op()) {
    chain->ops.push_back(op);
    add(*chain, sum());
  }
  return chain;
}

ExprPtr ExpressionParser::binary(Op op, Position at, ExprPtr left, ExprPtr right) {
  ExprPtr e = node(Expr::Kind::binary, at, std::move(left), std::move(right));
  e->op = op;
  return e;
}

ExprPtr ExpressionParser::sum() {
  ExprPtr e = concat();
  while (is_op("+") || is_op("-")) {
    const Token op = take();
    ExprPtr right = concat();
    e = binary(op.text == "+" ? Op::add : Op::subtract, op.at, std::move(e), std::move(right));
  }
  return e;
}

ExprPtr ExpressionParser::concat() {
  ExprPtr e = product();
  if (!is_op("~")) return e;
  ExprPtr all = node(Expr::Kind::concat, now().at, std::move(e));
  while (skip_op("~")) add(*all, product());
  return all;
}

ExprPtr ExpressionParser::product() {
  ExprPtr e = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    const Token op = take();
    ExprPtr right = power();
    const Op which = op.text == "*"    ? Op::multiply
                     : op.text == "/"  ? Op::divide
                     : op.text == "//" ? Op::floor_divide
                                       : Op::modulo;
    e = binary(which, op.at, std::move(e), std::move(right));
  }
  return e;
}

ExprPtr ExpressionParser::power() {  // from left to right, as Jinja has it
  ExprPtr e = unary();
  while (is_op("**")) {
    const Position at = take().at;
    ExprPtr right = unary();
    e = binary(Op::power, at, std::move(e), std::move(right));
  }
  return e;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const Nested nested(*this);
  ExprPtr e;
  if (is_op("-") || is_op("+")) {
    const Token op = take();
    e = node(Expr::Kind::unary, op.at, unary(false));
    e->op = op.text == "-" ? Op::negate : Op::plus;
  } else {
    e = primary();
  }
  e = postfix(std::move(e));
  return with_filters ? filters_and_tests(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary() {
  const Token t = now();
  switch (t.kind) {
    case Kind::name:
      take();
      if (t.text == "true" || t.text == "True") return literal(t.at, Value::boolean(true));
      if (t.text == "false" || t.text == "False") return literal(t.at, Value::boolean(false));
      if (t.text == "none" || t.text == "None") return literal(t.at, {});
      if (t.text == "varargs" || t.text == "kwargs" || t.text == "caller") special_names_.insert(t.text);
      return named(Expr::Kind::name, t.at, t.text);
    case Kind::string: {
      std::string text;
      while (now().kind == Kind::string) text += take().text;
      return literal(t.at, Value::string(std::move(text)));
    }
    case Kind::integer: take(); return literal(t.at, integer(t));
    case Kind::real: take(); return literal(t.at, Value::real(std::strtod(t.text.c_str(), nullptr)));
    default: break;
  }
  if (skip_op("(")) {
    ExprPtr e = tuple_or_expression(true, "", true);
    expect_op(")");
    return e;
  }
  if (skip_op("[")) {
    ExprPtr list = node(Expr::Kind::list, t.at);
    while (!is_op("]")) {
      if (!list->children.empty()) expect_op(",");
      if (is_op("]")) break;
      add(*list, expression());
    }
    expect_op("]");
    return list;
  }
  if (skip_op("{")) {
    ExprPtr dict = node(Expr::Kind::dict, t.at);
    while (!is_op("}")) {
      if (!dict->children.empty()) expect_op(",");
      if (is_op("}")) break;
      add(*dict, expression());
      expect_op(":");
      add(*dict, expression());
    }
    expect_op("}");
    return dict;
  }
  unexpected("an expression");
}

Value ExpressionParser::integer(const Token& t) const {
  const char mark = t.text.size() > 1 ? static_cast<char>(t.text[1] | 32) : ' ';
  const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
  const char* begin = t.text.data() + (base == 10 ? 0 : 2);
  int64_t value = 0;
  if (std::from_chars(begin, t.text.data() + t.text.size(), value, base).ec != std::errc())
    fail(t.at, fmt::format("{} is beyond 64 bits; Python has larger integers, this does not", t.text));
  return Value::integer(value);
}

ExprPtr ExpressionParser::postfix(ExprPtr e) {
  while (true) {
    const Position at = now().at;
    if (skip_op(".")) {
      if (now().kind == Kind::integer) {
        const Token index = take();
        e = node(Expr::Kind::item, at, std::move(e), literal(index.at, integer(index)));
      } else {
        ExprPtr attribute = named(Expr::Kind::attribute, at, expect_name("the name of an attribute"));
        add(*attribute, std::move(e));
        e = std::move(attribute);
      }
    } else if (skip_op("[")) {
      e = subscript(std::move(e), at);
    } else if (is_op("(")) {
      e = call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr e, Position at) {
  ExprPtr first = is_op(":") ? nullptr : expression();
  if (skip_op(":")) {
    const auto part = [&] { return is_op(":") || is_op("]") ? nullptr : expression(); };
    ExprPtr stop = part(), step;
    if (skip_op(":")) step = part();
    expect_op("]");
    return node(Expr::Kind::slice, at, std::move(e), std::move(first), std::move(stop), std::move(step));
  }
  if (is_op(",")) {
    ExprPtr list = node(Expr::Kind::tuple, at, std::move(first));
    while (skip_op(",")) add(*list, expression());
    first = std::move(list);
  }
  expect_op("]");
  return node(Expr::Kind::item, at, std::move(e), std::move(first));
}

void ExpressionParser::arguments(Expr& e) {
  CallArguments& out = e.arguments;
  expect_op("(");
  for (bool first = true; !is_op(")"); first = false) {
    if (!first) expect_op(",");
    if (is_op(")")) break;
    const Position at = now().at;
    ExprPtr* place = nullptr;
    if (skip_op("*")) {
      if (out.list || out.dict) fail(at, "a second * argument");
      place = &out.list;
    } else if (skip_op("**")) {
      if (out.dict) fail(at, "a second ** argument");
      place = &out.dict;
    } else if (now().kind == Kind::name && ahead().is(Kind::op, "=")) {
      if (out.dict) fail(at, "an argument after **");
      const std::string name = take().text;
      take();
      for (const auto& [other, value] : out.named)
        if (other == name) fail(at, fmt::format("the argument {} stands twice", quoted(name)));
      out.named.emplace_back(name, nullptr);
      place = &out.named.back().second;
    } else {
      if (out.list || out.dict || !out.named.empty()) fail(at, "an argument without a name after one with a name");
      place = &out.positional.emplace_back();
    }
    ExprPtr value = expression();  // may itself be a call, but adds nothing to `out`
    deepen(e, value);
    *place = std::move(value);
  }
  expect_op(")");
}

ExprPtr ExpressionParser::call(ExprPtr callee) {
  ExprPtr e = node(Expr::Kind::call, now().at, std::move(callee));
  arguments(*e);
  return e;
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr e) {
  while (true) {
    if (is_op("|"))
      e = filters(std::move(e));
    else if (is_word("is"))
      e = test(std::move(e));
    else if (is_op("("))
      e = call(std::move(e));
    else
      return e;
  }
}

ExprPtr ExpressionParser::filters(ExprPtr e) {
  while (skip_op("|")) e = filter(std::move(e));
  return e;
}

ExprPtr ExpressionParser::filter(ExprPtr subject) {
  const Position at = now().at;
  ExprPtr e = named(Expr::Kind::filter, at, expect_name("the name of a filter"));
  add(*e, std::move(subject));
  if (is_op("(")) arguments(*e);
  return e;
}

ExprPtr ExpressionParser::test(ExprPtr subject) {
  const Nested nested(*this);
  const Position at = take().at;
  const bool negated = skip_word("not");
  ExprPtr e = named(Expr::Kind::test, at, expect_name("the name of a test"));
  add(*e, std::move(subject));
  const Token& t = now();
  if (is_op("(")) {
    arguments(*e);
  } else if ((t.kind == Kind::name && t.text != "else" && t.text != "or" && t.text != "and") ||
             t.kind == Kind::string || t.kind == Kind::integer || t.kind == Kind::real || is_op("[") || is_op("{")) {
    if (is_word("is")) fail(t.at, "tests cannot be chained; write (a is b) and (a is c)");
    // A test takes one argument without brackets: `x is divisibleby 3`. These words go on after a test instead.
    if (!is_word("if") && !is_word("not") && !is_word("in") && !is_word("recursive")) {
      ExprPtr argument = postfix(primary());
      deepen(*e, argument);
      e->arguments.positional.push_back(std::move(argument));
    }
  }
  return negated ? node(Expr::Kind::negation, at, std::move(e)) : std::move(e);
}

}  // namespace ponder::text::jinja
