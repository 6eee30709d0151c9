// Filters of lists, dicts and generators, and those that choose between values.
#include <algorithm>
#include <optional>

#include "ponder/text/jinja/filters.h"
#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

Value generator(Interpreter& in, Value::Items items) {
  in.meter.work(items.size());
  return Value::iterator({"generator", std::move(items), true});
}

std::optional<Value> optional_value(const Value* v) { return v && !v->is_none() ? std::optional(*v) : std::nullopt; }

// What a filter compares: lower case unless told otherwise, of an attribute if one is named.
Value key_of(Interpreter& in, const Value& item, const std::optional<Value>& attribute, bool case_sensitive) {
  Value key = attribute ? in.get_path(item, *attribute) : item;
  return key.is_string() && !case_sensitive ? in.make_string(to_lower(key.text())) : key;
}

Value length(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "length", {}, 0);
  size_t n = 0;
  switch (subject.kind()) {
    case Value::Kind::undefined: break;
    case Value::Kind::string:
      in.meter.work(subject.text().size() / 16);
      n = count_code_points(subject.text());
      break;
    case Value::Kind::list:
    case Value::Kind::tuple: n = subject.items().size(); break;
    case Value::Kind::dict: n = subject.members().size(); break;
    case Value::Kind::iterator:
      if (!subject.as_iterator().once) {
        n = subject.as_iterator().items.size();
        break;
      }
      [[fallthrough]];
    default: fail("{} has no length; `| list | length` counts what a filter gives", described(subject));
  }
  return Value::integer(static_cast<int64_t>(n));
}

Value list(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "list", {}, 0);
  return Value::list(in.iterate(subject));
}

Value first(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "first", {}, 0);
  if (subject.is(Value::Kind::iterator) && subject.as_iterator().once) {
    const auto& it = subject.as_iterator();
    return it.next < it.items.size() ? it.items[it.next++]
                                     : Value::undefined("the sequence is empty, so it has no first item");
  }
  const auto items = in.iterate(subject);
  return items.empty() ? Value::undefined("the sequence is empty, so it has no first item") : items.front();
}

Value last(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "last", {}, 0);
  if (subject.is(Value::Kind::iterator) && subject.as_iterator().once)
    fail("a generator has no last item; use `| list | last`");
  const auto items = in.iterate(subject);
  return items.empty() ? Value::undefined("the sequence is empty, so it has no last item") : items.back();
}

Value joined(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "join", {"d", "attribute"}, 0);
  const std::string between = b[0] ? in.text(*b[0]) : "";
  const auto attribute = optional_value(b[1]);
  std::string out;
  bool at_start = true;
  for (const Value& item : in.iterate(subject)) {
    if (!std::exchange(at_start, false)) out += between;
    const Value part = attribute ? in.get_path(item, *attribute) : item;
    out += part.is_string() ? part.text() : in.text(part);
    in.meter.string(out.size() / 16 + between.size() + (part.is_string() ? part.text().size() : 0));
  }
  return in.make_string(std::move(out));
}

Value reversed(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "reverse", {}, 0);
  auto items = in.iterate(subject);
  std::reverse(items.begin(), items.end());
  const bool of_generator = subject.is(Value::Kind::iterator) && subject.as_iterator().once;
  if (of_generator) return Value::list(std::move(items));  // as Jinja has it
  if (!subject.is_string()) return generator(in, std::move(items));
  std::string out;
  for (const Value& c : items) out += c.text();
  return in.make_string(std::move(out));
}

Value items_of(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "items", {}, 0);
  if (subject.is_undefined()) return generator(in, {});
  if (!subject.is_dict()) fail("items is for a dict, not for {}", described(subject));
  Value::Items items;
  for (const auto& [key, value] : subject.members()) items.push_back(Value::tuple({key, value}));
  return generator(in, std::move(items));
}

// `keys[i]` belongs to `items[i]`. The order of equal keys stays, also in reverse.
Value::Items sorted(Interpreter& in, const Value::Items& items, const Value::Items& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) {
    return reverse ? compare(keys[x], keys[y], in.meter) > 0 : compare(keys[x], keys[y], in.meter) < 0;
  });
  Value::Items out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}

Value sort(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "sort", {"reverse", "case_sensitive", "attribute"}, 0);
  const auto attribute = optional_value(b[2]);
  const auto items = in.iterate(subject);
  std::vector<std::optional<Value>> parts = {attribute};
  if (attribute && attribute->is_string()) {
    parts.clear();
    for (const auto part : split(attribute->text(), ",", -1, false))
      parts.emplace_back(Value::string(std::string(part)));
  }
  Value::Items keys;
  for (const Value& item : items) {
    Value::Items key;
    for (const auto& part : parts) key.push_back(key_of(in, item, part, b.flag(1, false)));
    keys.push_back(Value::list(std::move(key)));
  }
  return Value::list(sorted(in, items, keys, b.flag(0, false)));
}

Value dict_sorted(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "dictsort", {"case_sensitive", "by", "reverse"}, 0);
  const std::string by = b[1] ? b.string(1) : "key";
  if (by != "key" && by != "value") fail("dictsort is by key or by value");
  if (!subject.is_dict()) fail("dictsort is for a dict, not for {}", described(subject));
  Value::Items items, keys;
  for (const auto& [key, value] : subject.members()) {
    in.meter.work();
    items.push_back(Value::tuple({key, value}));
    keys.push_back(key_of(in, by == "key" ? key : value, std::nullopt, b.flag(0, false)));
  }
  return Value::list(sorted(in, items, keys, b.flag(2, false)));
}

Value unique(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "unique", {"case_sensitive", "attribute"}, 0);
  const auto attribute = optional_value(b[1]);
  Value::Items kept, seen;
  for (const Value& item : in.iterate(subject)) {
    const Value key = key_of(in, item, attribute, b.flag(0, false));
    if (!key.is_undefined()) check_hashable(key);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(key, other, in.meter); }))
      continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return generator(in, std::move(kept));
}

template <int sign>
Value extreme(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, sign < 0 ? "min" : "max", {"case_sensitive", "attribute"}, 0);
  const auto attribute = optional_value(b[1]);
  const auto items = in.iterate(subject);
  if (items.empty()) return Value::undefined("the sequence is empty, so it has neither minimum nor maximum");
  size_t best = 0;
  Value best_key = key_of(in, items[0], attribute, b.flag(0, false));
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = key_of(in, items[i], attribute, b.flag(0, false));
    if (compare(key, best_key, in.meter) * sign > 0 && !unordered(key, best_key)) best = i, best_key = std::move(key);
  }
  return items[best];
}

Value sum(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "sum", {"attribute", "start"}, 0);
  const auto attribute = optional_value(b[0]);
  Value total = b[1] ? *b[1] : Value::integer(0);
  if (total.is_string()) fail("sum does not add strings; `| join` does");
  for (const Value& item : in.iterate(subject)) total = in.add(total, attribute ? in.get_path(item, *attribute) : item);
  return total;
}

Value batches(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "batch", {"linecount", "fill_with"}, 1);
  const int64_t size = b.integer(0, 0);
  if (size < 1) fail("batch: at least one in a line");
  Value::Items out, line;
  for (const Value& item : in.iterate(subject)) {
    line.push_back(item);
    if (static_cast<int64_t>(line.size()) == size) out.push_back(Value::list(std::exchange(line, {})));
  }
  if (!line.empty()) {
    if (const auto fill = optional_value(b[1])) {
      in.meter.work(static_cast<uint64_t>(size));
      line.resize(static_cast<size_t>(size), *fill);
    }
    out.push_back(Value::list(std::move(line)));
  }
  return generator(in, std::move(out));
}

Value by_default(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "default", {"default_value", "boolean"}, 0);
  if (!(subject.is_undefined() || (b.flag(1, false) && !subject.truth()))) return subject;
  return b[0] ? *b[0] : Value::string("");
}

Value attribute_of(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "attr", {"name"}, 1);
  if (subject.is_dict() && !find_method(subject, b.string(0)))
    return Value::undefined(fmt::format("a dict has no attribute {}", quoted(b.string(0))));
  return in.get_attribute(subject, b.string(0));
}

Value mapped(Interpreter& in, const Value& subject, const Arguments& args) {
  Value::Items out;
  if (!subject.truth()) return generator(in, {});
  if (args.positional.empty()) {
    const Bound b(args, "map", {"attribute", "default"}, 1);
    const auto otherwise = optional_value(b[1]);
    for (const Value& item : in.iterate(subject)) {
      Value v = in.get_path(item, *b[0]);
      out.push_back(v.is_undefined() && otherwise ? *otherwise : std::move(v));
    }
    return generator(in, std::move(out));
  }
  if (!args.positional[0].is_string()) fail("map needs the name of a filter, or attribute=");
  const Arguments rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (const Value& item : in.iterate(subject)) out.push_back(in.apply_filter(args.positional[0].text(), item, rest));
  return generator(in, std::move(out));
}

// select, reject, selectattr, rejectattr
template <bool wanted, bool of_attribute>
Value chosen(Interpreter& in, const Value& subject, const Arguments& args) {
  if (!subject.truth()) return generator(in, {});
  const size_t test_at = of_attribute ? 1 : 0;
  if (of_attribute && args.positional.empty()) fail("selectattr and rejectattr need the name of an attribute");
  Arguments rest;
  const Value* test = nullptr;
  if (args.positional.size() > test_at) {
    test = &args.positional[test_at];
    if (!test->is_string()) fail("the name of a test is a string");
    rest = {{args.positional.begin() + static_cast<std::ptrdiff_t>(test_at) + 1, args.positional.end()}, args.named};
  }
  Value::Items out;
  for (const Value& item : in.iterate(subject)) {
    const Value v = of_attribute ? in.get_path(item, args.positional[0]) : item;
    if ((test ? in.apply_test(test->text(), v, rest) : v.truth()) == wanted) out.push_back(item);
  }
  return generator(in, std::move(out));
}

}  // namespace

const FilterTable& list_filters() {
  static const FilterTable all = {{"attr", attribute_of},
                                  {"batch", batches},
                                  {"count", length},
                                  {"d", by_default},
                                  {"default", by_default},
                                  {"dictsort", dict_sorted},
                                  {"first", first},
                                  {"items", items_of},
                                  {"join", joined},
                                  {"last", last},
                                  {"length", length},
                                  {"list", list},
                                  {"map", mapped},
                                  {"max", extreme<1>},
                                  {"min", extreme<-1>},
                                  {"reject", chosen<false, false>},
                                  {"rejectattr", chosen<false, true>},
                                  {"reverse", reversed},
                                  {"select", chosen<true, false>},
                                  {"selectattr", chosen<true, true>},
                                  {"sort", sort},
                                  {"sum", sum},
                                  {"unique", unique}};
  return all;
}

}  // namespace ponder::text::jinja
