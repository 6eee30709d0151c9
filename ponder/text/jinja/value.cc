#include "ponder/text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ponder/text/jinja/object.h"

namespace ponder::text::jinja {
namespace {

struct Sequence {
  Value::Items items;
  int depth = 1;
};

struct Dict {
  Value::Members members;
  std::vector<uint32_t> order;  // of the members by key, where there are many
  int depth = 1;
};

constexpr size_t kSmallDict = 8;

int depth_of(const Value& v, const void* storage) {
  if (v.is_sequence()) return static_cast<const Sequence*>(storage)->depth;
  if (v.is_dict()) return static_cast<const Dict*>(storage)->depth;
  return 0;
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return (a.as_integer() > b.as_integer()) - (a.as_integer() < b.as_integer());
  // A long double holds every 64-bit integer and every double.
  const auto wide = [](const Value& v) {
    return v.is_integral() ? static_cast<long double>(v.as_integer()) : static_cast<long double>(v.as_real());
  };
  const long double x = wide(a), y = wide(b);
  if (std::isnan(x) || std::isnan(y)) return static_cast<int>(std::isnan(x)) - static_cast<int>(std::isnan(y));
  return (x > y) - (x < y);
}

// Any total order of keys that agrees with equality.
int compare_keys(const Value& a, const Value& b) {
  const auto rank = [](const Value& v) { return v.is_number() ? 0 : static_cast<int>(v.kind()); };
  if (rank(a) != rank(b)) return rank(a) - rank(b);
  if (a.is_number()) return compare_numbers(a, b);
  if (a.is_string() || a.is(Value::Kind::big_integer)) return a.text().compare(b.text());
  if (a.is(Value::Kind::tuple)) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (const int c = compare_keys(x[i], y[i])) return c;
    return (x.size() > y.size()) - (x.size() < y.size());
  }
  return 0;
}

void check_depth(int depth) {
  if (depth > Value::kMaxDepth) fail("lists or dicts nested in more than {} levels", Value::kMaxDepth);
}

}  // namespace

void Meter::exhausted() const {
  fail("the template does too much work: it was stopped at its limit of steps (RenderOptions::max_steps)");
}
void Meter::too_long(size_t bytes) const {
  fail("a string of {} bytes, more than the {} allowed (RenderOptions::max_string_bytes)", bytes, max_string_);
}

// --- Making ----------------------------------------------------------------------------------------------------------

Value Value::undefined(std::string why) {
  Value v = string(std::move(why));
  v.kind_ = Kind::undefined;
  return v;
}

Value Value::boolean(bool b) {
  Value v;
  v.kind_ = Kind::boolean;
  v.integer_ = b;
  return v;
}

Value Value::integer(int64_t i) {
  Value v;
  v.kind_ = Kind::integer;
  v.integer_ = i;
  return v;
}

Value Value::big_integer(std::string digits) {
  Value v = string(std::move(digits));
  v.kind_ = Kind::big_integer;
  return v;
}

Value Value::real(double d) {
  Value v;
  v.kind_ = Kind::real;
  v.real_ = d;
  return v;
}

Value Value::string(std::string text) {
  Value v;
  v.kind_ = Kind::string;
  v.storage_ = std::make_shared<const std::string>(std::move(text));
  return v;
}

Value Value::container(Kind kind, Items items) {
  auto sequence = std::make_shared<Sequence>();
  for (const Value& item : items) sequence->depth = std::max(sequence->depth, 1 + depth_of(item, item.storage_.get()));
  check_depth(sequence->depth);
  sequence->items = std::move(items);
  Value v;
  v.kind_ = kind;
  v.storage_ = std::move(sequence);
  return v;
}

Value Value::list(Items items) { return container(Kind::list, std::move(items)); }
Value Value::tuple(Items items) { return container(Kind::tuple, std::move(items)); }

Value Value::dict(Members members) {
  auto dict = std::make_shared<Dict>();
  dict->members = std::move(members);
  auto& m = dict->members;
  std::vector<uint32_t> order(m.size());
  std::iota(order.begin(), order.end(), 0u);
  for (const auto& [key, value] : m) {
    check_hashable(key);
    dict->depth =
        std::max({dict->depth, 1 + depth_of(key, key.storage_.get()), 1 + depth_of(value, value.storage_.get())});
  }
  check_depth(dict->depth);
  const auto before = [&](uint32_t i, uint32_t j) {
    const int c = compare_keys(m[i].first, m[j].first);
    return c != 0 ? c < 0 : i < j;
  };
  std::sort(order.begin(), order.end(), before);
  bool twice = false;
  for (size_t i = 1; i < order.size() && !twice; ++i)
    twice = compare_keys(m[order[i - 1]].first, m[order[i]].first) == 0;
  if (twice) {
    std::vector<bool> dead(m.size());
    for (size_t i = 0; i < order.size();) {
      size_t end = i + 1;
      while (end < order.size() && compare_keys(m[order[i]].first, m[order[end]].first) == 0) dead[order[end++]] = true;
      m[order[i]].second = m[order[end - 1]].second;
      i = end;
    }
    Members kept;
    for (size_t i = 0; i < m.size(); ++i)
      if (!dead[i]) kept.push_back(std::move(m[i]));
    m = std::move(kept);
    order.resize(m.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), before);
  }
  if (m.size() > kSmallDict) dict->order = std::move(order);
  Value v;
  v.kind_ = Kind::dict;
  v.storage_ = std::move(dict);
  return v;
}

Value Value::iterator(Iterator it) {
  Value v;
  v.kind_ = Kind::iterator;
  for (const Value& item : it.items) check_depth(1 + depth_of(item, item.storage_.get()));
  v.storage_ = std::make_shared<const Iterator>(std::move(it));
  return v;
}

Value Value::object(std::shared_ptr<Object> o) {
  Value v;
  v.kind_ = Kind::object;
  v.storage_ = std::move(o);
  return v;
}

// --- Reading ---------------------------------------------------------------------------------------------------------

const Value::Items& Value::items() const { return static_cast<const Sequence*>(storage_.get())->items; }
const Value::Members& Value::members() const { return static_cast<const Dict*>(storage_.get())->members; }
const std::shared_ptr<Object> Value::as_object() const {
  return std::static_pointer_cast<Object>(std::const_pointer_cast<void>(storage_));
}

const Value* Value::find(std::string_view key) const {
  return kind_ == Kind::dict ? find(string(std::string(key))) : nullptr;
}

const Value* Value::find(const Value& key) const {
  if (kind_ != Kind::dict) return nullptr;
  const Dict& d = *static_cast<const Dict*>(storage_.get());
  if (d.members.size() <= kSmallDict) {
    for (const auto& [k, value] : d.members)
      if (compare_keys(k, key) == 0) return &value;
    return nullptr;
  }
  const auto at = std::lower_bound(d.order.begin(), d.order.end(), key,
                                   [&](uint32_t i, const Value& k) { return compare_keys(d.members[i].first, k) < 0; });
  if (at == d.order.end() || compare_keys(d.members[*at].first, key) != 0) return nullptr;
  return &d.members[*at].second;
}

Value Value::with(std::string_view key, Value value) const {
  PONDER_CHECK(kind_ == Kind::dict, "a {} has no keys", type_name());
  Members changed = members();
  changed.emplace_back(string(std::string(key)), std::move(value));
  return dict(std::move(changed));
}

bool Value::truth() const {
  switch (kind_) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return integer_ != 0;
    case Kind::real: return real_ != 0;
    case Kind::string: return !text().empty();
    case Kind::list:
    case Kind::tuple: return !items().empty();
    case Kind::dict: return !members().empty();
    case Kind::iterator: return as_iterator().once || !as_iterator().items.empty();
    case Kind::big_integer:
    case Kind::object: return true;
  }
  return false;
}

bool Value::same(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::undefined:
    case Kind::none: return true;
    case Kind::boolean:
    case Kind::integer: return integer_ == other.integer_;
    case Kind::real: return real_ == other.real_;
    case Kind::string: return storage_ == other.storage_ || text() == other.text();
    default: return storage_ == other.storage_;
  }
}

const char* Value::type_name() const {
  switch (kind_) {
    case Kind::undefined: return "undefined";
    case Kind::none: return "None";
    case Kind::boolean: return "bool";
    case Kind::integer:
    case Kind::big_integer: return "int";
    case Kind::real: return "float";
    case Kind::string: return "str";
    case Kind::list: return "list";
    case Kind::tuple: return "tuple";
    case Kind::dict: return "dict";
    case Kind::iterator: return "iterator";
    case Kind::object: return "object";
  }
  return "";
}

std::string described(const Value& v) {
  if (v.is_none() || v.is_undefined()) return v.type_name();
  const std::string name = v.is(Value::Kind::iterator) ? v.as_iterator().type : v.type_name();
  return fmt::format("{} {}", name[0] == 'i' || name[0] == 'o' ? "an" : "a", name);
}

void check_hashable(const Value& key) {
  if (key.is(Value::Kind::tuple)) {
    for (const Value& part : key.items())
      if (part.is(Value::Kind::tuple))
        fail("a tuple in a tuple as a key; keys are strings, numbers, or tuples of these");
      else
        check_hashable(part);
  } else if (!(key.is_number() || key.is_string() || key.is_none() || key.is(Value::Kind::big_integer))) {
    fail("a {} cannot be a key; keys are strings, numbers, or tuples of these", key.type_name());
  }
}

// --- Equality and order ----------------------------------------------------------------------------------------------

bool unordered(const Value& a, const Value& b) {
  return a.is_number() && b.is_number() && (std::isnan(a.as_real()) || std::isnan(b.as_real()));
}

bool equal(const Value& a, const Value& b, Meter& meter) {
  meter.work();
  if (a.is_number() && b.is_number()) return !unordered(a, b) && compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::string:
    case Value::Kind::big_integer:
      if (a.text().size() != b.text().size()) return false;
      meter.work(a.text().size() / 32);
      return a.text() == b.text();
    case Value::Kind::list:
    case Value::Kind::tuple: {
      if (a.same(b)) return true;
      const auto &x = a.items(), &y = b.items();
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i)
        if (!equal(x[i], y[i], meter)) return false;
      return true;
    }
    case Value::Kind::dict: {
      if (a.same(b)) return true;
      if (a.members().size() != b.members().size()) return false;
      for (const auto& [key, value] : a.members()) {
        const Value* other = b.find(key);
        if (!other || !equal(value, *other, meter)) return false;
      }
      return true;
    }
    default: return a.same(b);
  }
}

int compare(const Value& a, const Value& b, Meter& meter) {
  meter.work();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  // The bytes of UTF-8 stand in the order of its code points.
  if (a.is_string() && b.is_string())
    return meter.work(std::min(a.text().size(), b.text().size()) / 32), a.text().compare(b.text());
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i], meter)) return compare(x[i], y[i], meter);
    return (x.size() > y.size()) - (x.size() < y.size());
  }
  if (a.is_undefined()) fail("{}", a.text());
  if (b.is_undefined()) fail("{}", b.text());
  fail("a {} and a {} have no order; numbers, strings and lists of the same type do", a.type_name(), b.type_name());
}

}  // namespace ponder::text::jinja
