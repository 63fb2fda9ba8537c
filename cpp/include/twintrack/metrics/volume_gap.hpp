// What the official CRPS integrates: the squared gap between two distribution functions of volume.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace twintrack {

/// (F(y) - H(y - V))², where F interpolates linearly between points as numpy.interp does, to the
/// bit, and is 0 and 1 beyond them; H(0) = 1/2 as numpy.heaviside; V is the predicted volume.
class VolumeGap {
 public:
  /// F(at[k]) = share[k]; at least two points, strictly ascending.
  VolumeGap(std::vector<double> at, std::vector<double> share, double predicted)
      : at_(std::move(at)), share_(std::move(share)), predicted_(predicted) {
    for (std::size_t k = 0; k + 1 < at_.size(); ++k)
      slopes_.push_back((share_[k + 1] - share_[k]) / (at_[k + 1] - at_[k]));
  }

  double operator()(double y) const {
    const double step = y == predicted_ ? 0.5 : (y > predicted_ ? 1.0 : 0.0);
    const double gap = reference(y) - step;
    return gap * gap;
  }

 private:
  double reference(double y) const {
    if (y < at_.front()) return 0.0;
    if (y >= at_.back()) return y == at_.back() ? share_.back() : 1.0;
    const auto next = std::upper_bound(at_.begin(), at_.end(), y);
    const auto k = static_cast<std::size_t>(next - at_.begin()) - 1;
    return slopes_[k] * (y - at_[k]) + share_[k];
  }

  std::vector<double> at_;
  std::vector<double> share_;
  std::vector<double> slopes_;
  double predicted_;
};

}  // namespace twintrack
