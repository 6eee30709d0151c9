#include "ponder/engine/kv_cache.h"

#include "ponder/base/error.h"
#include "ponder/base/rng.h"

namespace ponder::engine {

KvCache::KvCache(int64_t pages)
    : refs_(static_cast<size_t>(pages)), hashes_(static_cast<size_t>(pages)), previous_(static_cast<size_t>(pages), -1),
      next_(static_cast<size_t>(pages), -1) {
  by_hash_.reserve(static_cast<size_t>(pages));
  for (int32_t p = 0; p < pages; ++p) push_idle(p, false);
}

void KvCache::push_idle(int32_t page, bool oldest) {
  const auto i = static_cast<size_t>(page);
  previous_[i] = oldest ? -1 : newest_;
  next_[i] = oldest ? oldest_ : -1;
  (previous_[i] < 0 ? oldest_ : next_[static_cast<size_t>(previous_[i])]) = page;
  (next_[i] < 0 ? newest_ : previous_[static_cast<size_t>(next_[i])]) = page;
}

void KvCache::unlink(int32_t page) {
  const auto i = static_cast<size_t>(page);
  (previous_[i] < 0 ? oldest_ : next_[static_cast<size_t>(previous_[i])]) = next_[i];
  (next_[i] < 0 ? newest_ : previous_[static_cast<size_t>(next_[i])]) = previous_[i];
  previous_[i] = next_[i] = -1;
}

int32_t KvCache::allocate() {
  const int32_t page = oldest_;
  if (page < 0) return -1;
  unlink(page);
  uint64_t& hash = hashes_[static_cast<size_t>(page)];
  if (hash) by_hash_.erase(hash), hash = 0;
  refs_[static_cast<size_t>(page)] = 1;
  ++in_use_;
  return page;
}

void KvCache::retain(int32_t page) {
  int32_t& refs = refs_[static_cast<size_t>(page)];
  if (refs++ == 0) {
    unlink(page);
    ++in_use_;
  }
}

void KvCache::release(int32_t page) {
  const auto i = static_cast<size_t>(page);
  PONDER_CHECK(refs_[i] > 0, "page {} has no owner", page);
  if (--refs_[i] == 0) {
    --in_use_;
    push_idle(page, hashes_[i] == 0);  // pages that nobody can find again are given away first
  }
}

uint64_t KvCache::hash(uint64_t previous, std::span<const int32_t> tokens) {
  uint64_t h = previous;
  for (size_t i = 0; i < tokens.size(); i += 2) {
    const uint64_t pair = static_cast<uint32_t>(tokens[i]) | (i + 1 < tokens.size() ? uint64_t{static_cast<uint32_t>(tokens[i + 1])} << 32 : 0);
    const auto w = philox(h, pair, i);
    h = uint64_t{w[1]} << 32 | w[0];
  }
  return h | 1;
}

void KvCache::remember(int32_t page, uint64_t hash) {
  if (by_hash_.emplace(hash, page).second) hashes_[static_cast<size_t>(page)] = hash;
}

int32_t KvCache::find(uint64_t hash) {
  const auto it = by_hash_.find(hash);
  if (it == by_hash_.end()) return -1;
  retain(it->second);
  return it->second;
}

}  // namespace ponder::engine
