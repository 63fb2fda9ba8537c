// Cases for the kernels: scores that are hard to count, in arrays that are awkward to read.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "elements.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::tests {

/// ThreadSanitizer slows the kernels down a hundredfold: it sees every `thinned`th case.
#if defined(__SANITIZE_THREAD__)
inline constexpr unsigned thinned = 5;
#else
inline constexpr unsigned thinned = 1;
#endif

enum class Scores {
  uniform,
  log_uniform,  // over all octaves at both ends: most cells occur, few of their pages are resident
  background,   // mostly 0, the rest in clumps
  peppered,     // 0 and 1 between uniform ones
  equal,        // one value, neither 0 nor 1
  few,          // three values in short runs
};
inline constexpr Scores all_scores[] = {Scores::uniform,  Scores::log_uniform, Scores::background,
                                        Scores::peppered, Scores::equal,       Scores::few};

inline std::vector<double> make_scores(Scores kind, std::size_t voxels, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  const auto tail = [&] {
    const double d = std::exp2(-1 - 40 * unit(random));
    return unit(random) < 0.5 ? d : 1 - d;
  };
  std::vector<double> score(voxels);
  for (std::size_t i = 0; i < voxels; ++i) {
    switch (kind) {
      case Scores::uniform:
        score[i] = unit(random);
        break;
      case Scores::log_uniform:
        score[i] = tail();
        break;
      case Scores::background:
        score[i] = i / 97 % 16 == 3 ? tail() : 0;
        break;
      case Scores::peppered:
        score[i] = unit(random) < 0.4 ? 0 : (unit(random) < 0.3 ? 1 : unit(random));
        break;
      case Scores::equal:
        score[i] = 0.3;
        break;
      case Scores::few:
        score[i] = 0.25 * static_cast<double>(1 + i / 23 % 3);
        break;
    }
  }
  return score;
}

/// Rounds a score in [0, 1] to `element` and stores it.
inline void store_score(Element element, double score, std::byte* to) {
  const auto put = [&](auto value) { std::memcpy(to, &value, sizeof value); };
  switch (element) {
    case Element::float16:
      return put(from_unit<float16>(static_cast<float>(score)));
    case Element::bfloat16:
      return put(from_unit<bfloat16>(static_cast<float>(score)));
    case Element::float32:
      return put(static_cast<float>(score));
    default:
      return put(score);
  }
}

/// How the arrays of a sample lie in memory.
struct Lie {
  Element score = Element::float32;
  Element label = Element::uint8;
  std::size_t offset = 0;      // elements before the first
  std::int64_t spread = 1;     // elements from one to the next
  bool columns_first = false;  // the raters in another memory order than the score
};

/// A seeded case of shape (rows, columns) that owns its arrays.
struct CaseSample {
  CaseSample(std::int64_t rows, std::int64_t columns, std::size_t raters, bool with_region,
             Scores kind, unsigned seed, Lie lie = {})
      : shape{rows, columns}, lie_(lie) {
    const auto voxels = static_cast<std::size_t>(rows * columns);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> unit(0, 1);
    const std::vector<double> scores = make_scores(kind, voxels, seed);
    // A third of the cases has votes everywhere, the others where the score is high.
    const bool anywhere = seed % 3 == 0;
    arrays.resize(1 + raters + (with_region ? 1 : 0));
    add(arrays[0], lie.score, false,
        [&](std::size_t i, std::byte* to) { store_score(lie.score, scores[i], to); });
    for (std::size_t k = 0; k < raters; ++k)
      add(arrays[1 + k], lie.label, lie.columns_first, [&](std::size_t i, std::byte* to) {
        const bool marked = unit(random) < (anywhere ? 0.5 : scores[i] * 0.9);
        visit_element(lie.label, [&](auto sample) {
          if constexpr (std::is_class_v<decltype(sample)>)
            store_score(lie.label, marked ? 1 : 0, to);
          else
            detail_put(static_cast<decltype(sample)>(marked ? 1 : 0), to);
        });
      });
    if (with_region)
      add(arrays.back(), Element::boolean, false, [&](std::size_t, std::byte* to) {
        *to = std::byte(unit(random) < 0.6 ? 1 + random() % 255 : 0);
      });
    for (std::size_t k = 0; k < raters; ++k) view_.raters.push_back(arrays[1 + k].view);
    view_.score = arrays[0].view;
    if (with_region) view_.region = &arrays.back().view;
  }
  CaseSample(const CaseSample&) = delete;
  CaseSample& operator=(const CaseSample&) = delete;

  const CaseView& view() const { return view_; }

  /// Where element (row, column) of array `k` lies.
  std::byte* at(std::size_t k, std::int64_t row, std::int64_t column) {
    const ArrayView& view = arrays[k].view;
    return const_cast<std::byte*>(view.data) + row * view.strides[0] + column * view.strides[1];
  }

  struct Array {
    std::vector<std::byte> memory;
    ArrayView view;
  };
  Shape shape;
  std::vector<Array> arrays;  // score, raters, region

 private:
  template <class T>
  static void detail_put(T value, std::byte* to) {
    std::memcpy(to, &value, sizeof value);
  }

  template <class Put>
  void add(Array& array, Element element, bool columns_first, const Put& put) {
    const auto size = static_cast<std::int64_t>(size_of(element));
    const std::int64_t step = size * lie_.spread;
    // vectors of bytes come aligned to 16
    array.memory.resize(lie_.offset * static_cast<std::size_t>(size) +
                        static_cast<std::size_t>(shape[0] * shape[1] * step));
    array.view.data = array.memory.data() + lie_.offset * static_cast<std::size_t>(size);
    array.view.element = element;
    array.view.shape = shape;
    array.view.strides =
        columns_first ? Shape{step, step * shape[0]} : Shape{step * shape[1], step};
    for (std::int64_t row = 0; row < shape[0]; ++row)
      for (std::int64_t column = 0; column < shape[1]; ++column)
        put(static_cast<std::size_t>(row * shape[1] + column),
            const_cast<std::byte*>(array.view.data) + row * array.view.strides[0] +
                column * array.view.strides[1]);
  }

  Lie lie_;
  CaseView view_;
};

}  // namespace twintrack::tests
