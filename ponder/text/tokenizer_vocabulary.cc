#include "ponder/text/tokenizer_vocabulary.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "ponder/base/error.h"

namespace ponder::text {
namespace {

constexpr size_t kLong = 255;
constexpr uint32_t kId = Vocabulary::kMaxTokens - 1;
constexpr uint32_t kFree = UINT32_MAX;  // the last id with a tag of ones, which no tag is

uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash) & ~kId & INT32_MAX; }

}  // namespace

Vocabulary::Vocabulary(std::span<const std::string> tokens) {
  at_.reserve(tokens.size());
  for (const std::string& token : tokens) set(size(), token);
  index();
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  at_.reserve(std::min(tokens, kMaxTokens));
  texts_.reserve(texts_.size() + bytes);
}

void Vocabulary::set(int32_t id, std::string_view text) {
  PONDER_CHECK(id >= 0 && static_cast<size_t>(id) < kMaxTokens && texts_.size() + text.size() < UINT32_MAX,
               "token {} of {} bytes behind {}", id, text.size(), texts_.size());
  if (id >= size()) at_.resize(static_cast<size_t>(id) + 1);
  if (text.empty()) return;
  PONDER_CHECK(at_[static_cast<size_t>(id)] == 0, "token {} is set twice", id);
  at_[static_cast<size_t>(id)] = static_cast<uint32_t>(texts_.size());
  texts_ += static_cast<char>(std::min(text.size(), kLong));
  if (text.size() >= kLong) {
    const auto n = static_cast<uint32_t>(text.size());
    texts_.append(reinterpret_cast<const char*>(&n), sizeof n);
  }
  texts_ += text;
  ++tokens_;
}

// Where the text is, or the free slot where it should be.
size_t Vocabulary::slot_of(std::string_view text, uint64_t hash) const {
  size_t i = (hash >> 32) * slots_.size() >> 32;
  while (slots_[i] != kFree && !((slots_[i] & ~kId) == tag(hash) && text_of(slots_[i] & kId) == text)) {
    if (++i == slots_.size()) i = 0;
  }
  return i;
}

void Vocabulary::index() {
  slots_.assign(2 * tokens_ + 2, kFree);
  for (uint32_t id = 0; id < at_.size(); ++id) {
    const std::string_view text = text_of(id);
    if (text.empty()) continue;
    const uint64_t hash = std::hash<std::string_view>()(text);
    uint32_t& slot = slots_[slot_of(text, hash)];
    if (slot == kFree) {
      slot = tag(hash) | id;
    } else {
      twice_ = static_cast<int32_t>(id);
    }
  }
}

std::string_view Vocabulary::text_of(uint32_t id) const {
  const char* p = texts_.data() + at_[id];
  uint32_t n = static_cast<unsigned char>(*p++);
  if (n == kLong) {
    std::memcpy(&n, p, sizeof n);
    p += sizeof n;
  }
  return {p, n};
}

std::string_view Vocabulary::operator[](int32_t id) const {
  return id >= 0 && id < size() ? text_of(static_cast<uint32_t>(id)) : std::string_view();
}

std::optional<int32_t> Vocabulary::find(std::string_view text) const {
  PONDER_CHECK(!slots_.empty(), "the vocabulary is not indexed");
  const uint32_t slot = slots_[slot_of(text, std::hash<std::string_view>()(text))];
  return slot == kFree ? std::nullopt : std::optional(static_cast<int32_t>(slot & kId));
}

}  // namespace ponder::text
