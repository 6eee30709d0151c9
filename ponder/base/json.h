// Writing JSON: one line at a time onto a string. Reading is json_value.h, which only .cc files include.
//
//   std::string line;
//   JsonWriter(line).begin_object().member("step", 3).member("loss", 0.25).end_object();   // {"step":3,"loss":0.25}
//
// Text that is not valid UTF-8 is repaired with U+FFFD. A double is its shortest text that reads back to the same bits;
// NaN and infinity, which JSON lacks, are null.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ponder {

class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  template <std::same_as<bool> B>
  JsonWriter& value(B b) {
    return raw(b ? "true" : "false");
  }
  template <std::integral I>
  requires(!std::same_as<I, bool>) JsonWriter& value(I i) {
    if constexpr (std::is_signed_v<I>)
      return integer(static_cast<int64_t>(i));
    else
      return unsigned_integer(static_cast<uint64_t>(i));
  }
  JsonWriter& value(double x);
  JsonWriter& value(float x);
  JsonWriter& null() { return raw("null"); }
  JsonWriter& raw(std::string_view json);  // trusted to be one JSON value

  template <class T>
  JsonWriter& value(std::span<const T> items) {
    begin_array();
    for (const T& item : items) value(item);
    return end_array();
  }
  template <class T>
  JsonWriter& member(std::string_view name, const T& v) {
    key(name);
    return value(v);
  }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& integer(int64_t i);
  JsonWriter& unsigned_integer(uint64_t i);
  void separate();

  std::string& out_;
  bool first_ = true;  // nothing stands before the next value on this level
};

// "text" with quotes and escapes.
void append_json_string(std::string& out, std::string_view text);

}  // namespace ponder
