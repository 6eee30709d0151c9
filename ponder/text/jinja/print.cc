// str() and repr() of values.
#include <cmath>

#include "ponder/text/jinja/object.h"
#include "ponder/text/jinja/text.h"
#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {
namespace {

class Printer {
 public:
  explicit Printer(Meter& meter) : meter_(meter) {}

  std::string repr(const Value& v) {
    print(v);
    meter_.string(out_.size());
    return std::move(out_);
  }

 private:
  void print(const Value& v) {
    // Checked on the way, not only at the end: shared lists print in full each time they occur.
    meter_.string(out_.size() / 16);
    switch (v.kind()) {
      case Value::Kind::undefined: out_ += "Undefined"; return;
      case Value::Kind::none: out_ += "None"; return;
      case Value::Kind::boolean: out_ += v.as_bool() ? "True" : "False"; return;
      case Value::Kind::integer: out_ += fmt::format_int(v.as_integer()).c_str(); return;
      case Value::Kind::big_integer: out_ += v.text(); return;
      case Value::Kind::real: out_ += real_text(v.as_real()); return;
      case Value::Kind::string:
        meter_.string(v.text().size());
        out_ += quoted(v.text());
        return;
      case Value::Kind::list: items(v.items(), "[", "]"); return;
      case Value::Kind::tuple: items(v.items(), "(", v.items().size() == 1 ? ",)" : ")"); return;
      case Value::Kind::dict: {
        out_ += '{';
        const char* between = "";
        for (const auto& [key, value] : v.members()) {
          out_ += between;
          print(key);
          out_ += ": ";
          print(value);
          between = ", ";
        }
        out_ += '}';
        return;
      }
      case Value::Kind::iterator: {
        const auto& it = v.as_iterator();
        if (it.once) fail("a {} has no text; `| list` makes a list of it", it.type);
        out_ += it.type;
        if (it.type.starts_with("dict_")) items(it.items, "([", "])");
        return;
      }
      case Value::Kind::object: out_ += "<" + v.as_object()->type_name() + ">"; return;
    }
  }

  void items(const Value::Items& list, const char* open, const char* close) {
    out_ += open;
    const char* between = "";
    for (const Value& v : list) {
      out_ += between;
      print(v);
      between = ", ";
    }
    out_ += close;
  }

  Meter& meter_;
  std::string out_;
};

}  // namespace

std::string real_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", d);  // the shortest digits, an exponent from 1e16 on and below 1e-4: as Python
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

std::string to_repr(const Value& v, Meter& meter) { return Printer(meter).repr(v); }

std::string to_text(const Value& v, Meter& meter) {
  switch (v.kind()) {
    case Value::Kind::string: return v.text();
    case Value::Kind::undefined: return {};
    default: return to_repr(v, meter);
  }
}

}  // namespace ponder::text::jinja
