// Filters of text, and those that make text of anything.
#include <algorithm>

#include "ponder/text/jinja/filters.h"
#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

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

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable all = {{"capitalize", changed<capitalize>},
                                  {"center", centered},
                                  {"e", escaped},
                                  {"escape", escaped},
                                  {"format", formatted},
                                  {"indent", indented},
                                  {"lower", changed<to_lower>},
                                  {"replace", replaced},
                                  {"safe", to_string},
                                  {"string", to_string},
                                  {"title", changed<title_filter>},
                                  {"tojson", json},
                                  {"trim", trim},
                                  {"truncate", truncated},
                                  {"upper", changed<to_upper>},
                                  {"urlencode", url_encoded}};
  return all;
}

}  // namespace ponder::text::jinja
