#include "ponder/base/json.h"

#include <algorithm>
#include <cmath>

#include "ponder/base/file.h"
#include "ponder/base/json_events.h"
#include "ponder/base/json_value.h"
#include "ponder/base/utf8.h"

namespace ponder {

// --- Writing ---------------------------------------------------------------------------------------------------------

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  while (!text.empty()) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    size_t bytes = 1;
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\r') {
      out.append("\\r");
    } else if (c == '\t') {
      out.append("\\t");
    } else if (c < 0x20 || c == 0x7f) {
      out.append("\\u00").push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else if (c < 0x80) {
      out.push_back(static_cast<char>(c));
    } else if ((bytes = utf8_char_bytes(text)) > 0) {
      out.append(text.substr(0, bytes));
    } else {
      out.append("\xEF\xBF\xBD");
      bytes = 1;
    }
    text.remove_prefix(bytes);
  }
  out.push_back('"');
}

void JsonWriter::separate() {
  if (!first_) out_.push_back(',');
  first_ = false;
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  out_.push_back(bracket);
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  out_.push_back(bracket);
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  append_json_string(out_, name);
  out_.push_back(':');
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  separate();
  append_json_string(out_, text);
  return *this;
}

JsonWriter& JsonWriter::value(double x) { return raw(std::isfinite(x) ? fmt::format("{}", x) : "null"); }
JsonWriter& JsonWriter::value(float x) { return raw(std::isfinite(x) ? fmt::format("{}", x) : "null"); }
JsonWriter& JsonWriter::integer(int64_t i) { return raw(fmt::format_int(i).c_str()); }
JsonWriter& JsonWriter::unsigned_integer(uint64_t i) { return raw(fmt::format_int(i).c_str()); }

JsonWriter& JsonWriter::raw(std::string_view json) {
  separate();
  out_.append(json);
  return *this;
}

// --- Reading ---------------------------------------------------------------------------------------------------------

namespace {

// Counts, and builds the value; the parser below it keeps its own stack on the heap, so depth costs no call stack.
class BoundedBuilder : public nlohmann::json_sax<Json> {
 public:
  BoundedBuilder(JsonPlace& place, const JsonLimits& limits, Json& root)
      : place_(place), limits_(limits), root_(root) {}

  bool null() override { return add(nullptr), true; }
  bool boolean(bool value) override { return add(value), true; }
  bool number_integer(number_integer_t value) override { return add(value), true; }
  bool number_unsigned(number_unsigned_t value) override { return add(value), true; }
  bool number_float(number_float_t value, const string_t&) override { return add(value), true; }
  bool string(string_t& value) override { return add(std::move(value)), true; }
  bool binary(binary_t&) override { place_.fail("binary data"); }

  bool start_object(size_t) override { return nest(Json::object()); }
  bool start_array(size_t) override { return nest(Json::array()); }
  bool end_object() override { return open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }
  bool key(string_t& name) override {
    const auto [at, fresh] = open_.back()->get_ref<Json::object_t&>().try_emplace(name, nullptr);
    if (!fresh) place_.fail("the key \"{}\" stands twice in one object", name.substr(0, 100));
    member_ = &at->second;
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception& e) override {
    place_.fail("{}", json_problem(e));
  }

 private:
  template <class T>
  Json* add(T&& value) {
    if (++values_ > limits_.max_values) place_.fail("more than {} values", limits_.max_values);
    if (open_.empty()) return root_ = std::forward<T>(value), &root_;
    Json& parent = *open_.back();
    if (parent.is_object()) return *member_ = std::forward<T>(value), member_;
    return &parent.get_ref<Json::array_t&>().emplace_back(std::forward<T>(value));
  }
  bool nest(Json&& value) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth)
      place_.fail("more than {} levels of nesting", limits_.max_depth);
    open_.push_back(add(std::move(value)));
    return true;
  }

  JsonPlace& place_;
  const JsonLimits& limits_;
  Json& root_;
  std::vector<Json*> open_;
  Json* member_ = nullptr;
  size_t values_ = 0;
};

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

}  // namespace

void JsonPlace::too_long() const { fail("a text, or a stretch without one, of more than {} bytes", max_collected); }

std::string json_problem(const Json::exception& e) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing value - unexpected
  // ..."
  std::string_view what = e.what();
  if (const size_t colon = what.find(": "); colon != what.npos) what.remove_prefix(colon + 2);
  if (const size_t dash = what.find(" - "); dash != what.npos) what.remove_prefix(dash + 3);
  return utf8_repaired(what.substr(0, 200));
}

Json parse_json(std::string_view text, const std::string& path, int line, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    throw_error(Exit::data, "{}:{}: {} bytes of JSON, more than the {} allowed here", path, line, text.size(),
                limits.max_bytes);
  Json root;
  JsonPlace place{.path = path, .text = text, .line = line, .max_collected = text.size()};
  BoundedBuilder builder(place, limits, root);
  read_events(place, builder);
  return root;
}

Json read_json(const std::string& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path, 1, limits);
}

void read_json_lines(const std::string& path, const std::function<void(Json& value, int line)>& f,
                     const JsonLimits& limits) {
  const MappedFile file(path);
  std::string_view rest = file.text();
  for (int line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (blank(text)) continue;
    Json value = parse_json(text, path, line, limits);
    f(value, line);
  }
}

}  // namespace ponder
