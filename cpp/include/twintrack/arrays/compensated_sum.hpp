// A sum of doubles that is right to the last bit or two however many terms it has.
#pragma once

namespace twintrack {

/// Carries the rounding errors of the additions along (Neumaier). The order of the terms decides
/// the last bit, so a fixed order gives the same result everywhere.
class CompensatedSum {
 public:
  void add(double x) {
    const double sum = sum_ + x;
    error_ += (sum_ < 0 ? -sum_ : sum_) >= (x < 0 ? -x : x) ? (sum_ - sum) + x : (x - sum) + sum_;
    sum_ = sum;
  }
  double value() const { return sum_ + error_; }

 private:
  double sum_ = 0;
  double error_ = 0;
};

}  // namespace twintrack
