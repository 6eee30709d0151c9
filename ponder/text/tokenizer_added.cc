#include "ponder/text/tokenizer_added.h"

#include <algorithm>

#include "ponder/base/utf8.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

struct Neighbour {
  uint8_t classes = 0;
  size_t bytes = 0;  // 0: there is none, or it is malformed
};

Neighbour behind(std::string_view text, size_t at) {
  const size_t n = utf8_char_bytes(text.substr(at));
  return n ? Neighbour{classes_of(code_point(text.data() + at).value), n} : Neighbour{};
}

Neighbour in_front(std::string_view text, size_t at) {
  for (size_t n = 1; n <= std::min<size_t>(at, 4); ++n) {
    if (const Neighbour c = behind(text.substr(0, at), at - n); c.bytes == n) return c;
  }
  return {};
}

constexpr uint8_t kWord = kLetter | kMark | kNumber;

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<std::pair<std::string, AddedToken>> tokens)
    : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t b = 0, i = 0; b < 256; ++b) {
    first_[b] = static_cast<uint32_t>(i);
    while (i < tokens_.size() && static_cast<unsigned char>(tokens_[i].first[0]) == b) ++i;
    first_[b + 1] = static_cast<uint32_t>(i);
  }
}

// The longest token that text begins with. Byte by byte the range of tokens that agree so far gets smaller; the one
// that ends there is its first.
const std::pair<std::string, AddedToken>* AddedTokenMatcher::longest_at(std::string_view text) const {
  const auto byte = static_cast<unsigned char>(text[0]);
  auto low = tokens_.begin() + first_[byte], high = tokens_.begin() + first_[byte + 1u];
  const std::pair<std::string, AddedToken>* found = nullptr;
  for (size_t depth = 1; low != high; ++depth) {
    if (low->first.size() == depth) {
      found = &*low++;
      if (low == high) break;
    }
    if (depth == text.size()) break;
    const auto at = [depth](const auto& token) { return static_cast<unsigned char>(token.first[depth]); };
    const auto wanted = static_cast<unsigned char>(text[depth]);
    low = std::partition_point(low, high, [&](const auto& token) { return at(token) < wanted; });
    high = std::partition_point(low, high, [&](const auto& token) { return at(token) == wanted; });
  }
  return found;
}

void AddedTokenMatcher::cut(std::string_view text,
                            const std::function<void(std::string_view, std::optional<int32_t>)>& f) const {
  size_t done = 0;
  for (size_t i = 0; i < text.size() && !tokens_.empty();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto* hit = first_[byte] == first_[byte + 1u] ? nullptr : longest_at(text.substr(i));
    if (!hit) {
      ++i;
      continue;
    }
    size_t begin = i, end = i + hit->first.size();
    i = end;
    const AddedToken& token = hit->second;
    if (token.single_word && ((in_front(text, begin).classes | behind(text, end).classes) & kWord)) continue;
    const std::string_view left = text.substr(done);  // what no token in front has taken
    while (token.lstrip && (in_front(left, begin - done).classes & kSpace)) begin -= in_front(left, begin - done).bytes;
    while (token.rstrip && (behind(text, end).classes & kSpace)) end += behind(text, end).bytes;
    if (begin > done) f(text.substr(done, begin - done), std::nullopt);
    f(text.substr(begin, end - begin), token.id);
    i = done = end;
  }
  if (done < text.size()) f(text.substr(done), std::nullopt);
}

}  // namespace ponder::text
