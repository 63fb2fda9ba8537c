// InputError says the whole in `what()` and has it in parts.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/contiguous.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/fused_export.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/contact_angle.hpp"

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

// Whatever multiplies extents refuses those whose product has no room, by the name that the
// argument has there.
void extents_are_multiplied_with_a_check() {
  constexpr std::int64_t large = std::int64_t{1} << 40;
  const Shape too_large{large, large, 3};
  const std::string wrong = "has shape [" + std::to_string(large) + ", " + std::to_string(large) +
                            ", 3]; at most 2^60 - 1 elements are supported";
  check(element_count({}) == 1 && element_count({2, 3}) == 6 && element_count({5, 0, 7}) == 0,
        "elements are counted wrongly");
  constexpr std::int64_t most = (std::int64_t{1} << 60) - 1;
  check(element_count({most}) == most && element_count({1, most, 1}) == most,
        "2^60 - 1 is refused");
  for (const Shape& shape :
       {Shape{most + 1}, Shape{2, most / 2 + 1}, Shape{1 << 30, 1 << 30}, Shape{large, 0, large},
        Shape{std::int64_t{1} << 32, std::int64_t{1} << 32}, Shape{3, 6148914691236517206}})
    check(thrown_by([&] { element_count(shape, "out"); }).argument() == "out",
          "a shape that has no room is taken");
  says(thrown_by([] { element_count({4, -1}, "out"); }),
       "out has shape [4, -1]; extents are not negative");

  const float score = 0;
  says(thrown_by([&] { contiguous(&score, too_large); }), "shape " + wrong);
  const ArrayView view{reinterpret_cast<const std::byte*>(&score), Element::float32, too_large,
                       Shape(3, 0)};
  const WritableArrayView out{view};
  CaseView one_case;
  one_case.score = view;
  one_case.raters.assign(1, view);
  says(thrown_by([&] { ScoreTally(1).update(one_case); }), "score " + wrong);
  says(thrown_by([&] { CaseTally(1, 50).update(one_case); }), "score " + wrong);
  says(thrown_by([&] { CalibrationMap({0, 1}, {0, 1}).apply(view, out); }), "score " + wrong);
  says(thrown_by([&] { contact_angles({one_case, view, {1}, {}}); }), "vessels " + wrong);
  const MergeRule rule{{1}};
  ArrayView member{view.data, Element::float32, {2, large, large, 3}, Shape(4, 0)};
  says(thrown_by([&] { ensemble_score({member}, rule, nullptr, out); }),
       "members[0] has shape [2, " + std::to_string(large) + ", " + std::to_string(large) +
           ", 3]; at most 2^60 - 1 elements are supported");
  member.shape = {2, 1, 1, 1};
  says(thrown_by([&] { export_score({member}, {ExportGrid{}}, rule, nullptr, out); }),
       "out " + wrong);
}

}  // namespace

int main() {
  return tests::run([] {
    the_words_are_those_of_the_parts();
    the_core_throws_parts();
    extents_are_multiplied_with_a_check();
  });
}
