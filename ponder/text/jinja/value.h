// The values a chat template computes with: what JSON has, and tuples, undefined and a few internal things, with
// Python's meaning of equality, order, truth and printing. Values never change once made and are cheap to copy.
//
//   jinja::Value v = jinja::Value::from_json(R"({"role": "user", "n": [1, 2.0, null]})", "request");
//   v.find("role")->text();  // "user"
//   v.to_json();             // {"role": "user", "n": [1, 2.0, null]}
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ponder/base/error.h"

namespace ponder::text::jinja {

// Thrown while a template runs; the interpreter adds where.
class Failure : public Error {
 public:
  explicit Failure(const std::string& what) : Error(Exit::data, what) {}
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(fmt::format(format, std::forward<Args>(args)...));
}

// What one rendering may still use up. Every loop over data asks it, so no template works for long.
class Meter {
 public:
  Meter(uint64_t steps, size_t max_string) : left_(steps), max_string_(max_string) {}

  void work(uint64_t steps = 1) {
    if (steps > left_) exhausted();
    left_ -= steps;
  }
  // A string of so many bytes is about to be made or read through.
  void string(size_t bytes) {
    if (bytes > max_string_) too_long(bytes);
    work(bytes / 32);
  }

 private:
  [[noreturn]] void exhausted() const;
  [[noreturn]] void too_long(size_t bytes) const;

  uint64_t left_;
  size_t max_string_;
};

class Object;  // namespaces, loops, macros, functions (jinja_object.h): made by the interpreter only

class Value {
 public:
  enum class Kind : uint8_t {
    undefined,
    none,
    boolean,
    integer,
    big_integer,  // an integer beyond 64 bits out of JSON: it prints, but nothing computes with it
    real,
    string,
    list,
    tuple,
    dict,
    iterator,  // range, generator, the views of a dict
    object
  };
  using Items = std::vector<Value>;
  using Members = std::vector<std::pair<Value, Value>>;  // in the order given
  static constexpr int kMaxDepth = 100;                  // levels of lists in lists

  // What stands behind an iterator. A generator hands each item out once.
  struct Iterator {
    std::string type;  // "generator", "range(0, 3)", "dict_keys"
    Items items;
    bool once = false;
    mutable size_t next = 0;
  };

  Value() = default;  // None
  static Value undefined(std::string why);
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value big_integer(std::string digits);
  static Value real(double d);
  static Value string(std::string text);
  static Value list(Items items);
  static Value tuple(Items items);
  // Of a key that stands twice the last value counts, at the first place.
  static Value dict(Members members);
  static Value iterator(Iterator it);
  static Value object(std::shared_ptr<Object> o);

  // JSON text; `name` is for messages. Bounded: 64 levels, 4 million values.
  static Value from_json(std::string_view text, const std::string& name);
  // As Python's json.dumps(ensure_ascii=False) writes it.
  std::string to_json() const;

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  bool is_none() const { return kind_ == Kind::none; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }  // True is 1, as in Python
  bool is_number() const { return is_integral() || kind_ == Kind::real; }
  bool is_sequence() const { return kind_ == Kind::list || kind_ == Kind::tuple; }
  bool is_dict() const { return kind_ == Kind::dict; }

  bool as_bool() const { return integer_ != 0; }
  int64_t as_integer() const { return integer_; }                                                 // integral
  double as_real() const { return kind_ == Kind::real ? real_ : static_cast<double>(integer_); }  // number
  const std::string& text() const {
    return *static_cast<const std::string*>(storage_.get());
  }                                // string, big_integer,
                                   // undefined: why
  const Items& items() const;      // list, tuple
  const Members& members() const;  // dict
  const Iterator& as_iterator() const { return *static_cast<const Iterator*>(storage_.get()); }
  const std::shared_ptr<Object> as_object() const;

  // The value of a dict's key, or null; null as well if this is no dict.
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
  // This dict with one key changed or added at the end.
  Value with(std::string_view key, Value value) const;

  bool truth() const;
  bool same(const Value& other) const;  // Python's `is`
  const char* type_name() const;        // "str", "dict" ...

 private:
  static Value container(Kind kind, Items items);

  Kind kind_ = Kind::none;
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::shared_ptr<const void> storage_;  // by kind; see jinja_value.cc
};

// ==
bool equal(const Value& a, const Value& b, Meter& meter);
// < 0, 0, > 0 as a is before, at or after b; a Failure if Python has no order for them. NaN is after everything.
int compare(const Value& a, const Value& b, Meter& meter);
bool unordered(const Value& a, const Value& b);  // a NaN among two numbers
// For messages: "a str", "an int", "None".
std::string described(const Value& v);
// str(v) and repr(v).
std::string to_text(const Value& v, Meter& meter);
std::string to_repr(const Value& v, Meter& meter);
// Python's repr of a float: 1e-07, 1e+22, 2.0, inf.
std::string real_text(double d);
void check_hashable(const Value& key);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;  // what one level adds
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string to_json(const Value& v, const JsonStyle& style, Meter& meter);

}  // namespace ponder::text::jinja
