// One answer while it is computed.
#pragma once

#include <cstdint>
#include <vector>

#include "ponder/engine/request.h"

namespace ponder::engine {

struct Sequence {
  int64_t request = 0;
  int32_t answer = 0;
  uint64_t seed = 0;
  Sampling sampling;
  int64_t prompt = 0, max_length = 0;  // tokens
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> tokens;  // prompt and answer
  std::vector<int32_t> pages;
  std::vector<uint64_t> hashes;  // of the full pages that are remembered or were found
  int64_t computed = 0;          // tokens whose keys and values are in the pages
  int64_t drafted = 0;           // tokens beyond the last confirmed one, at the end of `tokens`
  bool drew = false;             // a token in this step
  Sequence* leader = nullptr;    // computes the prompt that this one waits for
  int followers = 0;             // how many wait for this one
  Finish finish = Finish::running;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t confirmed() const { return length() - drafted; }
  bool complete() const { return computed == length(); }  // its last row says what comes next
  void forget_drafts() {
    tokens.resize(static_cast<size_t>(confirmed()));
    drafted = 0;
  }
};

// A row of a forward pass that decides a token.
struct Decision {
  Sequence* sequence;
  int32_t row;    // of the batch
  int32_t draft;  // which token after the last confirmed one it decides (0: the next)
};

}  // namespace ponder::engine
