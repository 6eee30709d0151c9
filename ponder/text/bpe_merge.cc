#include "ponder/text/bpe_merge.h"

#include <algorithm>
#include <array>
#include <queue>

#include "ponder/base/error.h"

namespace ponder::text {
namespace {

constexpr size_t kShort = 64;
constexpr uint64_t kEmpty = UINT64_MAX;  // no pair with any rank

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << MergeTable::kIdBits | static_cast<uint32_t>(right);
}

// Where the search for a pair begins.
size_t first_slot(uint64_t key, size_t slots) {
  const uint64_t hash = (key ^ key >> 29) * 0x9E3779B97F4A7C15u;
  return (hash >> 32) * slots >> 32;
}

}  // namespace

MergeTable::MergeTable(std::vector<Merge> merges) : merges_(std::move(merges)) {
  PONDER_CHECK(merges_.size() <= kMaxMerges, "{} merges", merges_.size());
  slots_.assign(merges_.size() + merges_.size() / 2 + 1, kEmpty);
  for (size_t r = 0; r < merges_.size(); ++r) {
    const uint64_t key = pair_key(merges_[r].left, merges_[r].right);
    size_t i = first_slot(key, slots_.size());
    while (slots_[i] != kEmpty && slots_[i] >> kRankBits != key) i = i + 1 < slots_.size() ? i + 1 : 0;
    slots_[i] = key << kRankBits | r;
  }
}

inline uint32_t MergeTable::rank_of(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  for (size_t i = first_slot(key, slots_.size());; i = i + 1 < slots_.size() ? i + 1 : 0) {
    const uint64_t slot = slots_[i];
    if (slot >> kRankBits == key) return slot & (kMaxMerges - 1);
    if (slot == kEmpty) return kNone;
  }
}

size_t MergeTable::apply(std::span<int32_t> ids) const {
  if (ids.size() < 2 || merges_.empty()) return ids.size();
  return ids.size() <= kShort ? apply_short(ids) : apply_long(ids);
}

// Quadratic, and the fastest by far for words.
size_t MergeTable::apply_short(std::span<int32_t> ids) const {
  std::array<uint32_t, kShort> ranks;  // ranks[i]: of ids[i] with ids[i + 1]
  size_t n = ids.size();
  for (size_t i = 0; i + 1 < n; ++i) ranks[i] = rank_of(ids[i], ids[i + 1]);
  while (n > 1) {
    const size_t at = static_cast<size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(n - 1)) - ranks.begin());
    if (ranks[at] == kNone) break;
    ids[at] = merges_[ranks[at]].merged;
    for (size_t i = at + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      ranks[i - 1] = ranks[i];
    }
    --n;
    if (at > 0) ranks[at - 1] = rank_of(ids[at - 1], ids[at]);
    if (at + 1 < n) ranks[at] = rank_of(ids[at], ids[at + 1]);
  }
  return n;
}

namespace {

// The places of pairs of one rank that wait to be merged. Places arrive almost in order, so sorting is cheap; where a
// table makes a lower rank out of a higher one, a bucket is left half done and taken up again.
struct Bucket {
  std::vector<uint32_t> places;
  size_t done = 0;
  bool sorted = true;
  bool queued = false;

  void push(uint32_t place) {
    if (done < places.size() && place < places.back()) sorted = false;
    places.push_back(place);
  }
};

// One per thread, kept between calls: as many slots as the table has ranks, each touched only when its rank occurs.
struct Workspace {
  std::vector<Bucket> buckets;
  std::vector<uint32_t> bucket_of_rank;  // kNoBucket where none
  size_t used = 0;
  std::vector<uint32_t> previous, next;
};
constexpr uint32_t kNoBucket = UINT32_MAX;

}  // namespace

size_t MergeTable::apply_long(std::span<int32_t> ids) const {
  thread_local Workspace w;
  if (w.bucket_of_rank.size() < merges_.size()) w.bucket_of_rank.resize(merges_.size(), kNoBucket);
  const auto n = static_cast<uint32_t>(ids.size());
  w.previous.resize(n);
  w.next.resize(n);
  std::vector<uint32_t> ranks_used;
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> queue;
  const auto push = [&](uint32_t rank, uint32_t place) {
    if (rank == kNone) return;
    uint32_t& slot = w.bucket_of_rank[rank];
    if (slot == kNoBucket) {
      slot = static_cast<uint32_t>(ranks_used.size());
      ranks_used.push_back(rank);
      if (w.buckets.size() <= slot) w.buckets.emplace_back();
    }
    Bucket& bucket = w.buckets[slot];
    if (!bucket.queued) {
      bucket.queued = true;
      queue.push(rank);
    }
    bucket.push(place);
  };
  for (uint32_t i = 0; i < n; ++i) {
    w.previous[i] = i - 1;  // UINT32_MAX in front
    w.next[i] = i + 1;      // n behind
    if (i + 1 < n) push(rank_of(ids[i], ids[i + 1]), i);
  }
  while (!queue.empty()) {
    const uint32_t rank = queue.top();
    const Merge merge = merges_[rank];
    queue.pop();
    const uint32_t slot = w.bucket_of_rank[rank];
    w.buckets[slot].queued = false;
    if (!w.buckets[slot].sorted) {
      auto& places = w.buckets[slot].places;
      std::sort(places.begin() + static_cast<std::ptrdiff_t>(w.buckets[slot].done), places.end());
      w.buckets[slot].sorted = true;
    }
    while (w.buckets[slot].done < w.buckets[slot].places.size()) {
      if (!queue.empty() && queue.top() < rank) {
        w.buckets[slot].queued = true;
        queue.push(rank);
        break;
      }
      const uint32_t i = w.buckets[slot].places[w.buckets[slot].done++];
      const uint32_t j = w.next[i];
      if (j >= n || ids[i] != merge.left || ids[j] != merge.right) continue;  // one of them was merged since
      ids[i] = merge.merged;
      ids[j] = -1;
      w.next[i] = w.next[j];
      if (w.next[i] < n) {
        w.previous[w.next[i]] = i;
        push(rank_of(ids[i], ids[w.next[i]]), i);
      }
      const uint32_t before = w.previous[i];
      if (before < n) push(rank_of(ids[before], ids[i]), before);
    }
    Bucket& bucket = w.buckets[slot];
    if (bucket.done == bucket.places.size()) {
      bucket.places.clear();
      bucket.done = 0;
    }
  }
  for (const uint32_t rank : ranks_used) {
    Bucket& bucket = w.buckets[w.bucket_of_rank[rank]];
    // A rare long piece must not hold its memory for ever.
    if (bucket.places.capacity() > (1 << 16)) bucket.places = {};
    w.bucket_of_rank[rank] = kNoBucket;
  }
  size_t out = 0;
  for (uint32_t i = 0; i < n; i = w.next[i]) ids[out++] = ids[i];
  if (n > (1 << 20)) w.previous = {}, w.next = {};
  return out;
}

}  // namespace ponder::text
