// InputError: what is wrong with an input, in parts.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace twintrack {

namespace detail {

/// 9 digits tell any two float32 apart.
inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

inline std::string to_text(const std::vector<std::int64_t>& index) {
  std::string text;
  for (const std::int64_t i : index) text += (text.empty() ? "" : ", ") + std::to_string(i);
  return "[" + text + "]";
}

}  // namespace detail

/// An argument that breaks a rule of the input. `what()` says all of it: "raters[1][3, 4] is 2;
/// labels must be 0 or 1". The Python module raises twintrack.InputError with the same parts.
class InputError : public std::invalid_argument {
 public:
  /// `wrong` goes on from the argument: "has 3 axes".
  InputError(std::string argument, std::string wrong)
      : InputError(std::move(argument), std::nullopt, std::nullopt, std::move(wrong)) {}

  /// An element of an array; `wrong` is the rule that its value breaks.
  InputError(std::string argument, std::vector<std::int64_t> voxel, double value, std::string wrong)
      : InputError(std::move(argument), std::optional(std::move(voxel)), std::optional(value),
                   std::move(wrong)) {}

  InputError(std::string argument, std::optional<std::vector<std::int64_t>> voxel,
             std::optional<double> value, std::string wrong)
      : std::invalid_argument(text(argument, voxel, value, wrong)),
        argument_(std::move(argument)),
        voxel_(std::move(voxel)),
        value_(value),
        wrong_(std::move(wrong)) {}

  /// As the caller spells it, "raters[1]"; empty if there is none.
  const std::string& argument() const { return argument_; }
  /// Index of the element, if it is about one.
  const std::optional<std::vector<std::int64_t>>& voxel() const { return voxel_; }
  /// Its value; NaN and infinities as they are.
  const std::optional<double>& value() const { return value_; }
  /// What is wrong; after a value, the rule that it breaks.
  const std::string& wrong() const { return wrong_; }

 private:
  static std::string text(const std::string& argument,
                          const std::optional<std::vector<std::int64_t>>& voxel,
                          const std::optional<double>& value, const std::string& wrong) {
    std::string all = argument;
    if (voxel) all += detail::to_text(*voxel);
    if (!all.empty()) all += ' ';
    if (value) all += "is " + detail::number_text(*value) + "; ";
    return all + wrong;
  }

  std::string argument_;
  std::optional<std::vector<std::int64_t>> voxel_;
  std::optional<double> value_;
  std::string wrong_;
};

}  // namespace twintrack
