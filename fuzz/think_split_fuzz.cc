// The bytes after the first as a model's output, cut by what the first byte says: however it is cut, the parts are the
// same and no byte is lost but the tags and the space before an opening one.
#include <string>
#include <string_view>

#include "ponder/text/stream.h"

namespace {

using ponder::text::ThinkSplitter;

std::pair<std::string, std::string> split(std::string_view text, size_t step) {
  ThinkSplitter s("", ThinkSplitter::Tags::text);
  std::pair<std::string, std::string> out;
  const auto add = [&](const std::vector<ThinkSplitter::Delta>& deltas) {
    for (const auto& d : deltas) (d.part == ThinkSplitter::State::reasoning ? out.first : out.second) += d.text;
  };
  for (size_t i = 0; i < text.size(); i += step) add(s.push(text.substr(i, step)));
  add(s.finish());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = split(text, size);
  if (split(text, 1 + data[0] % 9) != whole) __builtin_trap();
  if (whole.first.size() + whole.second.size() > text.size()) __builtin_trap();
  ponder::text::Utf8Stream stream, cut;
  std::string expected = stream.push(text), pieces;
  for (const char c : text) pieces += cut.push(std::string_view(&c, 1));
  if (expected + stream.flush() != pieces + cut.flush()) __builtin_trap();
  return 0;
}
