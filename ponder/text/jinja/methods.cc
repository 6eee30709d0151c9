// Methods of strings, lists and dicts, and the functions of the language. Nothing here changes a value: transformers'
// sandbox refuses append, pop and update too.
#include <algorithm>
#include <map>

#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"
#include "ponder/text/jinja/time.h"

namespace ponder::text::jinja {
namespace {

using Methods = std::map<std::string_view, Function::Body>;

Value strings(Interpreter& in, const std::vector<std::string_view>& parts, bool tuple = false) {
  in.meter.work(parts.size());
  Value::Items items;
  items.reserve(parts.size());
  for (const auto part : parts) items.push_back(Value::string(std::string(part)));
  return tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

// Searching from the right compares at every place.
void search_back(Interpreter& in, std::string_view text, std::string_view sought) {
  in.meter.work(text.size() / 32 * (1 + sought.size() / 64));
}

template <std::string (*F)(std::string_view)>
Value changed(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "this method", {}, 0);
  in.meter.work(self.text().size());
  return in.make_string(F(self.text()));
}

template <Side side>
Value stripped(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "strip", {"chars"}, 0);
  const bool chars = b[0] && !b[0]->is_none();
  in.meter.string(self.text().size() * (chars ? 1 + b.string(0).size() : 1));
  return Value::string(std::string(chars ? strip(self.text(), side, b.string(0)) : strip(self.text(), side)));
}

template <bool from_right>
Value split_up(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "split", {"sep", "maxsplit"}, 0);
  const int64_t limit = b.integer(1, -1);
  in.meter.work(self.text().size() / 8);
  if (!b[0] || b[0]->is_none()) return strings(in, split_space(self.text(), limit, from_right));
  if (b.string(0).empty()) fail("split at an empty string");
  if (from_right) search_back(in, self.text(), b.string(0));
  return strings(in, split(self.text(), b.string(0), limit, from_right));
}

template <bool from_right>
Value partition(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "partition", {"sep"}, 1);
  const std::string& s = self.text();
  const std::string& sep = b.string(0);
  if (sep.empty()) fail("partition at an empty string");
  in.meter.string(s.size());
  if (from_right) search_back(in, s, sep);
  const size_t at = from_right ? s.rfind(sep) : find_text(s, sep);
  const std::string_view v = s;
  if (at == s.npos) return from_right ? strings(in, {"", "", v}, true) : strings(in, {v, "", ""}, true);
  return strings(in, {v.substr(0, at), sep, v.substr(at + sep.size())}, true);
}

// The part of a string between the code points `start` and `end`, and how many stand before it.
struct Window {
  std::string_view text;
  int64_t before = 0;
  bool empty_beyond = false;  // the start is beyond the end: nothing is found there, not even ""
};
Window window(Interpreter& in, const Value& self, const Bound& b) {
  const std::string& s = self.text();
  in.meter.work(s.size() / 8);
  const auto given = [&](size_t i) { return b[i] && !b[i]->is_none(); };
  if (!given(1) && !given(2)) return {s};
  const auto characters = code_points(s);
  const auto n = static_cast<int64_t>(characters.size());
  const auto placed = [&](size_t i, int64_t otherwise) {
    const int64_t at = given(i) ? b.integer(i, 0) : otherwise;
    return std::max<int64_t>(0, at < 0 ? at + n : at);
  };
  const int64_t start = placed(1, 0), end = std::min(n, placed(2, n));
  if (start > end) return {"", 0, true};
  const auto byte = [&](int64_t i) {
    return i == n ? s.size() : static_cast<size_t>(characters[static_cast<size_t>(i)].data() - s.data());
  };
  return {std::string_view(s).substr(byte(start), byte(end) - byte(start)), start};
}

template <bool from_right, bool must>
Value find_in(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "find", {"sub", "start", "end"}, 1);
  const Window w = window(in, self, b);
  if (from_right) search_back(in, w.text, b.string(0));
  const size_t at = from_right ? w.text.rfind(b.string(0)) : find_text(w.text, b.string(0));
  if (at == w.text.npos || w.empty_beyond) {
    if (must) fail("index: {} is not in the string", quoted(b.string(0).substr(0, 100)));
    return Value::integer(-1);
  }
  return Value::integer(w.before + static_cast<int64_t>(count_code_points(w.text.substr(0, at))));
}

template <bool at_end>
Value has_affix(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, at_end ? "endswith" : "startswith", {at_end ? "suffix" : "prefix", "start", "end"}, 1);
  const Window w = window(in, self, b);
  const auto fits = [&](const std::string& affix) {
    in.meter.work();
    return !w.empty_beyond && (at_end ? w.text.ends_with(affix) : w.text.starts_with(affix));
  };
  if (!b[0]->is(Value::Kind::tuple)) return Value::boolean(fits(b.string(0)));
  for (const Value& affix : b[0]->items()) {
    if (!affix.is_string()) fail("startswith and endswith take a string or a tuple of strings");
    if (fits(affix.text())) return Value::boolean(true);
  }
  return Value::boolean(false);
}

// Every code point is of the class and there is one.
template <bool (*F)(char32_t)>
Value all_are(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "this method", {}, 0);
  in.meter.work(self.text().size());
  for (const std::string_view c : code_points(self.text()))
    if (!F(code_point_at(c, 0).value)) return Value::boolean(false);
  return Value::boolean(!self.text().empty());
}

// Those that have a case have this one, and there is one.
template <bool upper>
Value cased(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, upper ? "isupper" : "islower", {}, 0);
  return Value::boolean(in.apply_test(upper ? "upper" : "lower", self, {}));
}

template <char align>
Value justified(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "just", {"width", "fillchar"}, 1);
  const std::string fill = b[1] ? b.string(1) : " ";
  if (count_code_points(fill) != 1) fail("the fill is one character");
  const auto length = static_cast<int64_t>(count_code_points(self.text()));
  const int64_t gap = std::max<int64_t>(0, b.integer(0, 0) - length);
  in.meter.string(self.text().size() + std::min<uint64_t>(static_cast<uint64_t>(gap), uint64_t{1} << 40) * fill.size());
  // Python's center puts the odd one left if the width is odd.
  const int64_t left = align == '<' ? 0 : align == '>' ? gap : gap / 2 + (gap & b.integer(0, 0) & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < gap; ++i) out += fill;
  return Value::string(std::move(out));
}

Value zero_filled(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "zfill", {"width"}, 1);
  const std::string& s = self.text();
  const int64_t gap = b.integer(0, 0) - static_cast<int64_t>(count_code_points(s));
  if (gap <= 0) return self;
  in.meter.string(s.size() + static_cast<size_t>(gap));
  const size_t sign = s.starts_with('-') || s.starts_with('+');
  return Value::string(s.substr(0, sign) + std::string(static_cast<size_t>(gap), '0') + s.substr(sign));
}

Value replaced(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "replace", {"old", "new", "count"}, 2);
  const int64_t limit = b.integer(2, -1);
  in.meter.string(self.text().size());
  in.meter.string(replaced_size(self.text(), b.string(0), b.string(1), limit));
  return Value::string(replace(self.text(), b.string(0), b.string(1), limit));
}

Value count_in_string(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "count", {"sub", "start", "end"}, 1);
  const Window w = window(in, self, b);
  const std::string& sub = b.string(0);
  if (w.empty_beyond) return Value::integer(0);
  if (sub.empty()) return Value::integer(static_cast<int64_t>(count_code_points(w.text)) + 1);
  int64_t n = 0;
  for (size_t at = find_text(w.text, sub); at != w.text.npos; at = find_text(w.text, sub, at + sub.size())) ++n;
  return Value::integer(n);
}

Value join(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "join", {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& v : in.iterate(*b[0])) {
    if (!v.is_string()) fail("join takes strings, not {}; the filter `| join` takes anything", described(v));
    in.meter.string(out.size() / 16 + v.text().size() + self.text().size());
    if (!std::exchange(first, false)) out += self.text();
    out += v.text();
  }
  return in.make_string(std::move(out));
}

template <bool at_end>
Value without_affix(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, at_end ? "removesuffix" : "removeprefix", {"affix"}, 1);
  const std::string& s = self.text();
  const std::string& affix = b.string(0);
  in.meter.string(s.size());
  if (at_end) return s.ends_with(affix) ? Value::string(s.substr(0, s.size() - affix.size())) : self;
  return s.starts_with(affix) ? Value::string(s.substr(affix.size())) : self;
}

Value lines(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "splitlines", {"keepends"}, 0);
  in.meter.work(self.text().size() / 8);
  return strings(in, split_lines(self.text(), b.flag(0, false)));
}

Value format(Interpreter& in, const Value& self, const Arguments& args) {
  return in.make_string(format_braces(self.text(), args, in));
}

bool is_alpha_or_digit(char32_t c) { return is_alpha(c) || is_digit(c); }

const Methods& string_methods() {
  static const Methods methods = {{"capitalize", changed<capitalize>},
                                  {"casefold", changed<to_lower>},
                                  {"center", justified<'^'>},
                                  {"count", count_in_string},
                                  {"endswith", has_affix<true>},
                                  {"find", find_in<false, false>},
                                  {"format", format},
                                  {"index", find_in<false, true>},
                                  {"isalnum", all_are<is_alpha_or_digit>},
                                  {"isalpha", all_are<is_alpha>},
                                  {"isdecimal", all_are<is_digit>},
                                  {"isdigit", all_are<is_digit>},
                                  {"islower", cased<false>},
                                  {"isnumeric", all_are<is_digit>},
                                  {"isspace", all_are<is_space>},
                                  {"isupper", cased<true>},
                                  {"join", join},
                                  {"ljust", justified<'<'>},
                                  {"lower", changed<to_lower>},
                                  {"lstrip", stripped<Side::left>},
                                  {"partition", partition<false>},
                                  {"removeprefix", without_affix<false>},
                                  {"removesuffix", without_affix<true>},
                                  {"replace", replaced},
                                  {"rfind", find_in<true, false>},
                                  {"rindex", find_in<true, true>},
                                  {"rjust", justified<'>'>},
                                  {"rpartition", partition<true>},
                                  {"rsplit", split_up<true>},
                                  {"rstrip", stripped<Side::right>},
                                  {"split", split_up<false>},
                                  {"splitlines", lines},
                                  {"startswith", has_affix<false>},
                                  {"strip", stripped<Side::both>},
                                  {"swapcase", changed<swap_case>},
                                  {"title", changed<title_method>},
                                  {"upper", changed<to_upper>},
                                  {"zfill", zero_filled}};
  return methods;
}

Value view(Interpreter& in, const char* type, Value::Items items) {
  in.meter.work(items.size());
  return Value::iterator({type, std::move(items)});
}

Value dict_keys(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "keys", {}, 0);
  Value::Items keys;
  for (const auto& [key, value] : self.members()) keys.push_back(key);
  return view(in, "dict_keys", std::move(keys));
}
Value dict_values(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "values", {}, 0);
  Value::Items values;
  for (const auto& [key, value] : self.members()) values.push_back(value);
  return view(in, "dict_values", std::move(values));
}
Value dict_items(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "items", {}, 0);
  Value::Items items;
  for (const auto& [key, value] : self.members()) items.push_back(Value::tuple({key, value}));
  return view(in, "dict_items", std::move(items));
}
Value dict_get(Interpreter&, const Value& self, const Arguments& args) {
  const Bound b(args, "get", {"key", "default"}, 1);
  check_hashable(*b[0]);
  if (const Value* v = self.find(*b[0])) return *v;
  return b[1] ? *b[1] : Value();
}
Value copy(Interpreter&, const Value& self, const Arguments& args) {
  const Bound b(args, "copy", {}, 0);
  return self;
}

const Methods& dict_methods() {
  static const Methods methods = {
      {"copy", copy}, {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}};
  return methods;
}

Value list_count(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "count", {"value"}, 1);
  int64_t n = 0;
  for (const Value& v : self.items()) n += equal(v, *b[0], in.meter);
  return Value::integer(n);
}
Value list_index(Interpreter& in, const Value& self, const Arguments& args) {
  const Bound b(args, "index", {"value"}, 1);
  for (size_t i = 0; i < self.items().size(); ++i)
    if (equal(self.items()[i], *b[0], in.meter)) return Value::integer(static_cast<int64_t>(i));
  fail("index: no such item in the list");
}

const Methods& list_methods() {
  static const Methods methods = {{"copy", copy}, {"count", list_count}, {"index", list_index}};
  return methods;
}

// --- Functions -------------------------------------------------------------------------------------------------------

Value range(Interpreter& in, const Value&, const Arguments& args) {
  constexpr int64_t kMaxRange = 100'000;  // Jinja's sandbox has the same
  const Bound b(args, "range", {"start", "stop", "step"}, 1);
  const int64_t start = b[1] ? b.integer(0, 0) : 0, stop = b[1] ? b.integer(1, 0) : b.integer(0, 0);
  const int64_t step = b.integer(2, 1);
  if (step == 0) fail("range: the step is zero");
  Value::Items items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) fail("range: more than {} numbers", kMaxRange);
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  in.meter.work(items.size());
  return Value::iterator(
      {step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step),
       std::move(items)});
}

Value dict(Interpreter& in, const Value&, const Arguments& args) {
  Value::Members members;
  if (args.positional.size() > 1) fail("dict takes one dict or list of pairs, and named values");
  for (const Value& v : args.positional) {
    if (v.is_dict()) {
      members = v.members();
      continue;
    }
    for (const Value& pair : in.iterate(v)) {
      Value::Items parts = in.iterate(pair);
      if (parts.size() != 2) fail("dict takes pairs, not {} values", parts.size());
      members.emplace_back(std::move(parts[0]), std::move(parts[1]));
    }
  }
  for (const auto& [name, value] : args.named) members.emplace_back(Value::string(name), value);
  in.meter.work(members.size());
  return Value::dict(std::move(members));
}

Value make_namespace(Interpreter& in, const Value&, const Arguments& args) { return in.new_namespace(args); }

Value raise_exception(Interpreter& in, const Value&, const Arguments& args) {
  const Bound b(args, "raise_exception", {"message"}, 1);
  fail("the template refuses this conversation: {}", in.text(*b[0]).substr(0, 1000));
}

Value strftime_now(Interpreter& in, const Value&, const Arguments& args) {
  const Bound b(args, "strftime_now", {"format"}, 1);
  return in.make_string(format_time(b.string(0), in.options.now ? *in.options.now : local_time_now()));
}

}  // namespace

Function::Body find_method(const Value& self, std::string_view name) {
  const Methods* methods = nullptr;
  if (self.is_string()) methods = &string_methods();
  if (self.is_dict()) methods = &dict_methods();
  if (self.is_sequence()) methods = &list_methods();
  if (!methods) return nullptr;
  const auto at = methods->find(name);
  return at == methods->end() ? nullptr : at->second;
}

bool changes_its_value(const Value& self, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "clear",  "extend",  "insert",
                                               "pop",    "remove", "reverse", "sort"};
  if (self.is_dict()) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return self.is(Value::Kind::list) && std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
}

Function::Body find_function(std::string_view name) {
  static const Methods functions = {{"dict", dict},
                                    {"namespace", make_namespace},
                                    {"raise_exception", raise_exception},
                                    {"range", range},
                                    {"strftime_now", strftime_now}};
  const auto at = functions.find(name);
  return at == functions.end() ? nullptr : at->second;
}

}  // namespace ponder::text::jinja
