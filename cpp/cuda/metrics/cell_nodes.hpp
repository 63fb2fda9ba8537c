// The cell of a score (evaluation_cells.hpp) by one look-up, for kernels.
//
// Cells that no score falls into are left out, and the others numbered anew.
//
// [0, 1] is cut into equal buckets, narrower than a bin of the evaluation. At most three cells
// begin in one: at an edge of a bin, at one of a confidence, at a threshold. A node holds where, so
// that the cell of a score takes three comparisons.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack::cuda {

/// The cell before the first edge of a bucket; each edge that a score reaches is one more. An edge
/// is kept as 2^32 less its bits: added to the bits of a score that reaches it, it carries.
struct alignas(16) CellNode {
  static constexpr int edges = 3;
  std::uint32_t edge[edges];  // 0, with which nothing carries, if there are fewer
  std::uint32_t cell;
};

/// The number of a score's bucket, among 2^bits + 1 centred on multiples of 2^-bits.
class Buckets {
 public:
  explicit Buckets(int bits)
      : rounder_(static_cast<float>(1u << (23 - bits))), buckets_((1u << bits) + 1) {}

  TWINTRACK_HD std::uint32_t count() const { return buckets_; }
  /// 0 <= score <= 1. Of floats from `rounder_` on the spacing is 2^-bits, so the sum is rounded to
  /// it and its bits count buckets.
  TWINTRACK_HD std::uint32_t bucket(float score) const {
    return twintrack::detail::bits_as<std::uint32_t>(score + rounder_) -
           twintrack::detail::bits_as<std::uint32_t>(rounder_);
  }

 private:
  float rounder_;
  std::uint32_t buckets_;
};

/// Buckets that are narrow enough for a number of bins, and at most 2049.
inline Buckets cell_buckets(int bins) {
  int bits = 6;
  while ((1 << bits) < 2 * bins) ++bits;
  return Buckets(bits);
}

/// The nodes of all buckets for cells whose least scores are these, ascending from 0.
inline std::vector<CellNode> cell_nodes(const std::vector<float>& first, const Buckets& buckets) {
  std::vector<CellNode> nodes;
  std::uint32_t cell = 0;
  for (std::uint32_t bucket = 0; bucket < buckets.count(); ++bucket) {
    CellNode& node = nodes.emplace_back(CellNode{{}, cell});
    for (int i = 0; cell + 1 < first.size() && buckets.bucket(first[cell + 1]) == bucket; ++i) {
      if (i == CellNode::edges) throw std::logic_error("too many cells begin in one bucket");
      node.edge[i] = 0 - twintrack::detail::bits_as<std::uint32_t>(first[++cell]);
    }
  }
  return nodes;
}

}  // namespace twintrack::cuda
