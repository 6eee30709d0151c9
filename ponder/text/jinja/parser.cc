#include "ponder/text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <set>

#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

using Kind = Token::Kind;
using Words = std::initializer_list<std::string_view>;

constexpr int kMaxNesting = 200;    // of brackets, tags, unary operators: what the parser recurses into
constexpr int kMaxTreeDepth = 400;  // of expressions; a chain a + b + c ... is as deep as it is long

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  Body run() { return body({}); }

 private:
  // --- Tokens --------------------------------------------------------------------------------------------------------

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_op(std::string_view op) const { return now().is(Kind::op, op); }
  bool is_word(std::string_view word) const { return now().is(Kind::name, word); }
  bool skip_op(std::string_view op) { return is_op(op) && (++at_, true); }
  bool skip_word(std::string_view word) { return is_word(word) && (++at_, true); }

  [[noreturn]] void fail(Position at, const std::string& what) const { fail_at(name_, at, what); }
  [[noreturn]] void unexpected(std::string_view expected) const {
    fail(now().at, fmt::format("expected {}, found {}", expected, describe(now())));
  }
  static std::string describe(const Token& t) {
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
  void expect_op(std::string_view op) {
    if (!skip_op(op)) unexpected(quoted(op));
  }
  void expect(Kind kind, std::string_view what) {
    if (now().kind != kind) unexpected(what);
    take();
  }
  std::string expect_name(std::string_view what) {
    if (now().kind != Kind::name) unexpected(what);
    return take().text;
  }

  struct Nested {
    explicit Nested(Parser& p) : p(p) {
      if (++p.nesting_ > kMaxNesting) p.fail(p.now().at, fmt::format("nested in more than {} levels", kMaxNesting));
    }
    ~Nested() { --p.nesting_; }
    Parser& p;
  };

  // --- Nodes ---------------------------------------------------------------------------------------------------------

  ExprPtr node(Expr::Kind kind, Position at) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->at = at;
    return e;
  }
  void deepen(Expr& e, const ExprPtr& child) const {
    if (!child) return;
    e.depth = std::max(e.depth, child->depth + 1);
    if (e.depth > kMaxTreeDepth) fail(e.at, fmt::format("an expression of more than {} levels", kMaxTreeDepth));
  }
  void add(Expr& e, ExprPtr child) const {
    deepen(e, child);
    e.children.push_back(std::move(child));
  }
  template <class... Children>
  ExprPtr node(Expr::Kind kind, Position at, Children... children) const {
    ExprPtr e = node(kind, at);
    (add(*e, std::move(children)), ...);
    return e;
  }
  ExprPtr literal(Position at, Value value) const {
    ExprPtr e = node(Expr::Kind::literal, at);
    e->value = std::move(value);
    return e;
  }
  ExprPtr named(Expr::Kind kind, Position at, std::string name) const {
    ExprPtr e = node(kind, at);
    e->name = std::move(name);
    return e;
  }

  // --- Statements ----------------------------------------------------------------------------------------------------

  // Up to a tag that starts with one of `ends`, which is then the current token; the whole template if there are none.
  Body body(Words ends) {
    const Nested nested(*this);
    Body out;
    while (true) {
      switch (now().kind) {
        case Kind::text: {
          auto s = statement(Stmt::Kind::text, now().at);
          s->name = take().text;
          out.push_back(std::move(s));
          break;
        }
        case Kind::variable_begin: {
          auto s = statement(Stmt::Kind::output, take().at);
          s->expressions.push_back(tuple_or_expression(true));
          expect(Kind::variable_end, "}}");
          out.push_back(std::move(s));
          break;
        }
        case Kind::block_begin: {
          take();
          for (const auto end : ends)
            if (is_word(end)) return out;
          if (auto s = tag()) out.push_back(std::move(s));
          expect(Kind::block_end, "%}");
          break;
        }
        default:
          if (ends.size() == 0) return out;
          fail(now().at,
               fmt::format("the template ends inside a block; expected {{% {} %}}", fmt::join(ends, " %} or {% ")));
      }
    }
  }
  // The body of a tag: from the end of the tag to one of `ends`.
  Body block(Words ends) {
    skip_op(":");
    expect(Kind::block_end, "%}");
    return body(ends);
  }
  Body block_to(std::string_view end) {
    Body b = block({end});
    take();
    return b;
  }

  std::unique_ptr<Stmt> statement(Stmt::Kind kind, Position at) const {
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->at = at;
    return s;
  }

  std::unique_ptr<Stmt> tag() {
    const Position at = now().at;
    const std::string word = expect_name("the name of a tag");
    if (word == "if") return branch(at);
    if (word == "for") return for_loop(at);
    if (word == "set") return set(at);
    if (word == "macro") return macro(at);
    if (word == "call") return call_block(at);
    if (word == "filter") return filter_block(at);
    if (word == "with") return with(at);
    if (word == "print") return print(at);
    if (word == "generation") {
      auto s = statement(Stmt::Kind::scope, at);
      s->body = outside_loops([&] { return block_to("endgeneration"); });
      return s;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) fail(at, fmt::format("{} outside of a loop", word));
      return statement(word == "break" ? Stmt::Kind::break_loop : Stmt::Kind::continue_loop, at);
    }
    fail(at, fmt::format("the tag {} is not known here; tags are if, for, set, macro, call, filter, with, print, raw, "
                         "generation, break, continue",
                         quoted(word)));
  }

  std::unique_ptr<Stmt> branch(Position at) {
    auto s = statement(Stmt::Kind::branch, at);
    while (true) {
      s->expressions.push_back(tuple_or_expression(false));
      s->bodies.push_back(block({"elif", "else", "endif"}));
      const std::string word = take().text;
      if (word == "elif") continue;
      if (word == "else") s->otherwise = block_to("endif");
      return s;
    }
  }

  std::unique_ptr<Stmt> for_loop(Position at) {
    auto s = statement(Stmt::Kind::for_loop, at);
    s->target = target(false);
    if (!skip_word("in")) unexpected("'in'");
    s->expressions.push_back(tuple_or_expression(false, "recursive"));
    s->expressions.push_back(skip_word("if") ? expression() : nullptr);
    s->recursive = skip_word("recursive");
    ++loops_;
    s->body = block({"endfor", "else"});
    --loops_;
    if (take().text == "else") s->otherwise = block_to("endfor");
    return s;
  }

  std::unique_ptr<Stmt> set(Position at) {
    auto s = statement(Stmt::Kind::set, at);
    s->target = target(true);
    if (skip_op("=")) {
      s->expressions.push_back(tuple_or_expression(true));
      return s;
    }
    s->kind = Stmt::Kind::set_block;
    if (is_op("|")) s->expressions.push_back(filters(nullptr));
    s->body = outside_loops([&] { return block_to("endset"); });
    return s;
  }

  // break and continue do not reach out of a block that makes a string.
  template <class F>
  Body outside_loops(F&& parse) {
    const int loops = std::exchange(loops_, 0);
    Body b = parse();
    loops_ = loops;
    return b;
  }

  void signature(Stmt& s) {
    expect_op("(");
    while (!is_op(")")) {
      if (!s.parameters.empty()) expect_op(",");
      if (is_op(")")) break;
      const Position at = now().at;
      Parameter p{expect_name("the name of a parameter"), nullptr};
      for (const Parameter& other : s.parameters)
        if (other.name == p.name) fail(at, fmt::format("the parameter {} stands twice", quoted(p.name)));
      if (skip_op("="))
        p.otherwise = expression();
      else if (!s.parameters.empty() && s.parameters.back().otherwise)
        fail(at, "a parameter without a default follows one with a default");
      s.parameters.push_back(std::move(p));
    }
    expect_op(")");
  }

  void callable_body(Stmt& s, std::string_view end) {
    const auto outer = std::exchange(special_names_, {});
    s.body = outside_loops([&] { return block_to(end); });
    s.uses_varargs = special_names_.contains("varargs");
    s.uses_kwargs = special_names_.contains("kwargs");
    s.uses_caller = special_names_.contains("caller");
    special_names_.insert(outer.begin(), outer.end());
  }

  std::unique_ptr<Stmt> macro(Position at) {
    auto s = statement(Stmt::Kind::macro, at);
    s->name = expect_name("the name of the macro");
    signature(*s);
    callable_body(*s, "endmacro");
    return s;
  }

  std::unique_ptr<Stmt> call_block(Position at) {
    auto s = statement(Stmt::Kind::call, at);
    s->name = "caller";
    if (is_op("(")) signature(*s);
    s->expressions.push_back(expression());
    if (s->expressions[0]->kind != Expr::Kind::call) fail(at, "{% call %} needs the call of a macro");
    callable_body(*s, "endcall");
    return s;
  }

  std::unique_ptr<Stmt> filter_block(Position at) {
    auto s = statement(Stmt::Kind::filter, at);
    s->expressions.push_back(filters(filter(nullptr)));
    s->body = outside_loops([&] { return block_to("endfilter"); });
    return s;
  }

  std::unique_ptr<Stmt> with(Position at) {
    auto s = statement(Stmt::Kind::with, at);
    while (now().kind != Kind::block_end) {
      if (!s->parameters.empty()) expect_op(",");
      Parameter p{expect_name("a name"), nullptr};
      expect_op("=");
      p.otherwise = expression();
      s->parameters.push_back(std::move(p));
    }
    s->body = block_to("endwith");
    return s;
  }

  std::unique_ptr<Stmt> print(Position at) {
    auto s = statement(Stmt::Kind::output, at);
    while (now().kind != Kind::block_end) {
      if (!s->expressions.empty()) expect_op(",");
      s->expressions.push_back(expression());
    }
    return s;
  }

  // name, namespace.name, or several of these.
  ExprPtr target(bool with_attributes) {
    const Nested nested(*this);
    const Position at = now().at;
    ExprPtr first = one_target(with_attributes);
    if (!is_op(",")) return first;
    ExprPtr list = node(Expr::Kind::tuple, at);
    add(*list, std::move(first));
    while (skip_op(",")) {
      if (is_op("=") || is_op(")") || is_word("in")) break;
      add(*list, one_target(with_attributes));
    }
    return list;
  }
  ExprPtr one_target(bool with_attributes) {
    const Position at = now().at;
    if (skip_op("(")) {
      ExprPtr inner = target(with_attributes);
      expect_op(")");
      return inner;
    }
    static constexpr std::array<std::string_view, 6> kConstants = {"true", "false", "none", "True", "False", "None"};
    const std::string name = expect_name("a name to assign to");
    if (std::find(kConstants.begin(), kConstants.end(), name) != kConstants.end())
      fail(at, fmt::format("{} cannot be assigned to", name));
    ExprPtr variable = named(Expr::Kind::name, at, name);
    if (!with_attributes || !skip_op(".")) return variable;
    ExprPtr attribute = named(Expr::Kind::attribute, at, expect_name("the name of an attribute"));
    add(*attribute, std::move(variable));
    return attribute;
  }

  // --- Expressions, loosest first ------------------------------------------------------------------------------------

  // Several expressions between commas are a tuple.
  ExprPtr tuple_or_expression(bool with_conditional, std::string_view end_word = "", bool may_be_empty = false) {
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

  ExprPtr expression(bool with_conditional = true) {
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

  ExprPtr either() {
    ExprPtr e = both();
    while (is_word("or")) {
      const Position at = take().at;
      ExprPtr right = both();
      e = node(Expr::Kind::either, at, std::move(e), std::move(right));
    }
    return e;
  }

  ExprPtr both() {
    ExprPtr e = negation();
    while (is_word("and")) {
      const Position at = take().at;
      ExprPtr right = negation();
      e = node(Expr::Kind::both, at, std::move(e), std::move(right));
    }
    return e;
  }

  ExprPtr negation() {
    if (!is_word("not")) return comparison();
    const Nested nested(*this);
    const Position at = take().at;
    return node(Expr::Kind::negation, at, negation());
  }

  Op comparison_op() {
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

  ExprPtr comparison() {
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

  ExprPtr binary(Op op, Position at, ExprPtr left, ExprPtr right) {
    ExprPtr e = node(Expr::Kind::binary, at, std::move(left), std::move(right));
    e->op = op;
    return e;
  }

  ExprPtr sum() {
    ExprPtr e = concat();
    while (is_op("+") || is_op("-")) {
      const Token op = take();
      ExprPtr right = concat();
      e = binary(op.text == "+" ? Op::add : Op::subtract, op.at, std::move(e), std::move(right));
    }
    return e;
  }

  ExprPtr concat() {
    ExprPtr e = product();
    if (!is_op("~")) return e;
    ExprPtr all = node(Expr::Kind::concat, now().at, std::move(e));
    while (skip_op("~")) add(*all, product());
    return all;
  }

  ExprPtr product() {
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

  ExprPtr power() {  // from left to right, as Jinja has it
    ExprPtr e = unary();
    while (is_op("**")) {
      const Position at = take().at;
      ExprPtr right = unary();
      e = binary(Op::power, at, std::move(e), std::move(right));
    }
    return e;
  }

  ExprPtr unary(bool with_filters = true) {
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

  ExprPtr primary() {
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

  Value integer(const Token& t) const {
    const char mark = t.text.size() > 1 ? static_cast<char>(t.text[1] | 32) : ' ';
    const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    const char* begin = t.text.data() + (base == 10 ? 0 : 2);
    int64_t value = 0;
    if (std::from_chars(begin, t.text.data() + t.text.size(), value, base).ec != std::errc())
      fail(t.at, fmt::format("{} is beyond 64 bits; Python has larger integers, this does not", t.text));
    return Value::integer(value);
  }

  ExprPtr postfix(ExprPtr e) {
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

  ExprPtr subscript(ExprPtr e, Position at) {
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

  void arguments(Expr& e) {
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

  ExprPtr call(ExprPtr callee) {
    ExprPtr e = node(Expr::Kind::call, now().at, std::move(callee));
    arguments(*e);
    return e;
  }

  ExprPtr filters_and_tests(ExprPtr e) {
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

  ExprPtr filters(ExprPtr e) {
    while (skip_op("|")) e = filter(std::move(e));
    return e;
  }

  ExprPtr filter(ExprPtr subject) {
    const Position at = now().at;
    ExprPtr e = named(Expr::Kind::filter, at, expect_name("the name of a filter"));
    add(*e, std::move(subject));
    if (is_op("(")) arguments(*e);
    return e;
  }

  ExprPtr test(ExprPtr subject) {
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

  std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
  std::set<std::string> special_names_;  // varargs, kwargs, caller: those that the macro at hand reads
};

}  // namespace

Body parse(std::vector<Token> tokens, const std::string& name) { return Parser(std::move(tokens), name).run(); }

}  // namespace ponder::text::jinja
