// Tokens to expressions, from the loosest operator to the tightest; the parser of tags (parser.cc) builds on it. Internal.
#pragma once

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/text/jinja/ast.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {

class ExpressionParser {
 protected:
  using Kind = Token::Kind;

  static constexpr int kMaxNesting = 200;    // of brackets, tags, unary operators: what the parser recurses into
  static constexpr int kMaxTreeDepth = 400;  // of expressions; a chain a + b + c ... is as deep as it is long

  ExpressionParser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  // --- Tokens --------------------------------------------------------------------------------------------------------

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_op(std::string_view op) const { return now().is(Kind::op, op); }
  bool is_word(std::string_view word) const { return now().is(Kind::name, word); }
  bool skip_op(std::string_view op) { return is_op(op) && (++at_, true); }
  bool skip_word(std::string_view word) { return is_word(word) && (++at_, true); }

  [[noreturn]] void fail(Position at, const std::string& what) const { fail_at(name_, at, what); }
  [[noreturn]] void unexpected(std::string_view expected) const;
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
    explicit Nested(ExpressionParser& p) : p(p) {
      if (++p.nesting_ > kMaxNesting) p.fail(p.now().at, fmt::format("nested in more than {} levels", kMaxNesting));
    }
    ~Nested() { --p.nesting_; }
    ExpressionParser& p;
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

  // --- Expressions ---------------------------------------------------------------------------------------------------

  // Several expressions between commas are a tuple.
  ExprPtr tuple_or_expression(bool with_conditional, std::string_view end_word = "", bool may_be_empty = false);
  ExprPtr expression(bool with_conditional = true);
  ExprPtr filters(ExprPtr e);
  ExprPtr filter(ExprPtr subject);

  std::set<std::string> special_names_;  // varargs, kwargs, caller: those that the macro at hand reads

 private:
  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  Op comparison_op();
  ExprPtr comparison();
  ExprPtr binary(Op op, Position at, ExprPtr left, ExprPtr right);
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();  // from left to right, as Jinja has it
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  Value integer(const Token& t) const;
  ExprPtr postfix(ExprPtr e);
  ExprPtr subscript(ExprPtr e, Position at);
  void arguments(Expr& e);
  ExprPtr call(ExprPtr callee);
  ExprPtr filters_and_tests(ExprPtr e);
  ExprPtr test(ExprPtr subject);

  std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace ponder::text::jinja
