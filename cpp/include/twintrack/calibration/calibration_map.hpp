// CalibrationMap: a non-decreasing, piecewise-linear map from score to calibrated probability.
//
// Knots (x_i, y_i) with x strictly and y weakly increasing, all in [0, 1]; linear between knots,
// constant outside them. `interpolate` (map_rule.hpp) is the map by definition; scores are mapped
// by the nodes of map_nodes.hpp.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/calibration/map_nodes.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/map_table16.hpp"

namespace twintrack {

namespace detail {

/// Throws InputError unless the map of `score` can be written to `out`.
inline void check_mapped(const ArrayView& score, const WritableArrayView& out) {
  if (out.shape != score.shape)
    throw InputError(
        "out", "has shape " + to_text(out.shape) + " but score has shape " + to_text(score.shape));
  if (out.element != score.element) throw InputError("out", "and score have different dtypes");
}

}  // namespace detail

class CalibrationMap {
 public:
  /// Throws InputError unless 0 <= x_1 < … < x_n <= 1 and 0 <= y_1 <= … <= y_n <= 1 with
  /// n >= 1.
  CalibrationMap(std::vector<double> x, std::vector<double> y)
      : x_((check(x, y), std::move(x))), y_(std::move(y)), slope_(x_.size(), 0.0) {
    for (double& value : y_) value += 0.0;  // -0 becomes 0
    for (std::size_t i = 0; i + 1 < x_.size(); ++i)
      slope_[i] = (y_[i + 1] - y_[i]) / (x_[i + 1] - x_[i]);
  }

  CalibrationMap(const CalibrationMap&) = delete;
  CalibrationMap& operator=(const CalibrationMap&) = delete;

  const std::vector<double>& x() const { return x_; }
  const std::vector<double>& y() const { return y_; }

  KnotsView knots() const {
    return {x_.data(), y_.data(), slope_.data(), static_cast<unsigned>(x_.size())};
  }

  /// Nodes are built when first asked for; safe to call from several threads.
  template <class Real>
  MapView<Real> view() const {
    if constexpr (std::is_same_v<Real, double>) {
      std::call_once(double_once_, [&] { double_nodes_.emplace(knots()); });
      return double_nodes_->view();
    } else {
      std::call_once(float_once_, [&] { float_nodes_.emplace(knots()); });
      return float_nodes_->view();
    }
  }

  /// The table of a 16-bit type; built when first asked for, as nodes are.
  const detail::MapTable16& table(Element element) const {
    if (element == Element::float16) {
      std::call_once(float16_once_, [&] {
        float16_table_.emplace(detail::MapTable16::of<float16>(view<float>()));
      });
      return *float16_table_;
    }
    std::call_once(bfloat16_once_, [&] {
      bfloat16_table_.emplace(detail::MapTable16::of<bfloat16>(view<float>()));
    });
    return *bfloat16_table_;
  }

  /// Writes the map of every score to `out`, which has the same shape and element type and may be
  /// the score itself. Throws InputError for a score outside [0, 1] or NaN; `out` is then
  /// unspecified, unless it is the score, which is left as it was. Other overlaps of the two are
  /// not allowed.
  void apply(const ArrayView& score, const WritableArrayView& out,
             int threads = max_threads()) const;

 private:
  static void check(const std::vector<double>& x, const std::vector<double>& y) {
    if (x.empty()) throw InputError("", "the map has no knots");
    if (x.size() != y.size())
      throw InputError("", "the map has " + std::to_string(x.size()) + " x values but " +
                               std::to_string(y.size()) + " y values");
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto refuse = [i](const char* axis, double value, const char* wrong) {
        throw InputError(axis + ("[" + std::to_string(i) + "]"),
                         "is " + detail::number_text(value) + wrong);
      };
      if (!(x[i] >= 0 && x[i] <= 1)) refuse("x", x[i], ", not in [0, 1]");
      if (!(y[i] >= 0 && y[i] <= 1)) refuse("y", y[i], ", not in [0, 1]");
      if (i > 0 && !(x[i] > x[i - 1])) refuse("x", x[i], ", not above the knot before it");
      if (i > 0 && !(y[i] >= y[i - 1])) refuse("y", y[i], ", below the knot before it");
    }
  }

  std::vector<double> x_;
  std::vector<double> y_;
  std::vector<double> slope_;
  mutable std::once_flag float_once_;
  mutable std::once_flag double_once_;
  mutable std::once_flag float16_once_;
  mutable std::once_flag bfloat16_once_;
  mutable std::optional<detail::MapNodes<float>> float_nodes_;
  mutable std::optional<detail::MapNodes<double>> double_nodes_;
  mutable std::optional<detail::MapTable16> float16_table_;
  mutable std::optional<detail::MapTable16> bfloat16_table_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/calibration/calibration_map_loops.hpp"
#endif
