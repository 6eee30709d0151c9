// What a template can call or hang attributes on: namespaces, loops, macros, functions and methods. Internal.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {

class Interpreter;

struct Arguments {
  Value::Items positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments by the names of the parameters: `bind(args, "tojson", {"indent", "sort_keys"}, 0)`; what is missing is null.
// The first `required` must be there.
class Bound {
 public:
  Bound(const Arguments& args, std::string_view function, std::initializer_list<std::string_view> names,
        size_t required);
  const Value* operator[](size_t i) const { return values_[i]; }
  bool flag(size_t i, bool otherwise) const { return values_[i] ? values_[i]->truth() : otherwise; }
  int64_t integer(size_t i, int64_t otherwise) const;
  const std::string& string(size_t i) const;  // a parameter that is there

 private:
  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

class Object {
 public:
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;
  // Null for an attribute that it lacks; `made` holds what is computed on asking.
  virtual const Value* attribute(const std::string& name, Value& made) { return nullptr; }
  virtual bool callable() const { return false; }
  virtual Value call(Interpreter& in, const Arguments& args);
};

class Namespace : public Object {
 public:
  std::string type_name() const override { return "Namespace"; }
  const Value* attribute(const std::string& name, Value& made) override;
  void set(const std::string& name, Value value);
  void clear() { members_.clear(); }

 private:
  std::vector<std::pair<std::string, Value>> members_;
};

// A function of the language or a method with the value it belongs to.
class Function : public Object {
 public:
  using Body = Value (*)(Interpreter& in, const Value& self, const Arguments& args);
  Function(std::string name, Body body, Value self = {})
      : name_(std::move(name)), body_(body), self_(std::move(self)) {}
  std::string type_name() const override { return "function " + name_; }
  bool callable() const override { return true; }
  Value call(Interpreter& in, const Arguments& args) override { return body_(in, self_, args); }

 private:
  std::string name_;
  Body body_;
  Value self_;
};

// The library of the language; null where there is no such name.
using Filter = Value (*)(Interpreter& in, const Value& subject, const Arguments& args);
using Test = bool (*)(Interpreter& in, const Value& subject, const Arguments& args);
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);
Function::Body find_function(std::string_view name);
Function::Body find_method(const Value& self, std::string_view name);
bool changes_its_value(const Value& self, std::string_view name);  // a method of Python's that templates may not call
// Their names, for messages.
std::string filter_names();
std::string test_names();

// "%5.2f items" % values, and "{0} of {n:>3}".format(...).
std::string format_percent(const std::string& format, const Value& values, Meter& meter);
std::string format_braces(const std::string& format, const Arguments& args, Interpreter& in);

}  // namespace ponder::text::jinja
