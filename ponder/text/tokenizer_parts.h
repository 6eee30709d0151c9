// The parts of a tokenizer.json. A tree of the whole would cost many times its text, so the file is passed over once,
// which checks it and finds its parts; small ones are then read as they are used, large ones entry by entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ponder::text {

// A member: its bytes in the file, and how many items or members it has itself.
struct Part {
  std::string_view json;
  size_t items = 0;
  size_t first = 0;  // byte of the file at which it begins

  bool is_object() const { return json.starts_with('{'); }
  bool is_array() const { return json.starts_with('['); }
};
using Parts = std::map<std::string, Part, std::less<>>;

// Checks the whole text and fills in those members of the root and of its object "model" whose names are there. Of
// members of one name the first counts. Throws Error (data) with the line and the byte: what is not JSON, more than 64
// levels, a text of more than 1 MiB (and as much of anything without texts or numbers, which the parser collects too).
void find_parts(std::string_view text, const std::string& name, Parts& root, Parts& model);

// What has no parts itself (or nullptr where something has).
using Scalar = std::variant<std::nullptr_t, bool, int64_t, double, std::string>;
inline const std::string* as_text(const Scalar& s) { return std::get_if<std::string>(&s); }
inline const int64_t* as_integer(const Scalar& s) { return std::get_if<int64_t>(&s); }

// A member of an object, an item of an array: a scalar, or flat.
struct Entry {
  static constexpr size_t kMaxFields = 64;
  struct Field {
    std::string name;  // in an object
    Scalar value;
  };

  const Scalar& operator[](std::string_view field) const;  // the first of that name
  bool is_true(std::string_view field) const { return (*this)[field] == Scalar(true); }

  std::string name;
  bool is_array = false;
  Scalar value;
  std::vector<Field> fields;  // what is in it, if it is an object or an array
};

// Gives the entries of an object or array that find_parts has found to f, in order; `forget`: the memory of what has been
// read is let go, and reads as zeros afterwards. Throws Error (data) for entries of more than 64 fields.
void read_entries(const Part& part, const std::string& name, bool forget, const std::function<void(const Entry&)>& f);

}  // namespace ponder::text
