// The kernels of CaseTally give the sums of the CPU, bit for bit.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/metrics/case_tally.cuh"
#include "cuda/metrics/case_tally.hpp"
#include "cuda_runtime.h"
#include "emulated_device.hpp"
#include "twintrack/metrics/case_tally.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

const cudaStream_t stream = reinterpret_cast<cudaStream_t>(0x1234);
using Ranges = std::vector<MarkedExtent::Range>;

bool same(const Ranges& a, const Ranges& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].first != b[i].first || a[i].last != b[i].last) return false;
  return true;
}

void compare(const CaseView& view, int bins, const std::string& what) {
  const bool marks = view.region == nullptr;
  twintrack::CaseTally expected(view.raters.size(), bins);
  CaseOverview overview;
  expected.update(view, marks ? &overview : nullptr, 1);
  Ranges marked{{7, 7}};
  const CaseSums found = cuda::case_sums(view, bins, marks ? &marked : nullptr, 0, stream);
  check(found.values() == expected.sums().values(), "a case's sums on the device differ: " + what);
  check(!marks || same(marked, overview.marked), "the marked extent differs: " + what);
}

void every_kind_of_score() {
  // Room for the table 32 times, 4 times and not at all.
  const char* const devices[] = {"shared=200000,threads=96", "shared=40000", "shared=3000"};
  unsigned seed = 0;
  for (const Scores kind : all_scores)
    for (const Element element :
         {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
      if (++seed % thinned != 0) continue;
      const char* const device = devices[seed % 3];
      emulate(device);
      const CaseSample sample(7, 421, 1 + seed % 5, seed % 2 == 0, kind, seed, {.score = element});
      compare(sample.view(), 20,
              std::string(device) + ", scores " + std::to_string(static_cast<int>(kind)) +
                  ", element " + std::to_string(static_cast<int>(element)));
    }
}

void every_number_of_raters_and_bins() {
  emulate("shared=100000");
  unsigned seed = 0;
  for (const std::size_t raters : {1, 3, 4, 5, 6, 7, 8, 14, 15, 33}) {
    if (++seed % thinned != 0) continue;
    for (const Element element : {Element::float32, Element::float64}) {
      const CaseSample sample(3, 301, raters, seed % 3 == 1, Scores::peppered, seed,
                              {.score = element});
      compare(sample.view(), 20, std::to_string(raters) + " raters");
    }
  }
  for (const int bins : {1, 2, 3, 15, 100, 1000}) {
    if (++seed % thinned != 0) continue;
    const CaseSample sample(3, 501, 3, false, Scores::log_uniform, seed);
    compare(sample.view(), bins, std::to_string(bins) + " bins");
    const CaseSample halves(3, 501, 8, true, Scores::uniform, seed, {.score = Element::bfloat16});
    compare(halves.view(), bins, std::to_string(bins) + " bins, bfloat16, 8 raters");
  }
}

void every_size_and_lie() {
  emulate("shared=32768");
  unsigned seed = 0;
  for (const std::int64_t voxels : {1, 3, 4, 5, 255, 256, 257, 769}) {
    if (++seed % thinned != 0) continue;
    const CaseSample sample(1, voxels, 2, voxels % 2 == 0, Scores::uniform, 5);
    compare(sample.view(), 10, std::to_string(voxels) + " voxels");
  }
  const CaseSample empty(0, 3, 2, false, Scores::uniform, 5);
  compare(empty.view(), 20, "no voxels");
  for (const Element score :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16})
    for (const Lie lie :
         {Lie{score, Element::uint8, 1, 1, false}, Lie{score, Element::boolean, 3, 1, false},
          Lie{score, Element::uint8, 0, 3, false}, Lie{score, Element::int32, 1, 2, true},
          Lie{score, Element::float64, 0, 1, true}}) {
      if (++seed % thinned != 0) continue;
      const CaseSample sample(13, 51, seed % 4 == 0 ? 9 : 3, seed % 2 == 0, Scores::uniform, seed,
                              lie);
      compare(sample.view(), 20,
              "lie with offset " + std::to_string(lie.offset) + ", spread " +
                  std::to_string(lie.spread));
    }
  // Copied in parts of 64 voxels: an extent and votes that go on from part to part.
  const std::int64_t whole = cuda::copied_voxels;
  cuda::copied_voxels = 64;
  for (const std::size_t raters : {4, 9}) {
    const CaseSample parts(7, 43, raters, raters == 9, Scores::uniform, 12, {.offset = 1});
    compare(parts.view(), 20, "parts");
  }
  cuda::copied_voxels = whole;
  // Reversed and broadcast arrays.
  CaseSample sample(6, 100, 2, false, Scores::background, 9);
  CaseView view = sample.view();
  view.score.data = sample.at(0, 5, 99);
  view.score.strides = {-view.score.strides[0], -view.score.strides[1]};
  view.raters[0].strides = {0, 1};
  compare(view, 20, "a reversed score and a broadcast mask");
}

// Looked up, the cells of the scores on both sides of where each begins, for every number of bins.
void cells_that_are_looked_up() {
  for (int bins = 1; bins <= UniformBins::most; bins += bins < 120 ? 1 : 7)
    for (const Element element : {Element::float32, Element::float16, Element::bfloat16}) {
      const EvaluationCells<float> cells(bins, element);
      std::vector<float> first;
      for (const auto& cell : cells.decode())
        if (first.empty() || first.back() != cell.first) first.push_back(cell.first);
      const cuda::Buckets buckets = cuda::cell_buckets(bins);
      const auto nodes = cuda::cell_nodes(first, buckets);
      for (std::size_t i = 0; i < first.size(); ++i) {
        const auto found = [&](float p) { return cuda::looked_up_cell(nodes.data(), buckets, p); };
        const std::string what = std::to_string(first[i]) + " of " + std::to_string(bins) + " bins";
        check(found(first[i]) == i, "a cell does not begin at " + what);
        check(i == 0 || found(std::nextafter(first[i], 0.0f)) == i - 1,
              "a cell ends before " + what);
      }
    }
}

// Values on the edges of bins, thresholds and roundings, one to the next and one in between.
void ties() {
  emulate("shared=100000");
  std::vector<double> values{0.0};
  for (const float edge : UniformBins(20).edges())
    for (const float value : {std::nextafter(edge, 0.0f), edge, std::nextafter(edge, 1.0f)})
      values.push_back(static_cast<double>(value));
  for (const double edge : dice_threshold_values())
    for (const double value : {std::nextafter(edge, 0.0), edge, std::nextafter(edge, 1.0)})
      values.push_back(value);
  for (const int exponent : {-149, -126, -50, -48, -47, -46, -25, -24, -23, -11, -8})
    for (const double p : {std::exp2(exponent), 1 - std::exp2(exponent), 1.5 * std::exp2(exponent)})
      values.push_back(p);
  for (const Element element :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    CaseSample sample(1, static_cast<std::int64_t>(values.size()) * 8, 2, false, Scores::few, 3,
                      {.score = element});
    for (std::size_t i = 0; i < values.size() * 8; ++i) {
      // Each value four times in a row, then all of them in turn.
      const std::size_t which = i < values.size() * 4 ? i / 4 : i % values.size();
      std::byte* const to = sample.at(0, 0, static_cast<std::int64_t>(i));
      store_score(element, values[which], to);
      if (which == 0) to[size_of(element) - 1] = std::byte{0x80};  // -0
    }
    compare(sample.view(), 20, "ties");
  }
}

// Sums that carry out of 32 bits, in registers of one thread and in counters; several launches.
void large_sums() {
  emulate("shared=100000,multiprocessors=1,threads=32");
  for (const double score : {0.4999999, 0.9999999}) {
    CaseSample sample(1, 200000, 3, false, Scores::equal, 3);
    for (std::size_t k = 1; k <= 3; ++k) std::memset(sample.at(k, 0, 0), 1, 100000);
    for (std::int64_t i = 0; i < 200000; ++i) {
      // Long runs at first, then two cells in turn.
      const float p = static_cast<float>(i < 100000 || i % 2 == 0 ? score : 1 - score);
      std::memcpy(sample.at(0, 0, i), &p, sizeof p);
    }
    compare(sample.view(), 20, "large sums");
    if (thinned > 1) break;
  }
}

void marked_extents() {
  emulate("shared=100000");
  for (const int marked : {0, 1, 3}) {
    CaseSample sample(40, 60, 2, false, Scores::uniform, 4);
    for (std::size_t k = 1; k <= 2; ++k)
      for (std::int64_t row = 0; row < 40; ++row) std::memset(sample.at(k, row, 0), 0, 60);
    if (marked > 0) *sample.at(1, 17, 31) = std::byte{1};
    if (marked > 1) *sample.at(2, 3, 40) = *sample.at(2, 39, 2) = std::byte{1};
    compare(sample.view(), 20, std::to_string(marked) + " marked voxels");
    // Another memory order of the score, by which ranks are counted.
    CaseView view = sample.view();
    view.score.shape = view.raters[0].shape = view.raters[1].shape = {60, 40};
    view.score.strides = {4, 240};
    for (ArrayView& rater : view.raters) rater.strides = {1, 60};
    compare(view, 20, std::to_string(marked) + " marked voxels, transposed");
    // Three axes that are walked as one, and as three.
    for (const std::int64_t gap : {0, 60}) {
      CaseView deep = sample.view();
      for (ArrayView* array : {&deep.score, &deep.raters[0], &deep.raters[1]}) {
        const std::int64_t size = array == &deep.score ? 4 : 1;
        array->shape = {3, 5, 60};
        array->strides = {(5 * 60 + gap) * size, 60 * size, size};
      }
      compare(deep, 20, "three axes");
    }
  }
}

void bad_input_is_named_as_on_the_cpu() {
  emulate("shared=32768");
  for (const std::size_t raters : {3, 16}) {
    CaseSample sample(9, 333, raters, true, Scores::uniform, 6);
    const std::size_t region = raters + 1;
    std::memset(sample.at(region, 0, 0), 1, 9 * 333);
    const auto same_message = [&](const std::string& begin) {
      const std::string expected =
          message_of([&] { twintrack::CaseTally(raters, 20).update(sample.view(), nullptr, 1); });
      const std::string found =
          message_of([&] { cuda::case_sums(sample.view(), 20, nullptr, 0, stream); });
      check(expected.find(begin) == 0, "the CPU says: " + expected);
      check(found == expected, "the device says: " + found + ", the CPU: " + expected);
    };
    // Four in one vector, seen by the first group of raters alone.
    for (std::int64_t i = 0; i < 8; ++i) *sample.at(1, 5, 3 + i) = std::byte{2};
    same_message("raters[0][5, 3] is 2");
    *sample.at(raters, 4, 7) = std::byte{255};
    same_message("raters[" + std::to_string(raters - 1) + "][4, 7] is 255");
    const float nan = std::nanf("");
    std::memcpy(sample.at(0, 4, 6), &nan, 4);
    same_message("score[4, 6] is nan");
    *sample.at(region, 4, 6) = std::byte{0};
    same_message("raters[" + std::to_string(raters - 1) + "][4, 7] is 255");
  }
  const CaseSample sample(2, 5, 2, true, Scores::uniform, 1);
  Ranges marked;
  for (const int bins : {0, 1001})
    check(message_of([&] {
            cuda::case_sums(sample.view(), bins, nullptr, 0, stream);
          }).find("bins is " + std::to_string(bins)) == 0,
          "a wrong number of bins is not reported");
  check(message_of([&] {
          cuda::case_sums(sample.view(), 20, &marked, 0, stream);
        }).find("the marked extent") == 0,
        "a marked extent of a case with a region is not refused");
}

void devices_and_memory() {
  emulate("devices=2,memory=100000");
  const CaseSample sample(1, 500, 2, false, Scores::uniform, 1);
  cuda::case_sums(sample.view(), 20, nullptr, 1, stream);
  check(emulation::last_launch().device == 1, "the kernel ran on another device");
  check(emulation::last_launch().stream == stream, "the kernel ran on another stream");
  int current = -1;
  cudaGetDevice(&current);
  check(current == 0, "the current device was changed");
  check(emulation::live_allocations() == 0, "device memory was not given back");
  emulate("memory=3000");
  check(message_of([&] {
          cuda::case_sums(sample.view(), 20, nullptr, 0, stream);
        }).find("CUDA device 0 has no ") == 0,
        "too little memory is not reported");
  check(emulation::live_allocations() == 0, "device memory was not given back after a failure");
}

}  // namespace

int main() {
  return tests::run([] {
    every_kind_of_score();
    every_number_of_raters_and_bins();
    every_size_and_lie();
    cells_that_are_looked_up();
    ties();
    large_sums();
    marked_extents();
    bad_input_is_named_as_on_the_cpu();
    devices_and_memory();
  });
}
