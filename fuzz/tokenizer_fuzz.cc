// Any bytes as a tokenizer.json: a tokenizer that encodes its own decoded text, or an Error.
#include <array>
#include <string_view>

#include "ponder/base/error.h"
#include "ponder/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ponder::text;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = parse_tokenizer(text, "fuzz");
    tokenizer->decode(std::array<int32_t, 5>{0, 1, -1, 2, tokenizer->vocab_size()});
    if (parse_tokenizer(tokenizer->to_json(), "again")->to_json() != tokenizer->to_json()) __builtin_trap();
  } catch (const ponder::Error&) {
  }
  static const ByteLevel bytes;
  const std::string once = bytes.decode(bytes.encode(text));
  if (bytes.decode(bytes.encode(once)) != once) __builtin_trap();
  return 0;
}
