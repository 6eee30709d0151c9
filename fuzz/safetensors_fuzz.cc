// Any bytes at all, given to the safetensors parser and its readers: a file or a clean Error.
#include <cstdint>
#include <span>
#include <vector>

#include "ponder/tensor/tensor_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder;
  try {
    const auto file = SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
    for (const TensorEntry& e : file.entries()) {
      if (&file.at(e.name) != &e) __builtin_trap();
      std::vector<double> real(static_cast<size_t>(e.size()));
      std::vector<int32_t> ids(real.size());
      if (const auto type = block_type(e.dtype)) {
        std::vector<float> values(real.size());
        dequantize(*type, e.bytes.data(), e.size(), values.data());
      }
      try {
        read_f64(e, real.data());
      } catch (const Error&) {
      }
      try {
        read_i32(e, ids.data());
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
