// Added tokens: strings that are one token wherever they stand in a text, found before anything else is cut.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ponder::text {

// As tokenizer.json describes one.
struct AddedToken {
  int32_t id = 0;
  bool special = true;       // a mark that "skip special tokens" drops; others (<think>, <tool_call>) are text
  bool normalized = false;   // looked for after normalisation, in what no other added token took
  bool single_word = false;  // only where no letter, number or mark touches it
  bool lstrip = false, rstrip = false;  // it swallows the white space on that side
};

// Cuts a text at the given tokens: leftmost first, then the longest.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // (content, token) for each; contents are distinct and not empty.
  explicit AddedTokenMatcher(std::vector<std::pair<std::string, AddedToken>> tokens);

  bool empty() const { return tokens_.empty(); }
  // f(stretch, nothing) for text between tokens, f(what a token covers, its id) for a token, in order.
  void cut(std::string_view text, const std::function<void(std::string_view, std::optional<int32_t>)>& f) const;

 private:
  const std::pair<std::string, AddedToken>* longest_at(std::string_view text) const;

  std::vector<std::pair<std::string, AddedToken>> tokens_;  // sorted by content
  std::array<uint32_t, 257> first_{};                       // tokens that begin with byte b: [first_[b], first_[b + 1])
};

}  // namespace ponder::text
