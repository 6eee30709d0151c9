// A parsed template. Internal.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ponder/text/jinja/lexer.h"
#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {

enum class Op {
  none,
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  negate,
  plus,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

// What stands in the brackets of a call.
struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr list, dict;  // *list, **dict
};

struct Expr {
  enum class Kind {
    literal,      // value
    name,         // name
    list,         // children
    tuple,        // children
    dict,         // children: key, value, key, value ...
    unary,        // op, children[0]
    binary,       // op, children[0..1]
    compare,      // children[0] ops[0] children[1] ops[1] ...
    concat,       // children
    both,         // and
    either,       // or
    negation,     // not
    conditional,  // children: then, condition, otherwise (may be null)
    attribute,    // children[0].name
    item,         // children[0][children[1]]
    slice,        // children[0][children[1]:children[2]:children[3]], each of the three may be null
    call,         // children[0](arguments)
    filter,       // children[0] | name(arguments); without a child the text of the block around
    test          // children[0] is name(arguments)
  };
  Kind kind;
  Position at;
  int depth = 1;  // of the tree below
  std::string name;
  Value value;
  Op op = Op::none;
  std::vector<Op> ops;
  std::vector<ExprPtr> children;
  CallArguments arguments;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // null: none
};

struct Stmt {
  enum class Kind {
    text,       // name
    output,     // expressions
    set,        // target = expression[0]
    set_block,  // target = body, through the filters of expressions[0] if any
    for_loop,   // target in expressions[0] if expressions[1] (may be null): body, otherwise
    branch,     // if expressions[i]: bodies[i] ..., otherwise
    macro,      // name(parameters): body
    call,       // expressions[0] is a call, body its caller with parameters
    filter,     // expressions[0] of body
    with,       // targets of parameters: body
    scope,      // body with names of its own: {% generation %}
    break_loop,
    continue_loop
  };
  Kind kind;
  Position at;
  std::string name;
  ExprPtr target;
  std::vector<ExprPtr> expressions;
  std::vector<Parameter> parameters;
  Body body, otherwise;
  std::vector<Body> bodies;
  bool recursive = false;                                               // for
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;  // macro
};

}  // namespace ponder::text::jinja
