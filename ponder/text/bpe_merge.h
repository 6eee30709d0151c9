// The merges of a byte-level BPE and the merging of one piece: again and again the adjacent pair of lowest rank, the
// leftmost among equals (Sennrich et al. 2016), in time linear in the piece for tables as training makes them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ponder::text {

struct Merge {
  int32_t left, right, merged;  // ids
};

class MergeTable {
 public:
  // A slot of the table is two ids and a rank. Gemma has half a million merges.
  static constexpr int kIdBits = 20, kRankBits = 20;
  static constexpr size_t kMaxMerges = size_t{1} << kRankBits;

  MergeTable() = default;
  // merges[r] has rank r; ids are below 2^20. A pair that occurs twice has its last rank, as in Hugging Face's tokenizers.
  explicit MergeTable(std::vector<Merge> merges);

  // Replaces ids[0, n) by the merged ids and returns their number.
  size_t apply(std::span<int32_t> ids) const;
  std::span<const Merge> merges() const { return merges_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t rank_of(int32_t left, int32_t right) const;
  size_t apply_short(std::span<int32_t> ids) const;
  size_t apply_long(std::span<int32_t> ids) const;

  std::vector<Merge> merges_;
  std::vector<uint64_t> slots_;  // pair -> rank: open addressing, two thirds full
};

}  // namespace ponder::text
