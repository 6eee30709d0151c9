// Any bytes at all, given to the GGUF parser: a file, whose tensors can then be read, or a clean Error.
#include <cstdint>
#include <span>
#include <vector>

#include "ponder/tensor/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder;
  try {
    const auto file = GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
    for (const GgufTensor& t : file.tensors()) {
      if (file.find(t.name) != &t) __builtin_trap();
      const Quantized m = t.matrix();
      if (m.rows * m.row_bytes != t.bytes) __builtin_trap();
      const int elements = block_spec(t.type).elements;
      std::vector<float> block(static_cast<size_t>(elements));
      dequantize(t.type, m.row(0), elements, block.data());
      dequantize(t.type, m.row(m.rows) - block_spec(t.type).bytes, elements, block.data());
    }
    for (const auto& [key, value] : file.metadata()) {
      try {
        file.numbers(key);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
