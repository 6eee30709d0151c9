#include "ponder/engine/kv_cache.h"

#include "ponder/base/error.h"
#include "ponder/base/rng.h"

namespace ponder::engine {

KvCache::KvCache(int64_t pages)
    : refs_(static_cast<size_t>(pages)),
      hashes_(static_cast<size_t>(pages)),
      previous_(static_cast<size_t>(pages), -1),
      next_(static_cast<size_t>(pages), -1) {
  size_t size = 16;
  while (size < 2 * static_cast<size_t>(pages)) size *= 2;
  table_.assign(size, -1);
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
  forget(page);
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
    const uint64_t pair = static_cast<uint32_t>(tokens[i]) |
                          (i + 1 < tokens.size() ? uint64_t{static_cast<uint32_t>(tokens[i + 1])} << 32 : 0);
    const auto w = philox(h, pair, i);
    h = uint64_t{w[1]} << 32 | w[0];
  }
  return h | 1;
}

size_t KvCache::slot_of(uint64_t hash) const {
  const size_t mask = table_.size() - 1;
  size_t i = hash >> 8 & mask;
  while (table_[i] >= 0 && hashes_[static_cast<size_t>(table_[i])] != hash) i = (i + 1) & mask;
  return i;
}

void KvCache::remember(int32_t page, uint64_t hash) {
  int32_t& slot = table_[slot_of(hash)];
  if (slot >= 0) return;
  slot = page;
  hashes_[static_cast<size_t>(page)] = hash;
}

void KvCache::forget(int32_t page) {
  uint64_t& hash = hashes_[static_cast<size_t>(page)];
  if (!hash) return;
  const size_t mask = table_.size() - 1;
  size_t hole = slot_of(hash);
  hash = 0;
  table_[hole] = -1;
  for (size_t i = (hole + 1) & mask; table_[i] >= 0;
       i = (i + 1) & mask) {  // close the gap: move back what probed past it
    const size_t home = hashes_[static_cast<size_t>(table_[i])] >> 8 & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      table_[hole] = table_[i];
      table_[i] = -1;
      hole = i;
    }
  }
}

int32_t KvCache::find(uint64_t hash) {
  const int32_t page = table_[slot_of(hash)];
  if (page >= 0) retain(page);
  return page;
}

}  // namespace ponder::engine
