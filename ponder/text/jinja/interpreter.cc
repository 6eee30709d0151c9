// Statements, names, calls. Expressions are in jinja_expressions.cc.
#include "ponder/text/jinja/interpreter.h"

#include <algorithm>

#include "ponder/text/jinja/parser.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {

// --- Objects ---------------------------------------------------------------------------------------------------------

Value Object::call(Interpreter&, const Arguments&) { fail("a {} cannot be called", type_name()); }

const Value* Namespace::attribute(const std::string& name, Value&) {
  for (const auto& [key, value] : members_)
    if (key == name) return &value;
  return nullptr;
}

void Namespace::set(const std::string& name, Value value) {
  if (name.starts_with('_')) fail("a namespace takes no names that start with _, as in {}", quoted(name));
  for (auto& [key, old] : members_)
    if (key == name) return void(old = std::move(value));
  members_.emplace_back(name, std::move(value));
}

// What {% macro %} defines and what caller() calls. It sees the names where it was defined as long as that block lasts.
class Macro : public Object {
 public:
  Macro(const Stmt& stmt, std::weak_ptr<Scope> outer) : stmt_(stmt), outer_(std::move(outer)) {}
  std::string type_name() const override { return "macro " + stmt_.name; }
  bool callable() const override { return true; }
  Value call(Interpreter& in, const Arguments& args) override {
    const auto outer = outer_.lock();
    if (!outer) fail("the macro {} is called after the end of the block that defines it", quoted(stmt_.name));
    return in.call_macro(stmt_, outer, args);
  }
  const Value* attribute(const std::string& name, Value& made) override {
    if (name != "name") return nullptr;
    made = Value::string(stmt_.name);
    return &made;
  }

 private:
  const Stmt& stmt_;
  std::weak_ptr<Scope> outer_;
};

// The variable `loop`.
class Loop : public Object {
 public:
  Loop(const Stmt& stmt, std::weak_ptr<Scope> outer, Value::Items items, int depth)
      : stmt_(stmt), outer_(std::move(outer)), items_(std::move(items)), depth_(depth) {}

  const Value::Items& items() const { return items_; }
  void at(size_t index) { index_ = index; }

  std::string type_name() const override { return "loop"; }
  bool callable() const override { return stmt_.recursive; }

  const Value* attribute(const std::string& name, Value& made) override {
    const auto number = [](size_t n) { return Value::integer(static_cast<int64_t>(n)); };
    const size_t n = items_.size();
    if (name == "index")
      made = number(index_ + 1);
    else if (name == "index0")
      made = number(index_);
    else if (name == "first")
      made = Value::boolean(index_ == 0);
    else if (name == "last")
      made = Value::boolean(index_ + 1 == n);
    else if (name == "length")
      made = number(n);
    else if (name == "revindex")
      made = number(n - index_);
    else if (name == "revindex0")
      made = number(n - index_ - 1);
    else if (name == "depth")
      made = Value::integer(depth_ + 1);
    else if (name == "depth0")
      made = Value::integer(depth_);
    else if (name == "previtem")
      made = index_ > 0 ? items_[index_ - 1] : Value::undefined("there is no previous item");
    else if (name == "nextitem")
      made = index_ + 1 < n ? items_[index_ + 1] : Value::undefined("there is no next item");
    else if (name == "cycle")
      made = Value::object(std::make_shared<Function>("cycle", cycle, number(index_)));
    else if (name == "changed")
      made = Value::object(std::make_shared<Changed>(changed_));
    else
      return nullptr;
    return &made;
  }

  Value call(Interpreter& in, const Arguments& args) override {
    if (!stmt_.recursive) fail("only a loop with the mark `recursive` can be called");
    const Bound b(args, "loop", {"iterable"}, 1);
    const auto outer = outer_.lock();
    if (!outer) fail("the loop is called after its end");
    const auto scope = std::exchange(in.scope_, outer);
    std::string text;
    std::string* const out = std::exchange(in.out_, &text);
    in.loop_over(stmt_, *b[0], depth_ + 1);
    in.out_ = out;
    in.scope_ = scope;
    return in.make_string(std::move(text));
  }

 private:
  class Changed : public Object {
   public:
    explicit Changed(std::shared_ptr<Value> last) : last_(std::move(last)) {}
    std::string type_name() const override { return "function changed"; }
    bool callable() const override { return true; }
    Value call(Interpreter& in, const Arguments& args) override {
      const Value now = Value::tuple(args.positional);
      const bool differs = !equal(*last_, now, in.meter);
      *last_ = now;
      return Value::boolean(differs);
    }

   private:
    std::shared_ptr<Value> last_;
  };
  static Value cycle(Interpreter&, const Value& index, const Arguments& args) {
    if (args.positional.empty()) fail("loop.cycle needs something to choose from");
    return args.positional[static_cast<size_t>(index.as_integer()) % args.positional.size()];
  }

  const Stmt& stmt_;
  std::weak_ptr<Scope> outer_;
  Value::Items items_;
  int depth_;
  size_t index_ = 0;
  std::shared_ptr<Value> changed_ = std::make_shared<Value>();
};

// --- Arguments -------------------------------------------------------------------------------------------------------

Bound::Bound(const Arguments& args, std::string_view function, std::initializer_list<std::string_view> names,
             size_t required)
    : function_(function), names_(names), values_(names.size()) {
  if (args.positional.size() > names_.size())
    fail("{} takes at most {} arguments ({}), not {}", function, names_.size(), fmt::join(names_, ", "),
         args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at == names_.end())
      fail("{} has no argument {}; it takes ({})", function, quoted(name), fmt::join(names_, ", "));
    const size_t i = static_cast<size_t>(at - names_.begin());
    if (values_[i]) fail("{} is given its argument {} twice", function, quoted(name));
    values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) fail("{} needs the argument {}", function, quoted(names_[i]));
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  if (!values_[i]) return otherwise;
  if (!values_[i]->is_integral())
    fail("{}: {} must be an integer, not {}", function_, names_[i], described(*values_[i]));
  return values_[i]->as_integer();
}

const std::string& Bound::string(size_t i) const {
  if (!values_[i]->is_string())
    fail("{}: {} must be a string, not {} {}", function_, names_[i], values_[i]->is_none() ? "" : "a",
         described(*values_[i]));
  return values_[i]->text();
}

// --- Running ---------------------------------------------------------------------------------------------------------

constexpr int kMaxDepth = 500;  // of evaluation, in levels of the tree: a call of a macro takes about five

struct Interpreter::Deeper {
  explicit Deeper(Interpreter& in) : in(in) {
    in.meter.work();
    if (++in.depth_ > kMaxDepth) {
      --in.depth_;
      fail("the template goes deeper than {} levels of blocks and calls; does a macro call itself forever?", kMaxDepth);
    }
  }
  ~Deeper() { --in.depth_; }
  Interpreter& in;
};

Interpreter::Interpreter(const Value& variables, const RenderOptions& options)
    : meter(options.max_steps, options.max_string_bytes),
      options(options),
      variables_(variables),
      scope_(std::make_shared<Scope>()) {}

std::string Interpreter::run(const Body& program, const std::string& name) {
  struct Emptied {
    ~Emptied() {
      for (const auto& ns : list) ns->clear();
    }
    std::vector<std::shared_ptr<Namespace>>& list;
  } const emptied{namespaces_};
  try {
    exec(program);
  } catch (const Failure& f) {
    fail_at(name, at_, f.what());
  }
  return std::move(output_);
}

void Interpreter::write(std::string_view text) {
  // `out_` is the output, or a string in the making.
  const size_t limit = out_ == &output_ ? options.max_output_bytes : options.max_string_bytes;
  if (text.size() > limit - std::min(limit, out_->size()))
    fail("the output is longer than {} bytes, the limit (RenderOptions)", limit);
  meter.work(text.size() / 32);
  out_->append(text);
}

std::string Interpreter::capture(const Body& body) {
  auto scope = std::make_shared<Scope>();
  scope->outer = scope_;
  const auto outer = std::exchange(scope_, std::move(scope));
  std::string text;
  std::string* const out = std::exchange(out_, &text);
  exec(body);
  out_ = out;
  scope_ = outer;
  return text;
}

Interpreter::Flow Interpreter::exec(const Body& body) {
  const Deeper deeper(*this);
  for (const auto& s : body)
    if (const Flow flow = exec(*s); flow != Flow::on) return flow;
  return Flow::on;
}

Interpreter::Flow Interpreter::exec(const Stmt& s) {
  meter.work();
  at_ = s.at;
  switch (s.kind) {
    case Stmt::Kind::text: write(s.name); break;
    case Stmt::Kind::output:
      for (const auto& e : s.expressions) {
        const Value v = eval(*e);
        at_ = e->at;
        if (v.is_string())
          write(v.text());
        else
          write(to_text(v, meter));
      }
      break;
    case Stmt::Kind::set:
    case Stmt::Kind::set_block: exec_set(s); break;
    case Stmt::Kind::for_loop: return exec_for(s);
    case Stmt::Kind::branch: return exec_branch(s);
    case Stmt::Kind::macro: assign_name(s.name, Value::object(std::make_shared<Macro>(s, scope_))); break;
    case Stmt::Kind::call: exec_call_block(s); break;
    case Stmt::Kind::filter: {
      const Value body = make_string(capture(s.body));
      const Value* const outer = std::exchange(block_text_, &body);
      const Value v = eval(*s.expressions[0]);
      block_text_ = outer;
      write(to_text(v, meter));
      break;
    }
    case Stmt::Kind::with: exec_with(s); break;
    case Stmt::Kind::scope: write(capture(s.body)); break;
    case Stmt::Kind::break_loop: return Flow::break_loop;
    case Stmt::Kind::continue_loop: return Flow::continue_loop;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::exec_branch(const Stmt& s) {
  for (size_t i = 0; i < s.expressions.size(); ++i)
    if (eval(*s.expressions[i]).truth()) return exec(s.bodies[i]);
  return exec(s.otherwise);
}

Interpreter::Flow Interpreter::exec_for(const Stmt& s) {
  const Value over = eval(*s.expressions[0]);
  at_ = s.at;
  return loop_over(s, over, 0);
}

Interpreter::Flow Interpreter::loop_over(const Stmt& s, const Value& over, int depth) {
  const auto outer = scope_;
  Value::Items items = iterate(over);
  // Each round has its own names: what a round sets is gone in the next.
  const auto new_round = [&] {
    scope_ = std::make_shared<Scope>();
    scope_->outer = outer;
  };
  if (s.expressions[1]) {
    Value::Items kept;
    for (const Value& item : items) {
      new_round();
      assign(*s.target, item);
      if (eval(*s.expressions[1]).truth()) kept.push_back(item);
    }
    items = std::move(kept);
  }
  const auto loop = std::make_shared<Loop>(s, outer, std::move(items), depth);
  const Value loop_value = Value::object(loop);
  bool completed = false;  // a round: one that breaks or continues leaves "else" to be run, as in Jinja
  for (size_t i = 0; i < loop->items().size(); ++i) {
    loop->at(i);
    new_round();
    assign_name("loop", loop_value);
    at_ = s.at;
    assign(*s.target, loop->items()[i]);
    const Flow flow = exec(s.body);
    if (flow == Flow::break_loop) break;
    completed |= flow == Flow::on;
  }
  scope_ = outer;
  return completed ? Flow::on : exec(s.otherwise);
}

void Interpreter::exec_set(const Stmt& s) {
  Value value;
  if (s.kind == Stmt::Kind::set) {
    value = eval(*s.expressions[0]);
  } else {
    value = make_string(capture(s.body));
    if (!s.expressions.empty()) {
      const Value body = value;
      const Value* const outer = std::exchange(block_text_, &body);
      value = eval(*s.expressions[0]);
      block_text_ = outer;
    }
  }
  at_ = s.at;
  assign(*s.target, value);
}

void Interpreter::exec_with(const Stmt& s) {
  auto inner = std::make_shared<Scope>();
  inner->outer = scope_;
  for (const Parameter& p : s.parameters) inner->names.emplace_back(p.name, eval(*p.otherwise));
  const auto outer = std::exchange(scope_, std::move(inner));
  exec(s.body);
  scope_ = outer;
}

void Interpreter::exec_call_block(const Stmt& s) {
  const Expr& e = *s.expressions[0];
  const Value callee = eval(*e.children[0]);
  Arguments args = eval_arguments(e.arguments);
  args.named.emplace_back("caller", Value::object(std::make_shared<Macro>(s, scope_)));
  at_ = e.at;
  write(to_text(call(callee, args), meter));
}

void Interpreter::assign(const Expr& target, const Value& value) {
  switch (target.kind) {
    case Expr::Kind::name: return assign_name(target.name, value);
    case Expr::Kind::attribute: {
      const Value object = eval(*target.children[0]);
      at_ = target.at;
      const auto ns =
          object.is(Value::Kind::object) ? std::dynamic_pointer_cast<Namespace>(object.as_object()) : nullptr;
      if (!ns) fail("only attributes of a namespace() can be set");
      return ns->set(target.name, value);
    }
    default: {
      const Value::Items parts = iterate(value);
      if (parts.size() != target.children.size()) fail("{} names for {} values", target.children.size(), parts.size());
      for (size_t i = 0; i < parts.size(); ++i) assign(*target.children[i], parts[i]);
    }
  }
}

void Interpreter::assign_name(std::string_view name, const Value& value) {
  meter.work(1 + scope_->names.size() / 16);
  for (auto& [key, old] : scope_->names)
    if (key == name) return void(old = value);
  scope_->names.emplace_back(name, value);
}

Value* Interpreter::find_name(std::string_view name) {
  for (Scope* scope = scope_.get(); scope; scope = scope->outer.get()) {
    meter.work(1 + scope->names.size() / 16);
    for (auto& [key, value] : scope->names)
      if (key == name) return &value;
  }
  return nullptr;
}

// --- Calls -----------------------------------------------------------------------------------------------------------

Value Interpreter::call(const Value& callee, const Arguments& args) {
  const Deeper deeper(*this);
  if (callee.is_undefined()) fail("{}, so it cannot be called", callee.text());
  if (!callee.is(Value::Kind::object)) fail("{} cannot be called", described(callee));
  return callee.as_object()->call(*this, args);
}

Value Interpreter::call_macro(const Stmt& s, const std::shared_ptr<Scope>& outer, const Arguments& args) {
  auto inner = std::make_shared<Scope>();
  inner->outer = outer;
  const Position called_at = at_;
  const auto caller_scope = std::exchange(scope_, inner);
  std::vector<bool> used(args.named.size());
  const auto take_named = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < args.named.size(); ++i)
      if (args.named[i].first == name) return used[i] = true, &args.named[i].second;
    return nullptr;
  };
  bool has_caller_parameter = false;
  for (size_t i = 0; i < s.parameters.size(); ++i) {
    const Parameter& p = s.parameters[i];
    has_caller_parameter |= p.name == "caller";
    const Value* given = i < args.positional.size() ? &args.positional[i] : take_named(p.name);
    if (given)
      inner->names.emplace_back(p.name, *given);
    else if (p.otherwise)
      inner->names.emplace_back(p.name, eval(*p.otherwise));
    else
      inner->names.emplace_back(p.name, Value::undefined(fmt::format("parameter {} was not provided", quoted(p.name))));
  }
  at_ = called_at;
  if (s.uses_caller && !has_caller_parameter) {
    const Value* caller = take_named("caller");
    inner->names.emplace_back("caller", caller ? *caller : Value::undefined("No caller defined"));
  }
  Value::Members more;
  for (size_t i = 0; i < args.named.size(); ++i) {
    if (used[i]) continue;
    if (!s.uses_kwargs) fail("the macro {} takes no argument {}", quoted(s.name), quoted(args.named[i].first));
    more.emplace_back(Value::string(args.named[i].first), args.named[i].second);
  }
  if (s.uses_kwargs) inner->names.emplace_back("kwargs", Value::dict(std::move(more)));
  const size_t n = s.parameters.size();
  if (s.uses_varargs)
    inner->names.emplace_back("varargs", Value::tuple({args.positional.begin() + std::min(n, args.positional.size()),
                                                       args.positional.end()}));
  else if (args.positional.size() > n)
    fail("the macro {} takes at most {} arguments, not {}", quoted(s.name), n, args.positional.size());

  std::string text;
  std::string* const out = std::exchange(out_, &text);
  exec(s.body);
  out_ = out;
  scope_ = caller_scope;
  at_ = called_at;
  return make_string(std::move(text));
}

Value Interpreter::new_namespace(const Arguments& args) {
  auto ns = std::make_shared<Namespace>();
  namespaces_.push_back(ns);
  if (args.positional.size() > 1) fail("namespace takes one dict at most");
  for (const Value& v : args.positional) {
    if (!v.is_dict()) fail("namespace takes a dict and named values, not {}", described(v));
    for (const auto& [key, value] : v.members()) ns->set(text(key), value);
  }
  for (const auto& [name, value] : args.named) ns->set(name, value);
  return Value::object(std::move(ns));
}

// --- The template ----------------------------------------------------------------------------------------------------

struct Template::Program {
  Body body;
};

Template Template::parse(std::string_view source, std::string name, const ParseOptions& options) {
  if (source.size() > options.max_bytes)
    throw_error(Exit::data, "{}: a template of {} bytes, more than the {} allowed", name, source.size(),
                options.max_bytes);
  Template t;
  t.name_ = std::move(name);
  t.program_ = std::make_shared<const Program>(
      Program{jinja::parse(tokenize(source, t.name_, {options.trim_blocks, options.lstrip_blocks}), t.name_)});
  return t;
}

std::string Template::render(const Value& variables, const RenderOptions& options) const {
  PONDER_CHECK(variables.is_dict(), "the variables of a template are a dict, not a {}", variables.type_name());
  return Interpreter(variables, options).run(program_->body, name_);
}

}  // namespace ponder::text::jinja
