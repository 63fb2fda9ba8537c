// IEEE 754's arithmetic in a thread, whatever it is set to.
//
// A program can have subnormal numbers taken for 0, for speed: torch.set_flush_denormal does, and
// so does loading a library that was linked with fast-math. That holds for a thread: results would
// depend on which one computes them.
#pragma once

#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace twintrack {

/// While it lives, subnormal numbers are numbers and results are rounded to nearest. The thread's
/// settings come back after that, and so do its floating-point exception flags.
class StandardArithmetic {
 public:
  StandardArithmetic() : before_(read()) { write(standard); }
  ~StandardArithmetic() { write(before_); }
  StandardArithmetic(const StandardArithmetic&) = delete;
  StandardArithmetic& operator=(const StandardArithmetic&) = delete;

 private:
#if defined(__SSE2__) || defined(_M_X64)
  using Register = unsigned;  // MXCSR
  static constexpr Register standard = 0x1f80;
  static Register read() { return _mm_getcsr(); }
  static void write(Register value) { _mm_setcsr(value); }
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
  using Register = std::uint64_t;  // FPCR
  static constexpr Register standard = 0;
  static Register read() {
    Register value;
    __asm__ volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(Register value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#else
  using Register = int;
  static constexpr Register standard = 0;
  static Register read() { return 0; }
  static void write(Register) {}
#endif

  Register before_;
};

}  // namespace twintrack
