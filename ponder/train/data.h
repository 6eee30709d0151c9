// Which texts make up which batch: a function of (texts, seed, settings), computed once at the start of a run.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ponder/train/pass.h"

namespace ponder::train {

// Texts end to end: text i is ids[offsets[i]] .. ids[offsets[i + 1] - 1].
struct TextSet {
  std::span<const int32_t> ids;
  std::span<const int64_t> offsets;
  int64_t size() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::span<const int32_t> text(int64_t i) const {
    return ids.subspan(static_cast<size_t>(offsets[static_cast<size_t>(i)]),
                       static_cast<size_t>(offsets[static_cast<size_t>(i) + 1] - offsets[static_cast<size_t>(i)]));
  }
};

struct BatchPlan {
  std::vector<int32_t> order;    // texts, batch after batch
  std::vector<int64_t> offsets;  // [batches + 1]
  int64_t batches() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::span<const int32_t> batch(int64_t i) const {
    return std::span(order).subspan(
        static_cast<size_t>(offsets[static_cast<size_t>(i)]),
        static_cast<size_t>(offsets[static_cast<size_t>(i) + 1] - offsets[static_cast<size_t>(i)]));
  }
};

// One epoch in shuffled order. `group_by_length`: texts are sorted within windows of 64 batches, a batch holds as many
// as fit into 1.1 * batch_tokens when each is padded to the longest (nothing is padded here, but batches then agree
// with frameworks that do), and the batches of a window are shuffled again. Otherwise texts are taken until the batch
// is full.
BatchPlan plan_batches(const TextSet& texts, int64_t batch_tokens, bool group_by_length, uint64_t seed, uint64_t epoch);

// Concatenates texts, each followed by `separator`, and cuts the stream into pieces of `length` tokens ("wrapped"
// packing, as in pre-training); the rest at the end is dropped if it is shorter than 2.
struct PackedTexts {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  TextSet set() const { return {ids, offsets}; }
};
PackedTexts pack_wrapped(const TextSet& texts, int64_t length, int32_t separator);

}  // namespace ponder::train
