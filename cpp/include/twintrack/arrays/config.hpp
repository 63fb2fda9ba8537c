// What every header relies on: arithmetic that follows IEEE 754, and function qualifiers shared by
// the CPU loops and the CUDA kernels.
#pragma once

// Fast arithmetic takes NaN for a number, reorders sums and multiplies by reciprocals: results
// would be other bits, and calibrated scores NaN. GCC and Clang name all of it or the part that
// they were asked for; what they do not name is refused by CMakeLists.txt.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(_M_FP_FAST) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ == 1)
#error "TwinTrack needs IEEE 754: compile without -ffast-math, -Ofast and the flags that they set"
#endif

// A function with hot loops in it, defined in a `<topic>_loops.hpp` that `<topic>.hpp` includes: a
// program compiles those that it calls. Our own targets define TWINTRACK_LINKED, see declarations
// alone and are linked with a library of all of them (CMakeLists.txt), each compiled once.
#if defined(TWINTRACK_LINKED)
#define TWINTRACK_ENTRY
#else
#define TWINTRACK_ENTRY inline TWINTRACK_NOINLINE
#endif

// A per-voxel rule: compiled for host and device alike, and inlined into its caller so that it is
// compiled for the instruction set of the loop that calls it (see instruction_set.hpp).
#if defined(__CUDACC__)
#define TWINTRACK_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
#define TWINTRACK_HD inline __attribute__((always_inline))
#else
#define TWINTRACK_HD inline
#endif

// The same for lambdas and host-only loops, where the attribute stands after the parameter list.
#if defined(__GNUC__) || defined(__clang__)
#define TWINTRACK_INLINE_LAMBDA __attribute__((always_inline))
#define TWINTRACK_INLINE inline __attribute__((always_inline))
#define TWINTRACK_NOINLINE __attribute__((noinline))
#else
#define TWINTRACK_INLINE_LAMBDA
#define TWINTRACK_INLINE inline
#define TWINTRACK_NOINLINE
#endif
