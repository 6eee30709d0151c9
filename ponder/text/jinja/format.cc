// "%5.2f" % x and "{:>5}".format(x).
#include <cmath>
#include <cstdio>

#include "ponder/text/jinja/interpreter.h"
#include "ponder/text/jinja/object.h"
#include "ponder/text/jinja/text.h"

namespace ponder::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1000;

struct Spec {
  std::string_view fill = " ";
  char align = 0;  // < > ^ =; 0: numbers right, the rest left
  char sign = '-';
  bool alternate = false, commas = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

std::string integer_digits(const Value& v, const Spec& spec) {
  const auto magnitude =
      v.as_integer() < 0 ? 0 - static_cast<uint64_t>(v.as_integer()) : static_cast<uint64_t>(v.as_integer());
  switch (spec.type) {
    case 'x': return fmt::format("{}{:x}", spec.alternate ? "0x" : "", magnitude);
    case 'X': return fmt::format("{}{:X}", spec.alternate ? "0X" : "", magnitude);
    case 'o': return fmt::format("{}{:o}", spec.alternate ? "0o" : "", magnitude);
    case 'b': return fmt::format("{}{:b}", spec.alternate ? "0b" : "", magnitude);
    default: return fmt::format("{}", magnitude);
  }
}

std::string real_digits(double magnitude, const Spec& spec) {
  if (spec.type == 0) return real_text(magnitude);
  const double shown = spec.type == '%' ? magnitude * 100 : magnitude;
  const char type = spec.type == '%' ? 'f' : spec.type;
  const char format[] = {'%',
                         spec.alternate ? '#' : '.',
                         spec.alternate ? '.' : '*',
                         spec.alternate ? '*' : type,
                         spec.alternate ? type : '\0',
                         '\0'};
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  const int n = std::snprintf(nullptr, 0, format, precision, shown);
  std::string out(static_cast<size_t>(n) + 1, '\0');
  std::snprintf(out.data(), out.size(), format, precision, shown);
  out.pop_back();
  return spec.type == '%' ? out + '%' : out;
}

void put_commas(std::string& digits) {
  size_t end = 0;
  while (end < digits.size() && is_digit(static_cast<unsigned char>(digits[end]))) ++end;
  for (size_t at = end; at > 3; at -= 3) digits.insert(at - 3, ",");
}

std::string padded(std::string body, const std::string& sign, const Spec& spec, char align) {
  const auto length = static_cast<int64_t>(count_code_points(body) + sign.size());
  if (length >= spec.width) return sign + body;
  const int64_t gap = spec.width - length;
  const auto fill = [&](int64_t n) {
    std::string s;
    for (int64_t i = 0; i < n; ++i) s += spec.fill;
    return s;
  };
  switch (align) {
    case '<': return sign + body + fill(gap);
    case '^': return fill(gap / 2) + sign + body + fill(gap - gap / 2);
    case '=': return sign + fill(gap) + body;
    default: return fill(gap) + sign + body;
  }
}

std::string format_number(const Value& v, const Spec& spec) {
  const bool integral =
      v.is_integral() && (spec.type == 0 || std::string_view("dxXob").find(spec.type) != std::string_view::npos);
  if (!integral && spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) == std::string_view::npos)
    fail("the format {} does not fit {}", quoted(std::string(1, spec.type)), described(v));
  const bool negative = integral ? v.as_integer() < 0 : std::signbit(v.as_real()) && !std::isnan(v.as_real());
  Spec used = spec;
  if (!integral && spec.type == 0 && spec.precision >= 0) used.type = 'g';
  std::string digits = integral ? integer_digits(v, used) : real_digits(std::fabs(v.as_real()), used);
  if (spec.commas) put_commas(digits);
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  return padded(std::move(digits), sign, spec, spec.align ? spec.align : '>');
}

std::string format_text(std::string text, const Spec& spec) {
  if (spec.precision >= 0) {
    const auto characters = code_points(text);
    if (static_cast<size_t>(spec.precision) < characters.size())
      text.resize(static_cast<size_t>(characters[static_cast<size_t>(spec.precision)].data() - text.data()));
  }
  return padded(std::move(text), "", spec, spec.align == '=' || spec.align == 0 ? '<' : spec.align);
}

int64_t read_number(const std::string& s, size_t& at) {
  int64_t n = 0;
  while (at < s.size() && is_digit(static_cast<unsigned char>(s[at]))) {
    n = n * 10 + (s[at++] - '0');
    if (n > kMaxWidth) fail("a width or precision above {}", kMaxWidth);
  }
  return n;
}

int64_t checked_width(const Value& v) {
  if (!v.is_integral() || v.as_integer() > kMaxWidth || v.as_integer() < -kMaxWidth)
    fail("a width or precision is an integer up to {}", kMaxWidth);
  return v.as_integer();
}

class Percent {
 public:
  Percent(const std::string& format, const Value& values, Meter& meter)
      : format_(format), values_(values), meter_(meter) {}

  std::string run() {
    for (size_t at = 0; at < format_.size();) {
      const size_t mark = std::min(format_.find('%', at), format_.size());
      out_.append(format_, at, mark - at);
      at = mark;
      if (at < format_.size()) field(++at);
    }
    if (!values_.is_dict() && next_ < count() && !(values_.is_sequence() && values_.is(Value::Kind::list) && next_ > 0))
      fail("more values than the format has places for");
    return std::move(out_);
  }

 private:
  size_t count() const { return values_.is(Value::Kind::tuple) ? values_.items().size() : 1; }
  const Value& next() {
    if (next_ >= count()) fail("the format has more places than there are values");
    const Value& v = values_.is(Value::Kind::tuple) ? values_.items()[next_] : values_;
    ++next_;
    return v;
  }

  void field(size_t& at) {
    const Value* named = nullptr;
    if (at < format_.size() && format_[at] == '(') {
      const size_t close = format_.find(')', at);
      if (close == format_.npos) fail("a format with ( but no )");
      named = values_.find(std::string_view(format_).substr(at + 1, close - at - 1));
      if (!named) fail("the format asks for {}, which is not there", quoted(format_.substr(at + 1, close - at - 1)));
      at = close + 1;
    }
    Spec spec;
    bool zero = false;
    for (; at < format_.size() && std::string_view("-+ #0").find(format_[at]) != std::string_view::npos; ++at) {
      if (format_[at] == '-') spec.align = '<';
      if (format_[at] == '+') spec.sign = '+';
      if (format_[at] == ' ' && spec.sign == '-') spec.sign = ' ';
      if (format_[at] == '#') spec.alternate = true;
      if (format_[at] == '0') zero = true;
    }
    const auto size = [&] {
      return at < format_.size() && format_[at] == '*' ? (++at, checked_width(next())) : read_number(format_, at);
    };
    spec.width = size();
    if (spec.width < 0) spec.align = '<', spec.width = -spec.width;
    if (at < format_.size() && format_[at] == '.') ++at, spec.precision = std::max<int64_t>(0, size());
    if (at >= format_.size()) fail("the format ends after %");
    const char type = format_[at++];
    if (type == '%') return void(out_ += '%');
    const Value& v = named ? *named : next();
    if (type == 's' || type == 'r') {
      if (spec.align == 0) spec.align = '>';
      out_ += format_text(type == 's' ? to_text(v, meter_) : to_repr(v, meter_), spec);
    } else if (std::string_view("diuxXoeEfFgG").find(type) != std::string_view::npos) {
      if (!v.is_number()) fail("%{} needs a number, not {}", type, described(v));
      if (zero && spec.align == 0) spec.fill = "0", spec.align = '=';
      spec.type = type == 'i' || type == 'u' ? 'd' : type;
      const bool to_integer = spec.type == 'd' && !v.is_integral();
      if (to_integer && !(std::fabs(v.as_real()) < 9e18)) fail("%d of a number beyond 64 bits");
      out_ += format_number(to_integer ? Value::integer(static_cast<int64_t>(v.as_real())) : v, spec);
    } else {
      fail("{} is not a format; there are %s %r %d %i %u %x %X %o %e %f %g %%", quoted(std::string("%") + type));
    }
    meter_.string(out_.size());
  }

  const std::string& format_;
  const Value& values_;
  Meter& meter_;
  size_t next_ = 0;
  std::string out_;
};

Spec read_spec(const std::string& s) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < s.size() && std::string_view("<>^=").find(s[i]) != std::string_view::npos;
  };
  if (!s.empty() && is_align(code_point_at(s, 0).bytes)) {
    at = code_point_at(s, 0).bytes;
    spec.fill = std::string_view(s).substr(0, at);
    spec.align = s[at++];
  } else if (is_align(0)) {
    spec.align = s[at++];
  }
  const auto has = [&](char c) { return at < s.size() && s[at] == c && (++at, true); };
  if (has('+'))
    spec.sign = '+';
  else if (has(' '))
    spec.sign = ' ';
  else
    has('-');
  spec.alternate = has('#');
  if (has('0')) {
    if (spec.fill == " ") spec.fill = "0";
    if (spec.align == 0) spec.align = '=';
  }
  spec.width = read_number(s, at);
  spec.commas = has(',');
  if (has('.')) spec.precision = read_number(s, at);
  if (at < s.size()) spec.type = s[at++];
  if (at < s.size() || (spec.type && std::string_view("sdxXobeEfFgG%").find(spec.type) == std::string_view::npos))
    fail("{} is not a format", quoted(s));
  return spec;
}

}  // namespace

std::string format_percent(const std::string& format, const Value& values, Meter& meter) {
  return Percent(format, values, meter).run();
}

std::string format_braces(const std::string& format, const Arguments& args, Interpreter& in) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size();) {
    const char c = format[at];
    if (c != '{' && c != '}') {
      const size_t end = std::min(format.find_first_of("{}", at), format.size());
      out.append(format, at, end - at);
      at = end;
      continue;
    }
    if (at + 1 < format.size() && format[at + 1] == c) {
      out += c;
      at += 2;
      continue;
    }
    const size_t close = format.find('}', at);
    if (c == '}' || close == format.npos) fail("a single {} in a format; write it twice", quoted(std::string(1, c)));
    std::string field = format.substr(at + 1, close - at - 1), spec;
    if (field.find('{') != field.npos) fail("a format inside a format is not supported");
    at = close + 1;
    if (const size_t colon = field.find(':'); colon != field.npos) {
      spec = field.substr(colon + 1);
      field.resize(colon);
    }
    char conversion = 0;
    if (field.size() >= 2 && field[field.size() - 2] == '!') {
      conversion = field.back();
      field.resize(field.size() - 2);
    }
    const size_t path = std::min(field.find_first_of(".["), field.size());
    const std::string first = field.substr(0, path);
    const Value* chosen = nullptr;
    if (first.find_first_not_of("0123456789") == first.npos) {
      size_t digit = 0;
      const size_t i = first.empty() ? next++ : static_cast<size_t>(read_number(first, digit));
      if (i < args.positional.size()) chosen = &args.positional[i];
    } else {
      for (const auto& [name, value] : args.named)
        if (name == first) chosen = &value;
    }
    if (!chosen) fail("the format asks for {}, which is not there", quoted(first));
    Value v = *chosen;
    for (size_t p = path; p < field.size();) {
      const size_t end =
          field[p] == '.' ? std::min(field.find_first_of(".[", p + 1), field.size()) : field.find(']', p);
      if (end == field.npos) fail("a format with [ but no ]");
      const std::string key = field.substr(p + 1, end - p - 1);
      const bool number = field[p] == '[' && !key.empty() && key.find_first_not_of("0123456789") == key.npos;
      size_t digit = 0;
      v = number ? in.get_item(v, Value::integer(read_number(key, digit))) : in.get_item(v, Value::string(key));
      p = field[p] == '.' ? end : end + 1;
    }
    const Spec how = read_spec(spec);
    if (conversion == 'r' || conversion == 's')
      v = Value::string(conversion == 'r' ? to_repr(v, in.meter) : to_text(v, in.meter));
    else if (conversion != 0)
      fail("!{} is not a conversion; there are !r and !s", conversion);
    if (spec.empty())
      out += to_text(v, in.meter);
    else if (v.is_number())
      out += format_number(v, how);
    else if (v.is_string() && (how.type == 0 || how.type == 's'))
      out += format_text(to_text(v, in.meter), how);
    else
      fail("{} takes no format", described(v));
    in.meter.string(out.size());
  }
  return out;
}

}  // namespace ponder::text::jinja
