// Vectors of the groups and nodes of a calibration map, for several voxels at once: filled by whole
// loads and shuffles, which cost less than gathering fields one by one.
//
// Only for compilers with vector extensions (TWINTRACK_NODE_VECTORS). Results are passed by
// reference, as the ABI of wide return values depends on the instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "twintrack/arrays/config.hpp"
#include "twintrack/calibration/map_rule.hpp"

#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
#define TWINTRACK_NODE_VECTORS 1

namespace twintrack::detail {

typedef float FourFloats __attribute__((vector_size(16)));
typedef double TwoDoubles __attribute__((vector_size(16)));

/// What it takes to place and map `voxels` voxels of one type at once.
template <class Real, int voxels>
struct NodeVectors;

template <>
struct NodeVectors<float, 4> {
  typedef float Reals __attribute__((vector_size(16)));
  typedef std::uint32_t Words __attribute__((vector_size(16)));
  static constexpr int voxels = 4;

  /// Nodes by their fields.
  struct Fields {
    Reals offset, y, before, after;
  };
  TWINTRACK_INLINE static void load(const MapNode<float>* nodes, const std::uint32_t* place,
                                    Fields& to) {
    Reals a, b, c, d;
    std::memcpy(&a, nodes + place[0], sizeof a);
    std::memcpy(&b, nodes + place[1], sizeof b);
    std::memcpy(&c, nodes + place[2], sizeof c);
    std::memcpy(&d, nodes + place[3], sizeof d);
    const Reals ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const Reals cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const Reals ab_slopes = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Reals cd_slopes = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    to.offset = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    to.y = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    to.before = __builtin_shufflevector(ab_slopes, cd_slopes, 0, 1, 4, 5);
    to.after = __builtin_shufflevector(ab_slopes, cd_slopes, 2, 3, 6, 7);
  }

  /// Two groups, with the bits of their places.
  TWINTRACK_INLINE static void load_two(const MapGroup<float>* groups, const std::uint32_t* place,
                                        FourFloats& to) {
    double first, second;
    std::memcpy(&first, groups + place[0], sizeof first);
    std::memcpy(&second, groups + place[1], sizeof second);
    const TwoDoubles both = {first, second};
    std::memcpy(&to, &both, sizeof to);
  }
  TWINTRACK_INLINE static void load(const MapGroup<float>* groups, const std::uint32_t* place,
                                    Reals& centre, Words& to) {
    FourFloats a, b;
    load_two(groups, place, a);
    load_two(groups, place + 2, b);
    centre = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    const Reals bits = __builtin_shufflevector(a, b, 1, 3, 5, 7);
    std::memcpy(&to, &bits, sizeof to);
  }

  /// Exponents and digits without the sign.
  TWINTRACK_INLINE static void words(const Reals& x, Words& to) {
    std::memcpy(&to, &x, sizeof to);
    to &= 0x7fffffffu;
  }
  TWINTRACK_INLINE static void store(const Words& from, std::uint32_t* to) {
    std::memcpy(to, &from, sizeof from);
  }
};

#if defined(__x86_64__)
// Two of those, for which AVX2 has room.
template <>
struct NodeVectors<float, 8> {
  typedef float Reals __attribute__((vector_size(32)));
  typedef std::uint32_t Words __attribute__((vector_size(32)));
  static constexpr int voxels = 8;

  struct Fields {
    Reals offset, y, before, after;
  };
  TWINTRACK_INLINE static void load(const MapNode<float>* nodes, const std::uint32_t* place,
                                    Fields& to) {
    Reals a, b, c, d;
    load_two(nodes, place, a);
    load_two(nodes, place + 1, b);
    load_two(nodes, place + 2, c);
    load_two(nodes, place + 3, d);
    const Reals ab = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
    const Reals cd = __builtin_shufflevector(c, d, 0, 8, 1, 9, 4, 12, 5, 13);
    const Reals ab_slopes = __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Reals cd_slopes = __builtin_shufflevector(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    to.offset = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13);
    to.y = __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    to.before = __builtin_shufflevector(ab_slopes, cd_slopes, 0, 1, 8, 9, 4, 5, 12, 13);
    to.after = __builtin_shufflevector(ab_slopes, cd_slopes, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  // Nodes of the first voxel and the fifth.
  TWINTRACK_INLINE static void load_two(const MapNode<float>* nodes, const std::uint32_t* place,
                                        Reals& to) {
    FourFloats low, high;
    std::memcpy(&low, nodes + place[0], sizeof low);
    std::memcpy(&high, nodes + place[4], sizeof high);
    to = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  }

  TWINTRACK_INLINE static void load(const MapGroup<float>* groups, const std::uint32_t* place,
                                    Reals& centre, Words& to) {
    using Four = NodeVectors<float, 4>;
    FourFloats a, b, c, d;
    Four::load_two(groups, place, a);
    Four::load_two(groups, place + 2, b);
    Four::load_two(groups, place + 4, c);
    Four::load_two(groups, place + 6, d);
    const Reals low = __builtin_shufflevector(a, c, 0, 1, 2, 3, 4, 5, 6, 7);
    const Reals high = __builtin_shufflevector(b, d, 0, 1, 2, 3, 4, 5, 6, 7);
    centre = __builtin_shufflevector(low, high, 0, 2, 8, 10, 4, 6, 12, 14);
    const Reals bits = __builtin_shufflevector(low, high, 1, 3, 9, 11, 5, 7, 13, 15);
    std::memcpy(&to, &bits, sizeof to);
  }

  TWINTRACK_INLINE static void words(const Reals& x, Words& to) {
    std::memcpy(&to, &x, sizeof to);
    to &= 0x7fffffffu;
  }
  TWINTRACK_INLINE static void store(const Words& from, std::uint32_t* to) {
    std::memcpy(to, &from, sizeof from);
  }
};

template <>
struct NodeVectors<double, 4> {
  typedef double Reals __attribute__((vector_size(32)));
  typedef std::uint64_t Words __attribute__((vector_size(32)));
  static constexpr int voxels = 4;

  struct Fields {
    Reals offset, y, before, after;
  };
  TWINTRACK_INLINE static void load(const MapNode<double>* nodes, const std::uint32_t* place,
                                    Fields& to) {
    Reals a, b, c, d;
    std::memcpy(&a, nodes + place[0], sizeof a);
    std::memcpy(&b, nodes + place[1], sizeof b);
    std::memcpy(&c, nodes + place[2], sizeof c);
    std::memcpy(&d, nodes + place[3], sizeof d);
    const Reals ab_even = __builtin_shufflevector(a, b, 0, 4, 2, 6);
    const Reals ab_odd = __builtin_shufflevector(a, b, 1, 5, 3, 7);
    const Reals cd_even = __builtin_shufflevector(c, d, 0, 4, 2, 6);
    const Reals cd_odd = __builtin_shufflevector(c, d, 1, 5, 3, 7);
    to.offset = __builtin_shufflevector(ab_even, cd_even, 0, 1, 4, 5);
    to.y = __builtin_shufflevector(ab_odd, cd_odd, 0, 1, 4, 5);
    to.before = __builtin_shufflevector(ab_even, cd_even, 2, 3, 6, 7);
    to.after = __builtin_shufflevector(ab_odd, cd_odd, 2, 3, 6, 7);
  }

  TWINTRACK_INLINE static void load(const MapGroup<double>* groups, const std::uint32_t* place,
                                    Reals& centre, Words& to) {
    TwoDoubles a, b, c, d;
    std::memcpy(&a, groups + place[0], sizeof a);
    std::memcpy(&b, groups + place[1], sizeof b);
    std::memcpy(&c, groups + place[2], sizeof c);
    std::memcpy(&d, groups + place[3], sizeof d);
    const Reals ac = __builtin_shufflevector(a, c, 0, 1, 2, 3);
    const Reals bd = __builtin_shufflevector(b, d, 0, 1, 2, 3);
    centre = __builtin_shufflevector(ac, bd, 0, 4, 2, 6);
    const Reals bits = __builtin_shufflevector(ac, bd, 1, 5, 3, 7);
    std::memcpy(&to, &bits, sizeof to);
  }

  TWINTRACK_INLINE static void words(const Reals& x, Words& to) {
    std::memcpy(&to, &x, sizeof to);
    to = (to >> 32) & 0x7fffffffu;
  }
  TWINTRACK_INLINE static void store(const Words& from, std::uint32_t* to) {
    for (int i = 0; i < voxels; ++i) to[i] = static_cast<std::uint32_t>(from[i]);
  }
};
#endif

/// The vectors that suit this processor; `voxels` is 0 where none do.
template <class Real>
struct BestNodeVectors {
  static constexpr int voxels = 0;
};
#if defined(__x86_64__)
template <>
struct BestNodeVectors<float> : NodeVectors<float, 8> {};
template <>
struct BestNodeVectors<double> : NodeVectors<double, 4> {};
#else
template <>
struct BestNodeVectors<float> : NodeVectors<float, 4> {};
#endif

}  // namespace twintrack::detail

#else
#define TWINTRACK_NODE_VECTORS 0
#endif
