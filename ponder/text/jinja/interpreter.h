// Walks the tree of a template. Internal.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/text/jinja/ast.h"
#include "ponder/text/jinja/jinja.h"
#include "ponder/text/jinja/object.h"

namespace ponder::text::jinja {

// The names of a block; those outside are reached through `outer`.
struct Scope {
  std::shared_ptr<Scope> outer;
  std::vector<std::pair<std::string_view, Value>> names;  // the views lie in the tree
};

class Interpreter {
 public:
  Interpreter(const Value& variables, const RenderOptions& options);

  std::string run(const Body& program, const std::string& name);

  // What filters, tests and methods need.
  Meter meter;
  const RenderOptions& options;
  Value get_item(const Value& object, const Value& key);              // object[key]
  Value get_attribute(const Value& object, const std::string& name);  // object.name
  Value get_path(Value object, const Value& path);                    // by a filter's "a.b.0"
  Value call(const Value& callee, const Arguments& args);
  Value apply_filter(std::string_view name, const Value& subject, const Arguments& args);
  bool apply_test(std::string_view name, const Value& subject, const Arguments& args);
  Value add(const Value& a, const Value& b);
  bool compare_by(Op op, const Value& a, const Value& b);  // also in and not in
  std::string text(const Value& v);                        // str(v)
  Value make_string(std::string s);                        // within the limit
  Value make_list(Value::Items items);
  // The items that a loop over v sees; empties a generator.
  Value::Items iterate(const Value& v);
  Value new_namespace(const Arguments& args);

 private:
  friend class Macro;
  friend class Loop;
  enum class Flow { on, break_loop, continue_loop };
  struct Deeper;

  Value eval(const Expr& e);
  Value eval_name(const Expr& e);
  Value eval_sequence(const Expr& e);
  Value eval_dict(const Expr& e);
  Value eval_unary(const Expr& e);
  Value eval_binary(const Expr& e);
  Value eval_compare(const Expr& e);
  Value eval_concat(const Expr& e);
  Value eval_slice(const Expr& e);
  Value eval_call(const Expr& e);
  Value eval_filter(const Expr& e);
  bool eval_test(const Expr& e);
  Arguments eval_arguments(const CallArguments& a);

  Value arithmetic(Op op, const Value& a, const Value& b);
  Value multiply(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);

  Flow exec(const Body& body);
  Flow exec(const Stmt& s);
  Flow exec_branch(const Stmt& s);
  Flow exec_for(const Stmt& s);
  Flow loop_over(const Stmt& s, const Value& over, int depth);
  void exec_set(const Stmt& s);
  void exec_with(const Stmt& s);
  void exec_call_block(const Stmt& s);
  void assign(const Expr& target, const Value& value);
  void assign_name(std::string_view name, const Value& value);
  Value* find_name(std::string_view name);
  void write(std::string_view text);
  // The text that a body writes, with names of its own.
  std::string capture(const Body& body);
  Value call_macro(const Stmt& s, const std::shared_ptr<Scope>& outer, const Arguments& args);

  const Value& variables_;
  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end: one may hold itself
  std::string output_;
  std::string* out_ = &output_;
  const Value* block_text_ = nullptr;  // what a filter block's filters start from
  Position at_;                        // of the operation under way
  int depth_ = 0;
};

}  // namespace ponder::text::jinja
