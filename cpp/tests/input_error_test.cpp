// InputError says the whole in `what()` and has it in parts.
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/score_tally.hpp"

using namespace twintrack;
using twintrack::tests::check;

namespace {

void says(const InputError& error, const std::string& expected) {
  check(error.what() == expected, std::string(error.what()) + " is not: " + expected);
}

// What `call()` throws.
InputError thrown_by(const auto& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error;
  }
  throw std::logic_error("no InputError was thrown");
}

void the_words_are_those_of_the_parts() {
  says({"score", "has 3 axes"}, "score has 3 axes");
  says({"", "an array changed while it was being read"},
       "an array changed while it was being read");
  says({"raters[1]", {3, 4}, 2, "labels must be 0 or 1"},
       "raters[1][3, 4] is 2; labels must be 0 or 1");
  says({"score", {}, std::nan(""), "scores must be probabilities in [0, 1]"},
       "score[] is nan; scores must be probabilities in [0, 1]");
  says({"score", {7}, 1.00000012f, "scores must be probabilities in [0, 1]"},
       "score[7] is 1.00000012; scores must be probabilities in [0, 1]");
  says({"members[0]", std::vector<std::int64_t>{1, 2}, std::nullopt, "has channels"},
       "members[0][1, 2] has channels");
}

void the_core_throws_parts() {
  ScoreTally tally(2);
  tests::SampleCase sample(1000, 2, 1);
  sample.labels[1][345] = 3;
  const InputError label = thrown_by([&] { tally.update(sample.view({10, 100})); });
  says(label, "raters[1][3, 45] is 3; labels must be 0 or 1");
  check(label.argument() == "raters[1]" && label.voxel() == std::vector<std::int64_t>{3, 45} &&
            label.value() == 3 && label.wrong() == "labels must be 0 or 1",
        "parts of a label are wrong");

  const InputError count = thrown_by([&] { ScoreTally(3).update(sample.view()); });
  says(count, "raters has 2 masks but the tally was made for 3");
  check(count.argument() == "raters" && !count.voxel() && !count.value() &&
            count.wrong() == "has 2 masks but the tally was made for 3",
        "parts of a wrong number of raters are wrong");

  const InputError knot = thrown_by([] { CalibrationMap({0.5, 0.25}, {0, 1}); });
  says(knot, "x[1] is 0.25, not above the knot before it");
  check(knot.argument() == "x[1]", "the argument of a broken knot is wrong");
}

}  // namespace

int main() {
  return tests::run([] {
    the_words_are_those_of_the_parts();
    the_core_throws_parts();
  });
}
