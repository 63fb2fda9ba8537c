// Weighted isotonic regression by the pool-adjacent-violators algorithm (PAVA).
//
// Minimises Σ w_i (m_i - y_i)² over m_1 <= … <= m_n (Barlow et al. 1972; the objective of the
// TwinTrack paper, Appendix A.2). Linear in n: every value enters one block and every block is
// merged at most once.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "twintrack/arrays/input_error.hpp"

namespace twintrack {

/// Writes the fit of `n` values with weights `weights` (all 1 if null) to `fitted`, which may be
/// `values` itself. A value of weight 0 has no say: it takes the fit of the weighted value before
/// it, or after it at the start. Throws InputError for values that are not finite,
/// weights that are negative or not finite, and weights that are all 0.
inline void isotonic(const double* values, const double* weights, std::size_t n, double* fitted) {
  struct Block {
    double sum;     // Σ w y
    double weight;  // Σ w
    double mean;
    std::size_t end;  // one past the last value
  };
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = weights == nullptr ? 1.0 : weights[i];
    if (!std::isfinite(values[i]))
      throw InputError("values[" + std::to_string(i) + "]",
                       "is " + std::to_string(values[i]) + "; values must be finite");
    if (!std::isfinite(weight) || weight < 0)
      throw InputError(
          "weights[" + std::to_string(i) + "]",
          "is " + std::to_string(weight) + "; weights must be finite and not negative");
    if (weight == 0) {
      if (!blocks.empty()) blocks.back().end = i + 1;
      continue;
    }
    Block block{weight * values[i], weight, values[i], i + 1};
    while (!blocks.empty() && blocks.back().mean >= block.mean) {
      block.sum += blocks.back().sum;
      block.weight += blocks.back().weight;
      if (!std::isfinite(block.sum))
        throw InputError("values", "up to values[" + std::to_string(i) +
                                       "], times their weights, add up to more than float64 holds");
      // Equal means stay as they are: pooling a plateau must not round it.
      if (blocks.back().mean != block.mean) block.mean = block.sum / block.weight;
      blocks.pop_back();
    }
    blocks.push_back(block);
  }
  if (n > 0 && blocks.empty()) throw InputError("weights", "are all 0");
  std::size_t i = 0;
  for (const Block& block : blocks)
    for (; i < block.end; ++i) fitted[i] = block.mean;
}

}  // namespace twintrack
