// Subnormal numbers count as zero on this thread while an object lives: as inputs and as results.
#pragma once

#include <cstdint>

namespace ponder::kernels::cpu {

// Around calls through pointers only: the compiler does not know that arithmetic depends on it.
class FlushSubnormals {
 public:
  explicit FlushSubnormals(bool wanted) : wanted_(wanted) {
    if (!wanted_) return;
    before_ = read();
    write(before_ | kFlush);
  }
  ~FlushSubnormals() {
    if (wanted_) write(before_);
  }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Register = uint32_t;
  static constexpr Register kFlush = 0x8040;  // flush to zero, denormals are zero
  static Register read() { return __builtin_ia32_stmxcsr(); }
  static void write(Register r) { __builtin_ia32_ldmxcsr(r); }
#elif defined(__aarch64__)
  using Register = uint64_t;
  // A result just below 2^-126 that rounding would lift to it is zero here, on x86 it is not; no product of numbers that
  // mean anything comes there.
  static constexpr Register kFlush = 1u << 24;
  static Register read() {
    Register r;
    asm volatile("mrs %0, fpcr" : "=r"(r)::"memory");
    return r;
  }
  static void write(Register r) { asm volatile("msr fpcr, %0" ::"r"(r) : "memory"); }
#endif
  bool wanted_;
  Register before_ = 0;
};

}  // namespace ponder::kernels::cpu
