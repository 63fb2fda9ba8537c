// Choice of the CPU instruction set at run time.
//
// A hot loop is written once, as always-inline code, and passed to `with_instruction_set` as a
// lambda. It is compiled once per set and the best one that this processor has is called. Every set
// gives the same bits: contraction of a multiplication and an addition, which AVX-512 has
// instructions for, is switched off by -ffp-contract=off (CMakeLists.txt).
//
// TWINTRACK_INSTRUCTION_SET=baseline|avx2|avx512 in the environment forces one that the processor
// has; anything else is an error. On other architectures, and with GCC on Windows, there is one
// set, the compiler's baseline.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "twintrack/arrays/config.hpp"

// GCC for Windows keeps vectors of 32 bytes on a stack that it aligns to 16 (its bug 54412).
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__)) && \
    !defined(__CUDACC__) && (!defined(_WIN32) || defined(__clang__))
#define TWINTRACK_X86_DISPATCH 1
#else
#define TWINTRACK_X86_DISPATCH 0
#endif

namespace twintrack {

enum class InstructionSet { baseline, avx2, avx512 };

inline const char* name(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::baseline:
      break;
  }
  return "baseline";
}

/// Whether this processor can run `set`.
inline bool supported(InstructionSet set) {
#if TWINTRACK_X86_DISPATCH
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  return set == InstructionSet::baseline || (set == InstructionSet::avx2 && avx2) ||
         (set == InstructionSet::avx512 && avx512);
#else
  return set == InstructionSet::baseline;
#endif
}

namespace detail {

inline InstructionSet choose_instruction_set() {
  const char* forced = std::getenv("TWINTRACK_INSTRUCTION_SET");
  for (const InstructionSet set :
       {InstructionSet::avx512, InstructionSet::avx2, InstructionSet::baseline}) {
    if (forced != nullptr && *forced != '\0' && std::string_view(forced) != name(set)) continue;
    if (supported(set)) return set;
  }
  throw std::invalid_argument(std::string("TWINTRACK_INSTRUCTION_SET is '") + forced +
                              "'; this processor has baseline" +
                              (supported(InstructionSet::avx2) ? ", avx2" : "") +
                              (supported(InstructionSet::avx512) ? ", avx512" : ""));
}

#if TWINTRACK_X86_DISPATCH
template <class Loop>
__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt"))) void run_avx2(Loop& loop) {
  loop();
}
template <class Loop>
__attribute__((
    target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512cd"))) void
run_avx512(Loop& loop) {
  loop();
}
#endif

}  // namespace detail

/// The set in use, read from the environment once.
inline InstructionSet instruction_set() {
  static const InstructionSet chosen = detail::choose_instruction_set();
  return chosen;
}

/// Runs `loop()` compiled for the set in use. `loop` is a lambda marked TWINTRACK_INLINE_LAMBDA
/// that calls only always-inline code in its hot part, and hands it what it captures by value:
/// captured variables lie in memory, where stores of a loop may change them, as far as the compiler
/// knows.
///
/// All of that is compiled once per set. What several loops have in common is better a function
/// with a choice of its own, which costs two nanoseconds a call: for the work of a hundred voxels
/// or more.
template <class Loop>
void with_instruction_set(Loop&& loop) {
#if TWINTRACK_X86_DISPATCH
  const InstructionSet set = instruction_set();
  if (set == InstructionSet::avx512) return detail::run_avx512(loop);
  if (set == InstructionSet::avx2) return detail::run_avx2(loop);
#endif
  loop();
}

}  // namespace twintrack
