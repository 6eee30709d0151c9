// JSON to values and back. The reader is a SAX handler of its own, since ponder/base's sorts the keys of an object and
// templates show their order.
#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "ponder/base/json_value.h"
#include "ponder/base/utf8.h"
#include "ponder/text/jinja/text.h"
#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {
namespace {

class ValueBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit ValueBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add({}); }
  bool boolean(bool value) override { return add(Value::boolean(value)); }
  bool number_integer(number_integer_t value) override { return add(Value::integer(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    return add(value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
                   ? Value::integer(static_cast<int64_t>(value))
                   : Value::big_integer(fmt::format("{}", value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return add(text.find_first_of(".eE") == text.npos ? Value::big_integer(text) : Value::real(value));
  }
  bool string(string_t& value) override { return add(Value::string(std::move(value))); }
  bool binary(binary_t&) override { return refuse("binary data"); }
  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }
  bool end_object() override {
    Value done = Value::dict(std::move(levels_.back().members));
    levels_.pop_back();
    return put(std::move(done));
  }
  bool end_array() override {
    Value done = Value::list(std::move(levels_.back().items));
    levels_.pop_back();
    return put(std::move(done));
  }
  bool key(string_t& name) override {
    if (!levels_.back().keys.insert(name).second)
      return refuse(fmt::format("the key \"{}\" stands twice in one object", name.substr(0, 100)));
    levels_.back().key = Value::string(std::move(name));
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return refuse(fmt::format("byte {}: this is not JSON", position));
  }

  Value result() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

 private:
  struct Level {
    bool object;
    Value::Items items;
    Value::Members members;
    std::unordered_set<std::string> keys;
    Value key;
  };
  bool open(bool object) {
    if (static_cast<int>(levels_.size()) >= limits_.max_depth)
      return refuse(fmt::format("more than {} levels of nesting", limits_.max_depth));
    levels_.push_back({.object = object});
    return count();
  }
  bool add(Value value) { return count() && put(std::move(value)); }
  bool put(Value value) {
    if (levels_.empty())
      root_ = std::move(value);
    else if (levels_.back().object)
      levels_.back().members.emplace_back(std::move(levels_.back().key), std::move(value));
    else
      levels_.back().items.push_back(std::move(value));
    return true;
  }
  bool count() {
    return ++values_ <= limits_.max_values || refuse(fmt::format("more than {} values", limits_.max_values));
  }
  bool refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  const JsonLimits& limits_;
  std::vector<Level> levels_;
  Value root_;
  size_t values_ = 0;
  std::string problem_;
};

class JsonPrinter {
 public:
  JsonPrinter(const JsonStyle& style, Meter& meter) : style_(style), meter_(meter) {}

  std::string print(const Value& v) {
    value(v);
    meter_.string(out_.size());
    return std::move(out_);
  }

 private:
  void value(const Value& v) {
    meter_.work();
    switch (v.kind()) {
      case Value::Kind::none: out_ += "null"; return;
      case Value::Kind::boolean: out_ += v.as_bool() ? "true" : "false"; return;
      case Value::Kind::integer: out_ += fmt::format_int(v.as_integer()).c_str(); return;
      case Value::Kind::big_integer: out_ += v.text(); return;
      case Value::Kind::real: out_ += real(v.as_real()); return;
      case Value::Kind::string: quote(v.text()); return;
      case Value::Kind::list:
      case Value::Kind::tuple: group('[', ']', v.items().size(), [&](size_t i) { value(v.items()[i]); }); return;
      case Value::Kind::dict: {
        std::vector<const std::pair<Value, Value>*> members;
        for (const auto& m : v.members()) members.push_back(&m);
        if (style_.sort_keys)
          std::stable_sort(members.begin(), members.end(),
                           [&](const auto* a, const auto* b) { return compare(a->first, b->first, meter_) < 0; });
        group('{', '}', members.size(), [&](size_t i) {
          key(members[i]->first);
          out_ += style_.key_separator;
          value(members[i]->second);
        });
        return;
      }
      case Value::Kind::undefined: fail("{}, and JSON has no undefined", v.text());
      case Value::Kind::iterator:
      case Value::Kind::object:
        fail("{} has no form in JSON; `| list` makes a list of what a filter gives", described(v));
    }
  }

  static std::string real(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return real_text(d);
  }

  void key(const Value& k) {
    switch (k.kind()) {
      case Value::Kind::string: quote(k.text()); return;
      case Value::Kind::none:
      case Value::Kind::boolean:
      case Value::Kind::integer:
      case Value::Kind::big_integer:
      case Value::Kind::real:
        out_ += '"';
        value(k);
        out_ += '"';
        return;
      default: fail("{} as a key has no form in JSON", described(k));
    }
  }

  template <class F>
  void group(char open, char close, size_t n, F&& item) {
    out_ += open;
    if (n > 0) {
      ++level_;
      for (size_t i = 0; i < n; ++i) {
        if (i > 0) out_ += style_.item_separator;
        new_line();
        item(i);
      }
      --level_;
      new_line();
    }
    out_ += close;
  }

  void new_line() {
    // Checked on the way, not only at the end: shared lists print in full each time they occur.
    meter_.string(out_.size() / 16 + style_.indent.size() * level_);
    if (!style_.indented) return;
    out_ += '\n';
    for (size_t i = 0; i < level_; ++i) out_ += style_.indent;
  }

  void quote(const std::string& text) {
    meter_.string(text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = code_point_at(text, at);
      switch (c.value) {
        case '"': out_ += "\\\""; break;
        case '\\': out_ += "\\\\"; break;
        case '\n': out_ += "\\n"; break;
        case '\r': out_ += "\\r"; break;
        case '\t': out_ += "\\t"; break;
        case '\b': out_ += "\\b"; break;
        case '\f': out_ += "\\f"; break;
        default:
          if (c.value < 0x20 || (style_.ensure_ascii && c.value >= 0x7f)) {
            const uint32_t u = c.value;
            if (u < 0x10000)
              out_ += fmt::format("\\u{:04x}", u);
            else
              out_ +=
                  fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((u - 0x10000) >> 10), 0xDC00 + ((u - 0x10000) & 0x3FF));
          } else {
            out_.append(text, at, c.bytes);
          }
      }
      at += c.bytes;
    }
    out_ += '"';
  }

  const JsonStyle& style_;
  Meter& meter_;
  std::string out_;
  size_t level_ = 0;
};

}  // namespace

Value Value::from_json(std::string_view text, const std::string& name) {
  const JsonLimits limits;
  if (text.size() > limits.max_bytes)
    throw_error(Exit::data, "{}: {} bytes of JSON, more than the {} allowed here", name, text.size(), limits.max_bytes);
  // nlohmann's lexer takes NUL for the end of input and would not look at what follows it.
  if (const size_t nul = text.find('\0'); nul != text.npos)
    throw_error(Exit::data, "{}: byte {}: a NUL byte", name, nul);
  ValueBuilder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) throw_error(Exit::data, "{}: {}", name, builder.problem());
  return builder.result();
}

std::string Value::to_json() const {
  Meter meter(std::numeric_limits<uint64_t>::max(), std::numeric_limits<size_t>::max());
  return jinja::to_json(*this, {}, meter);
}

std::string to_json(const Value& v, const JsonStyle& style, Meter& meter) { return JsonPrinter(style, meter).print(v); }

}  // namespace ponder::text::jinja
