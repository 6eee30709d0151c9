// The filters. docs: https://jinja.palletsprojects.com/templates/#builtin-filters; tojson is transformers'.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

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

// --- Text ------------------------------------------------------------------------------------------------------------

template <std::string (*F)(std::string_view)>
Value changed(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "this filter", {}, 0);
  const std::string s = in.text(subject);
  in.meter.work(s.size());
  return in.make_string(F(s));
}

Value to_string(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "string", {}, 0);
  return subject.is_string() ? subject : in.make_string(in.text(subject));
}

Value trim(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "trim", {"chars"}, 0);
  const std::string s = in.text(subject);
  if (!b[0] || b[0]->is_none()) return in.make_string(std::string(strip(s, Side::both)));
  in.meter.string(s.size() * (1 + b.string(0).size()));
  return in.make_string(std::string(strip(s, Side::both, b.string(0))));
}

Value replaced(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "replace", {"old", "new", "count"}, 2);
  const std::string s = in.text(subject), from = in.text(*b[0]), to = in.text(*b[1]);
  const int64_t limit = b[2] && b[2]->is_none() ? -1 : b.integer(2, -1);
  in.meter.string(replaced_size(s, from, to, limit));
  return Value::string(replace(s, from, to, limit));
}

Value escaped(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "escape", {}, 0);
  std::string out;
  for (const char c : in.text(subject)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '\'')
      out += "&#39;";
    else if (c == '"')
      out += "&#34;";
    else
      out += c;
  }
  return in.make_string(std::move(out));
}

Value indented(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "indent", {"width", "first", "blank"}, 0);
  std::string margin = "    ";
  if (b[0] && b[0]->is_string()) {
    margin = b[0]->text();
  } else if (b[0]) {
    const int64_t width = std::max<int64_t>(0, b.integer(0, 4));
    in.meter.string(static_cast<size_t>(width));
    margin = std::string(static_cast<size_t>(width), ' ');
  }
  if (!subject.is_string()) fail("indent is for strings, not for {}", described(subject));
  const bool blank = b.flag(2, false);
  std::string out = b.flag(1, false) ? margin : "";
  const std::string with_end = subject.text() + "\n";
  const auto lines = split_lines(with_end, false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (blank || !lines[i].empty())) out += margin;
    out += lines[i];
    in.meter.string(out.size() / 16 + margin.size());
  }
  return in.make_string(std::move(out));
}

Value truncated(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "truncate", {"length", "killwords", "end", "leeway"}, 0);
  if (!subject.is_string()) fail("truncate is for strings, not for {}", described(subject));
  const std::string end = b[2] ? b.string(2) : "...";
  const int64_t length = b.integer(0, 255), leeway = b[3] && b[3]->is_none() ? 5 : b.integer(3, 5);
  const auto end_length = static_cast<int64_t>(count_code_points(end));
  if (length < end_length || leeway < 0) fail("truncate: length is at least that of end, leeway at least 0");
  in.meter.work(subject.text().size() / 8);
  const auto characters = code_points(subject.text());
  if (static_cast<uint64_t>(characters.size()) <= static_cast<uint64_t>(length) + static_cast<uint64_t>(leeway))
    return subject;
  const auto kept =
      static_cast<size_t>(characters[static_cast<size_t>(length - end_length)].data() - subject.text().data());
  std::string_view text = std::string_view(subject.text()).substr(0, kept);
  if (!b.flag(1, false)) text = text.substr(0, std::min(text.rfind(' '), text.size()));
  return in.make_string(std::string(text) + end);
}

Value centered(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "center", {"width"}, 0);
  const Value width = Value::integer(b.integer(0, 80));
  return in.call(in.get_attribute(in.make_string(in.text(subject)), "center"), {{width}, {}});
}

Value formatted(Interpreter& in, const Value& subject, const Arguments& args) {
  if (!args.positional.empty() && !args.named.empty()) fail("format takes values or named values, not both");
  Value values = Value::tuple(args.positional);
  if (!args.named.empty()) {
    Value::Members named;
    for (const auto& [name, value] : args.named) named.emplace_back(Value::string(name), value);
    values = Value::dict(std::move(named));
  }
  return in.make_string(format_percent(in.text(subject), values, in.meter));
}

Value url_encoded(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "urlencode", {}, 0);
  std::string out;
  const auto quote = [&](const std::string& s, std::string_view safe) {
    for (const char c : s) {
      const auto u = static_cast<unsigned char>(c);
      if (u < 0x80 &&
          (std::isalnum(u) || std::string_view("_.-~").find(c) != std::string_view::npos || safe.find(c) != safe.npos))
        out += c;
      else if (c == ' ' && safe.empty())
        out += '+';
      else
        out += fmt::format("%{:02X}", u);
    }
  };
  if (!subject.is_dict() && !subject.is_sequence()) return quote(in.text(subject), "/"), in.make_string(std::move(out));
  const Value pairs = subject.is_dict() ? in.call(in.get_attribute(subject, "items"), {}) : subject;
  for (const Value& pair : in.iterate(pairs)) {
    const auto parts = in.iterate(pair);
    if (parts.size() != 2) fail("urlencode takes a string, a dict or pairs");
    if (!out.empty()) out += '&';
    quote(in.text(parts[0]), "");
    out += '=';
    quote(in.text(parts[1]), "");
  }
  return in.make_string(std::move(out));
}

Value json(Interpreter& in, const Value& subject, const Arguments& args) {
  const Bound b(args, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style{.ensure_ascii = b.flag(0, false), .sort_keys = b.flag(3, false)};
  if (b[1] && !b[1]->is_none()) {
    style.indented = true;
    style.item_separator = ",";
    if (b[1]->is_string()) {
      style.indent = b[1]->text();
    } else {
      const int64_t width = std::max<int64_t>(0, b.integer(1, 0));
      if (width > 1000) fail("tojson: an indent of more than 1000");
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
  }
  if (b[2] && !b[2]->is_none()) {
    const auto separators = in.iterate(*b[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      fail("tojson: separators is a pair of strings");
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  return Value::string(to_json(subject, style, in.meter));
}

// --- Numbers ---------------------------------------------------------------------------------------------------------

// Python's float(text).
std::optional<double> parse_real(std::string_view text) {
  std::string s(strip(text, Side::both));
  for (size_t i = 0; i < s.size(); ++i)
    if (s[i] == '_' && (i == 0 || i + 1 == s.size() || !is_digit(static_cast<unsigned char>(s[i - 1])) ||
                        !is_digit(static_cast<unsigned char>(s[i + 1]))))
      return std::nullopt;
  std::erase(s, '_');
  if (s.empty() || s.size() > 1000 || s.find_first_of("xX(pP") != s.npos) return std::nullopt;
  char* end = nullptr;
  const double d = std::strtod(s.c_str(), &end);
  return end == s.c_str() + s.size() ? std::optional(d) : std::nullopt;
}

// Python's int(text, base).
std::optional<int64_t> parse_integer(std::string_view text, int base) {
  std::string s(strip(text, Side::both));
  const bool negative = s.starts_with('-');
  if (negative || s.starts_with('+')) s.erase(0, 1);
  const char mark = s.size() > 2 && s[0] == '0' ? static_cast<char>(s[1] | 32) : ' ';
  const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  if (marked != 0 && (base == marked || base == 0)) {
    base = marked;
    s.erase(0, 2);
    if (s.starts_with('_')) s.erase(0, 1);
  } else if (base == 0) {
    if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0_") != s.npos) return std::nullopt;
    base = 10;
  }
  if (s.empty() || s.front() == '_' || s.back() == '_' || s.find("__") != s.npos || s[0] == '-') return std::nullopt;
  std::erase(s, '_');
  if (negative) s.insert(s.begin(), '-');
  int64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (end != s.data() + s.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range)
    fail("{} is beyond 64 bits; Python has larger integers, this does not", text.substr(0, 40));
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

Value truncated_integer(double d) {
  if (!(std::fabs(d) < 9223372036854775808.0))
    fail("a number beyond 64 bits; Python has larger integers, this does not");
  return Value::integer(static_cast<int64_t>(d));
}

Value to_integer(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "int", {"default", "base"}, 0);
  const Value otherwise = b[0] ? *b[0] : Value::integer(0);
  if (subject.is_undefined()) fail("{}", subject.text());
  if (subject.is_integral()) return Value::integer(subject.as_integer());
  if (subject.is(Value::Kind::big_integer)) return subject;
  if (subject.is(Value::Kind::real))
    return std::isnan(subject.as_real()) ? otherwise : truncated_integer(subject.as_real());
  if (!subject.is_string()) return otherwise;
  const int64_t base = b.integer(1, 10);
  if (base != 0 && (base < 2 || base > 36)) return otherwise;
  if (const auto i = parse_integer(subject.text(), static_cast<int>(base))) return Value::integer(*i);
  const auto d = parse_real(subject.text());
  return d && std::isfinite(*d) ? truncated_integer(*d) : otherwise;
}

Value to_real(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "float", {"default"}, 0);
  if (subject.is_undefined()) fail("{}", subject.text());
  if (subject.is_number()) return Value::real(subject.as_real());
  const bool text = subject.is_string() || subject.is(Value::Kind::big_integer);
  if (const auto d = text ? parse_real(subject.text()) : std::nullopt) return Value::real(*d);
  return b[0] ? *b[0] : Value::real(0);
}

Value absolute(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "abs", {}, 0);
  if (!subject.is_number()) fail("abs is for numbers, not for {}", described(subject));
  if (!subject.is_integral()) return Value::real(std::fabs(subject.as_real()));
  if (subject.as_integer() == std::numeric_limits<int64_t>::min()) fail("abs: beyond 64 bits");
  return Value::integer(std::abs(subject.as_integer()));
}

Value rounded(Interpreter&, const Value& subject, const Arguments& args) {
  const Bound b(args, "round", {"precision", "method"}, 0);
  const std::string method = b[1] ? b.string(1) : "common";
  if (!subject.is_number()) fail("round is for numbers, not for {}", described(subject));
  const int64_t precision = std::clamp<int64_t>(b.integer(0, 0), -400, 400);
  const double x = subject.as_real();
  if (method == "common") {
    if (subject.is_integral() && precision >= 0) return Value::integer(subject.as_integer());
    // Half to even on the exact value, as Python rounds.
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    const double result = !std::isfinite(x)   ? x
                          : precision >= 0    ? std::strtod(fmt::format("{:.{}f}", x, precision).c_str(), nullptr)
                          : std::isinf(scale) ? 0.0
                                              : std::nearbyint(x / scale) * scale;
    return subject.is_integral() ? truncated_integer(result) : Value::real(result);
  }
  if (method != "ceil" && method != "floor") fail("round: the method is common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = x * scale;
  if (!std::isfinite(scaled)) fail("round: the number is too large");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

// --- Lists -----------------------------------------------------------------------------------------------------------

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

const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> all = {{"abs", absolute},
                                                         {"attr", attribute_of},
                                                         {"batch", batches},
                                                         {"capitalize", changed<capitalize>},
                                                         {"center", centered},
                                                         {"count", length},
                                                         {"d", by_default},
                                                         {"default", by_default},
                                                         {"dictsort", dict_sorted},
                                                         {"e", escaped},
                                                         {"escape", escaped},
                                                         {"first", first},
                                                         {"float", to_real},
                                                         {"format", formatted},
                                                         {"indent", indented},
                                                         {"int", to_integer},
                                                         {"items", items_of},
                                                         {"join", joined},
                                                         {"last", last},
                                                         {"length", length},
                                                         {"list", list},
                                                         {"lower", changed<to_lower>},
                                                         {"map", mapped},
                                                         {"max", extreme<1>},
                                                         {"min", extreme<-1>},
                                                         {"reject", chosen<false, false>},
                                                         {"rejectattr", chosen<false, true>},
                                                         {"replace", replaced},
                                                         {"reverse", reversed},
                                                         {"round", rounded},
                                                         {"safe", to_string},
                                                         {"select", chosen<true, false>},
                                                         {"selectattr", chosen<true, true>},
                                                         {"sort", sort},
                                                         {"string", to_string},
                                                         {"sum", sum},
                                                         {"title", changed<title_filter>},
                                                         {"tojson", json},
                                                         {"trim", trim},
                                                         {"truncate", truncated},
                                                         {"unique", unique},
                                                         {"upper", changed<to_upper>},
                                                         {"urlencode", url_encoded}};
  return all;
}

}  // namespace

Filter find_filter(std::string_view name) {
  const auto at = filters().find(name);
  return at == filters().end() ? nullptr : at->second;
}

std::string filter_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, f] : filters()) names.push_back(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace ponder::text::jinja
