// The kernels of ScoreTally give the sums of the CPU, bit for bit.
#include <cstdint>
#include <string>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/arrays/packed_case.hpp"
#include "cuda/calibration/score_tally.hpp"
#include "cuda_runtime.h"
#include "emulated_device.hpp"
#include "twintrack/calibration/score_tally.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

std::vector<std::uint64_t> on_cpu(const CaseView& view) {
  twintrack::ScoreTally tally(view.raters.size());
  tally.update(view, 1);
  return tally.sums().dense();
}

std::vector<std::uint64_t> on_device(const CaseView& view, int device = 0) {
  cuda::ScoreTally tally(view.raters.size(), device, stream);
  tally.update(view, stream);
  return tally.take(stream);
}

void compare(const CaseView& view, const std::string& what) {
  check(on_device(view) == on_cpu(view), "a tally on the device differs: " + what);
}

void every_kind_of_score() {
  // Shared memory for no page of counters, for a few, and for more.
  const char* const devices[] = {"shared=4000", "shared=16384", "shared=65536,threads=128"};
  unsigned seed = 0;
  for (const Scores kind : all_scores) {
    for (const Element element :
         {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
      if (++seed % thinned != 0) continue;
      const char* const device = devices[seed % 3];
      emulate(device);
      const CaseSample sample(7, 421, 5, seed % 2 == 0, kind, seed, {.score = element});
      compare(sample.view(), std::string(device) + ", scores " +
                                 std::to_string(static_cast<int>(kind)) + ", element " +
                                 std::to_string(static_cast<int>(element)));
    }
  }
}

void every_number_of_raters() {
  emulate("shared=32768");
  for (const std::size_t raters : {10, 1, 3, 4, 5, 6, 9, 19}) {
    if (raters != 10 && thinned > 1) continue;
    const CaseSample floats(3, 501, raters, false, Scores::few, 3);
    compare(floats.view(), std::to_string(raters) + " raters");
    const CaseSample doubles(3, 501, raters, true, Scores::peppered, 4,
                             {.score = Element::float64});
    compare(doubles.view(), std::to_string(raters) + " raters, float64");
  }
}

void every_size() {
  emulate("shared=32768");
  for (const std::int64_t voxels : {1, 3, 4, 5, 255, 256, 257, 769}) {
    if (voxels % 2 == 0 && thinned > 1) continue;
    const CaseSample sample(1, voxels, 2, voxels % 2 == 0, Scores::uniform, 5);
    compare(sample.view(), std::to_string(voxels) + " voxels");
  }
  const CaseSample empty(0, 3, 2, true, Scores::uniform, 5);
  compare(empty.view(), "no voxels");
}

void every_lie() {
  emulate("shared=32768");
  unsigned seed = 0;
  const Element labels[] = {Element::boolean,  Element::int8,    Element::int16,
                            Element::uint16,   Element::int32,   Element::uint32,
                            Element::int64,    Element::uint64,  Element::float16,
                            Element::bfloat16, Element::float32, Element::float64};
  for (const Element label : labels) {
    if (++seed % thinned != 0) continue;
    const CaseSample sample(5, 77, 3, true, Scores::peppered, seed, {.label = label});
    compare(sample.view(), "labels " + std::to_string(static_cast<int>(label)));
  }
  for (const Element score :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    for (const Lie lie :
         {Lie{score, Element::uint8, 1, 1, false}, Lie{score, Element::uint8, 3, 1, false},
          Lie{score, Element::uint8, 0, 3, false}, Lie{score, Element::int32, 1, 2, true},
          Lie{score, Element::uint8, 0, 1, true}}) {
      if (++seed % thinned != 0) continue;
      const CaseSample sample(13, 51, 6, seed % 2 == 0, Scores::uniform, seed, lie);
      compare(sample.view(), "lie with offset " + std::to_string(lie.offset) + ", spread " +
                                 std::to_string(lie.spread));
    }
  }
  // Reversed and broadcast arrays.
  CaseSample sample(6, 100, 2, false, Scores::uniform, 9);
  CaseView view = sample.view();
  view.score.data = sample.at(0, 5, 99);
  view.score.strides = {-view.score.strides[0], -view.score.strides[1]};
  view.raters[0].strides = {0, 1};
  compare(view, "a reversed score and a broadcast mask");
}

// A counter's fields overflow hundreds of times, in every block and from every lane.
void counters_that_overflow() {
  emulate("shared=16384,multiprocessors=2");
  for (const Element element : {Element::float32, Element::float64}) {
    std::vector<std::byte> memory;
    constexpr std::int64_t voxels = thinned > 1 ? 12000 : 60000;
    CaseSample sample(1, voxels, 5, false, Scores::uniform, 3, {.score = element});
    const auto size = static_cast<std::int64_t>(size_of(element));
    // Two cells in turn, so that nothing is added up before it is added; large residuals.
    for (std::int64_t i = 0; i < voxels; ++i)
      store_score(element, i % 2 == 0 ? 0.3001234 : 0.9999877, sample.at(0, 0, i));
    check(size > 0, "");
    compare(sample.view(), "two cells in turn");
  }
}

// So many voxels that dozens of pages are worth holding.
void many_resident_pages() {
  emulate("shared=160000,multiprocessors=2");
  const CaseSample sample(1, thinned > 1 ? 12000 : 60000, 3, false, Scores::uniform, 3);
  compare(sample.view(), "many resident pages");
}

void tallies_add_up() {
  emulate("shared=32768");
  const CaseSample first(4, 301, 3, false, Scores::uniform, 1);
  const CaseSample second(2, 200, 3, true, Scores::background, 2);
  twintrack::ScoreTally expected(3);
  expected.update(first.view(), 1);
  expected.update(second.view(), 1);
  cuda::ScoreTally tally(3, 1, stream);
  tally.update(first.view(), stream);
  tally.update(second.view(), stream);
  check(tally.take(stream) == expected.sums().dense(), "two cases do not add up");
  check(tally.take(stream) == std::vector<std::uint64_t>(expected.sums().dense().size()),
        "a tally that was taken is not empty");
}

void invalid_voxels_are_named_and_change_nothing() {
  emulate("shared=32768");
  const double bad_scores[] = {1.5, -0.25, std::nan(""), INFINITY, -INFINITY, 1e300};
  unsigned turn = 0;
  for (const double bad : bad_scores) {
    if (turn > 0 && thinned > 1) break;
    const Element element = turn % 2 == 0 ? Element::float32 : Element::float64;
    const Lie lie{.score = element, .spread = turn++ % 3 == 0 ? 2 : 1};
    CaseSample sample(9, 333, 11, true, Scores::uniform, 6, lie);
    const std::vector<std::uint64_t> before = on_cpu(sample.view());
    cuda::ScoreTally tally(11, 0, stream);
    tally.update(sample.view(), stream);
    *sample.at(12, 4, 5) = std::byte{0};  // outside the region: not looked at
    *sample.at(12, 4, 6) = *sample.at(12, 4, 7) = *sample.at(12, 7, 7) = std::byte{7};
    store_score(element, bad, sample.at(0, 4, 5));
    store_score(element, 0.5, sample.at(0, 4, 6));
    *sample.at(11, 4, 6) = std::byte{9};  // of the second group of raters
    store_score(element, bad, sample.at(0, 4, 7));
    *sample.at(1, 7, 7) = std::byte{2};
    for (const char* named : {"raters[10][4, 6] is 9", "score[4, 7] is ", "raters[0][7, 7] is 2"}) {
      const std::string expected =
          message_of([&] { twintrack::ScoreTally(11).update(sample.view(), 1); });
      check(expected.find(named) == 0, "the CPU says: " + expected);
      const std::string found = message_of([&] { tally.update(sample.view(), stream); });
      check(found == expected, "the device says: " + found + ", the CPU: " + expected);
      // On to the next one.
      *sample.at(12, 4, named[0] == 's' ? 7 : 6) = std::byte{0};
    }
    check(tally.take(stream) == before, "a refused case has changed the tally");
  }
  // -0 is 0.
  CaseSample zero(1, 9, 1, false, Scores::uniform, 6);
  const float minus_zero = -0.0f;
  std::memcpy(zero.at(0, 0, 4), &minus_zero, 4);
  compare(zero.view(), "-0");
}

void devices_and_memory() {
  emulate("devices=2,memory=40000000");
  const CaseSample sample(1, 500, 2, false, Scores::uniform, 1);
  check(on_device(sample.view(), 1) == on_cpu(sample.view()), "the second device differs");
  check(emulation::last_launch().device == 1, "the kernel ran on another device");
  check(emulation::last_launch().stream == stream, "the kernel ran on another stream");
  int current = -1;
  cudaGetDevice(&current);
  check(current == 0, "the current device was changed");
  check(emulation::live_allocations() == 0, "device memory was not given back");

  emulate("devices=5,pools=0");
  check(on_device(sample.view(), 4) == on_cpu(sample.view()), "without a memory pool it differs");
  check(emulation::live_allocations() == 0, "memory of no pool was not given back");

  emulate("memory=2000000");
  bool refused = false;
  try {
    on_device(sample.view());
  } catch (const std::bad_alloc& error) {
    refused = std::string(error.what()) == "CUDA device 0 has no 5787792 bytes of memory left";
  }
  check(refused, "too little memory is not reported with the size asked for");
  check(emulation::live_allocations() == 0, "device memory was not given back after a failure");
  refused = false;
  try {
    on_device(sample.view(), 7);
  } catch (const cuda::CudaError& error) {
    refused = std::string(error.what()).find("cudaErrorInvalidDevice") != std::string::npos;
  }
  check(refused, "a device that does not exist is not reported by CUDA's name");
}

// Ranks above 2^31 and 2^32 are copied from where they are, by arrays whose strides keep them
// small.
void large_ranks() {
  emulate("threads=32");
  const std::int64_t rows = (std::int64_t{1} << 32) + 5;
  const std::vector<float> score{0.25f, 0.5f, 0.75f};
  const std::vector<std::int16_t> label{0, 1, 7};
  CaseView view;
  view.score = {
      reinterpret_cast<const std::byte*>(score.data()), Element::float32, {rows, 3}, {0, 4}};
  view.raters = {
      {reinterpret_cast<const std::byte*>(label.data()), Element::int16, {rows, 3}, {0, 2}}};
  const Walk walk = case_walk(view);
  check(walk.count() == 3 * rows, "the walk lost voxels");
  const cuda::DeviceCase from = cuda::device_case(view, walk, 0, 1);
  for (const std::int64_t first :
       {std::int64_t{0}, (std::int64_t{1} << 31) - 4, (std::int64_t{1} << 32) * 3, 3 * rows - 9}) {
    std::vector<float> scores(9);
    std::vector<std::uint8_t> labels(12);
    cuda::pack_scores(from.score, from, first, 9, reinterpret_cast<std::byte*>(scores.data()),
                      stream);
    cuda::pack_labels(from.rater[0], from, first, 9, reinterpret_cast<std::byte*>(labels.data()),
                      stream);
    for (std::size_t i = 0; i < 9; ++i) {
      // The innermost axis of the walk is that of the smallest stride.
      const Shape index = walk.index_of(first + static_cast<std::int64_t>(i));
      const auto column = static_cast<std::size_t>(index[1]);
      check(scores[i] == score[column], "a score of a large rank is wrong");
      check(labels[i] == (column == 2 ? 2 : column), "a label of a large rank is wrong");
    }
  }
}

// Arrays that are copied part by part, beside such as are read where they are.
void parts() {
  const std::int64_t whole = cuda::copied_voxels;
  cuda::copied_voxels = 64;
  emulate("shared=32768");
  for (const std::size_t raters : {3, 11}) {
    CaseSample sample(7, 43, raters, true, Scores::uniform, 3);
    const CaseSample other(7, 43, raters, true, Scores::uniform, 3, {.offset = 1});
    CaseView view = sample.view();
    view.raters[1] = other.view().raters[1];
    compare(view, "one mask that is not aligned, in parts");
    compare(other.view(), "arrays that are not aligned, in parts");
    *sample.at(raters, 5, 11) = std::byte{3};
    *sample.at(1 + raters, 5, 11) = std::byte{1};
    view.raters.back() = sample.view().raters.back();
    const std::string found = message_of([&] { on_device(view); });
    check(found.find("raters[" + std::to_string(raters - 1) + "][5, 11] is 3") == 0,
          "the device says: " + found);
  }
  cuda::copied_voxels = whole;
}

void streams_that_are_captured_are_refused() {
  const CaseSample sample(1, 500, 2, false, Scores::uniform, 1);
  emulate("");
  cuda::ScoreTally tally(2, 0, stream);
  tally.update(sample.view(), stream);
  emulate("capturing=" + std::to_string(0x1234));
  const auto refused = [](const std::string& message) {
    return message.find("the CUDA stream is being captured into a graph") == 0;
  };
  check(refused(message_of([&] { tally.update(sample.view(), stream); })), "an update is captured");
  check(refused(message_of([&] { tally.take(stream); })), "fetching sums is captured");
  check(refused(message_of([&] { on_device(sample.view()); })), "a new tally is captured");
  check(refused(message_of([&] { tally.take(cudaStreamLegacy); })), "the default stream is taken");
  check(refused(message_of([&] { cuda::wait_for(cudaStreamPerThread, stream); })),
        "a stream waits for one that is captured");
  const auto sums = tally.take(cudaStreamPerThread);
  check(sums == on_cpu(sample.view()), "what was refused has changed the tally");
}

}  // namespace

int main() {
  return tests::run([] {
    every_kind_of_score();
    every_number_of_raters();
    every_size();
    every_lie();
    counters_that_overflow();
    many_resident_pages();
    tallies_add_up();
    invalid_voxels_are_named_and_change_nothing();
    devices_and_memory();
    large_ranks();
    parts();
    streams_that_are_captured_are_refused();
  });
}
