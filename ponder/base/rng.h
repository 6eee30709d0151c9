// Counter-based random numbers: value = f(seed, stream, index), never "next".
//
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Nothing random
// has state, so nothing random needs saving: whoever knows (seed, stream, index) gets the same number on any machine,
// in any order, on any number of threads. kernels/cpu holds the same function in SIMD; both are tested against the
// published vectors.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace ponder {

// The four 32-bit words of one Philox block.
inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_lo), static_cast<uint32_t>(counter_lo >> 32),
                               static_cast<uint32_t>(counter_hi), static_cast<uint32_t>(counter_hi >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Independent uses of one seed. The values are part of the reproducibility contract: append, never renumber.
enum class Stream : uint32_t {
  init = 1,
  corpus = 2,
  batches = 3,
  problems = 4,
  sampling = 5,
  eval_problems = 6,
  eval_sampling = 7,
  minibatch = 8,
  split = 9,
  test = 10,
  reward = 11
};

// seed x stream -> a key of its own.
inline uint64_t stream_key(uint64_t seed, Stream stream) {
  const auto w = philox(seed, 0x706f6e6465722121ull, static_cast<uint64_t>(stream));
  return uint64_t{w[1]} << 32 | w[0];
}

// A cursor over f(key, index): convenient where numbers are drawn in a fixed sequence (corpora, shuffles). Two cursors
// with the same key and index give the same numbers.
class CounterRng {
 public:
  CounterRng(uint64_t key, uint64_t index) : key_(key), index_(index) {}
  CounterRng(uint64_t seed, Stream stream, uint64_t index) : CounterRng(stream_key(seed, stream), index) {}

  uint32_t next_u32() {
    if (used_ == 4) {
      block_ = philox(key_, index_, position_++);
      used_ = 0;
    }
    return block_[used_++];
  }
  uint64_t next_u64() {
    const uint64_t lo = next_u32();
    return lo | uint64_t{next_u32()} << 32;
  }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  // Uniform in 0 .. n - 1, without bias (n > 0).
  uint64_t below(uint64_t n) {
    const uint64_t limit = ~uint64_t{0} - (~uint64_t{0} % n + 1) % n;
    uint64_t x;
    do x = next_u64();
    while (x > limit);
    return x % n;
  }
  // Standard normal (Box-Muller; the second value is dropped, so that a draw is one index step).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925286766559 * v);
  }
  template <class Container>
  void shuffle(Container& c) {
    for (size_t i = c.size(); i > 1; --i) {
      using std::swap;
      swap(c[i - 1], c[below(i)]);
    }
  }

 private:
  uint64_t key_, index_, position_ = 0;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace ponder
