// Any bytes as JSON: a value or an Error; and a value survives being written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/utf8.h"

namespace {

void write(ponder::JsonWriter& json, const ponder::Json& value) {
  switch (value.type()) {
    case ponder::Json::value_t::object:
      json.begin_object();
      for (const auto& [key, item] : value.items()) {
        json.key(key);
        write(json, item);
      }
      json.end_object();
      break;
    case ponder::Json::value_t::array:
      json.begin_array();
      for (const ponder::Json& item : value) write(json, item);
      json.end_array();
      break;
    case ponder::Json::value_t::string: json.value(value.get_ref<const std::string&>()); break;
    case ponder::Json::value_t::boolean: json.value(value.get<bool>()); break;
    case ponder::Json::value_t::number_integer: json.value(value.get<int64_t>()); break;
    case ponder::Json::value_t::number_unsigned: json.value(value.get<uint64_t>()); break;
    case ponder::Json::value_t::number_float: json.value(value.get<double>()); break;
    default: json.null();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!ponder::is_utf8(ponder::utf8_repaired(text))) std::abort();
  const ponder::JsonLimits limits = {.max_bytes = size_t{1} << 20, .max_depth = 64, .max_values = 100000};
  ponder::Json value;
  try {
    value = ponder::parse_json(text, "input", 1, limits);
  } catch (const ponder::Error& e) {
    if (e.code() != ponder::Exit::data || !ponder::is_utf8(e.what())) std::abort();
    return 0;
  }
  if (!ponder::is_utf8(text)) std::abort();
  std::string written;
  ponder::JsonWriter writer(written);
  write(writer, value);
  if (ponder::parse_json(written, "written") != value) std::abort();
  return 0;
}
