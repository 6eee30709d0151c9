#include "ponder/text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "ponder/text/jinja/expression_parser.h"

namespace ponder::text::jinja {
namespace {

using Words = std::initializer_list<std::string_view>;

class Parser : private ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, const std::string& name) : ExpressionParser(std::move(tokens), name) {}

  Body run() { return body({}); }

 private:
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

  int loops_ = 0;
};

}  // namespace

Body parse(std::vector<Token> tokens, const std::string& name) { return Parser(std::move(tokens), name).run(); }

}  // namespace ponder::text::jinja
