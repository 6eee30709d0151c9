// Who owns which page. Pages are counted, so that sequences with one prefix share them, and full pages are remembered by
// a hash of all tokens up to their end (salted with the weights' version), so that a later request finds them again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ponder/model/kv.h"

namespace ponder::engine {

inline int64_t pages_for(int64_t positions) { return (positions + kernels::kPageSize - 1) / kernels::kPageSize; }

class KvCache {
 public:
  explicit KvCache(int64_t pages);

  // A page with one owner, or -1: all are in use. Pages that are only remembered are given away, oldest first.
  int32_t allocate();
  void retain(int32_t page);
  // One owner less; a page without owners is free, but its content can still be found by its hash.
  void release(int32_t page);
  int32_t owners(int32_t page) const { return refs_[static_cast<size_t>(page)]; }

  // The hash of a full page, given the hash of the page before it (or the salt for the first).
  static uint64_t hash(uint64_t previous, std::span<const int32_t> tokens);
  // Remembers a full page (the first page with a hash stays); finds one and makes the caller an owner (-1: none).
  void remember(int32_t page, uint64_t hash);
  int32_t find(uint64_t hash);

  int64_t pages() const { return static_cast<int64_t>(refs_.size()); }
  int64_t in_use() const { return in_use_; }

 private:
  // Pages by hash: open addressing with linear probing, sized once (no allocation while sequences run).
  size_t slot_of(uint64_t hash) const;  // where it is, or the empty slot where it would go
  void forget(int32_t page);
  void unlink(int32_t page);
  void push_idle(int32_t page, bool oldest);

  std::vector<int32_t> refs_;
  std::vector<uint64_t> hashes_;          // 0: none
  std::vector<int32_t> previous_, next_;  // idle pages in the order of their release, oldest first
  int32_t oldest_ = -1, newest_ = -1;
  std::vector<int32_t> table_;  // pages, -1: empty; the size is a power of two, at least twice the pages
  int64_t in_use_ = 0;
};

}  // namespace ponder::engine
