// The tokens of a vocabulary, by id and by text. The texts lie in one piece of memory: a vocabulary costs them, 4 bytes
// an id and 9 a token.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::text {

class Vocabulary {
 public:
  static constexpr int kIdBits = 20;
  static constexpr size_t kMaxTokens = size_t{1} << kIdBits;
  static constexpr size_t kMaxBytes = size_t{1} << 28;  // of all texts together

  Vocabulary() = default;
  explicit Vocabulary(std::span<const std::string> tokens);  // tokens[i] is token i; indexed

  // Room for so many ids, and for texts of so many bytes with 5 more for each; what is not used costs nothing.
  void reserve(size_t tokens, size_t bytes);
  // An id that has no text yet gets one; "" is no token. Files are held against both limits by their readers.
  void set(int32_t id, std::string_view text);
  // Afterwards `find` knows all tokens.
  void index();
  // A token that has two ids (`find` gives the first), or nothing.
  std::optional<int32_t> twice() const { return twice_; }

  int32_t size() const { return static_cast<int32_t>(at_.size()); }  // the largest id, and one
  std::string_view operator[](int32_t id) const;                     // "" for ids outside or without a token
  std::optional<int32_t> find(std::string_view text) const;

 private:
  std::string_view text_of(uint32_t id) const;
  size_t slot_of(std::string_view text, uint64_t hash) const;

  std::string texts_ = std::string(1, '\0');  // each behind its length: a byte, or 255 and four bytes
  std::vector<uint32_t> at_;                  // id -> place in texts_, 0 where there is no token
  // Open addressing, half full. A slot is an id (20 bits) below as many bits of the hash as there is room for, so that
  // texts which are not meant are hardly ever looked at.
  std::vector<uint32_t> slots_;
  size_t tokens_ = 0;
  std::optional<int32_t> twice_;
};

}  // namespace ponder::text
