// Kernels on arrays of more than 2^32 voxels: every index is right where 32 bits do not hold it.
//
// Of a grid that covers such arrays the emulation executes the first block and the last few, and of
// the arrays, zeros that the operating system has promised, only the pages exist that these blocks
// touch. The results are those of the CPU for the voxels of these blocks alone.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/calibration/calibration_map.hpp"
#include "cuda/calibration/score_tally.hpp"
#include "cuda/ensemble/fused_export.hpp"
#include "cuda/metrics/case_tally.hpp"
#include "cuda_runtime.h"
#include "emulated_device.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/fused_export.hpp"
#include "twintrack/metrics/case_tally.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

using Ranks = std::vector<std::int64_t>;

constexpr std::int64_t threads = 64;     // of a block
constexpr std::int64_t last_blocks = 3;  // that are executed

/// An array on the device, of a shape and with gaps of `spread` - 1 elements, and a small one in
/// host memory with the elements that are looked at.
class LargeArray {
 public:
  LargeArray(Element element, const Shape& shape, std::int64_t spread) {
    const auto size = static_cast<std::int64_t>(size_of(element));
    view_.element = element;
    view_.shape = shape;
    view_.strides.resize(shape.size());
    std::int64_t stride = size * spread;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      view_.strides[axis] = stride;
      stride *= shape[axis];
      if (spread > 1) stride += size;  // so that no two axes are one
    }
    bytes_ = static_cast<std::size_t>(stride);
    void* const memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED, "no address space for " + std::to_string(bytes_) + " bytes");
    data_ = static_cast<std::byte*>(memory);
    view_.data = data_;
  }
  ~LargeArray() { munmap(data_, bytes_); }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;

  const ArrayView& view() const { return view_; }

  std::byte* at(std::int64_t rank) const {
    std::byte* p = data_;
    for (std::size_t axis = view_.shape.size(); axis-- > 0; rank /= view_.shape[axis])
      p += rank % view_.shape[axis] * view_.strides[axis];
    return p;
  }

  /// Stores value(i) for the i-th rank, and returns the same values one after the other.
  template <class Value>
  std::vector<std::byte> fill(const Ranks& ranks, const Value& value) {
    std::vector<std::byte> small(ranks.size() * size_of(view_.element));
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      std::byte* const to = small.data() + i * size_of(view_.element);
      if (view_.element == Element::uint8)
        *to = std::byte(value(i) > 0.5 ? 1 : 0);
      else
        store_score(view_.element, value(i), to);
      std::memcpy(at(ranks[i]), to, size_of(view_.element));
    }
    return small;
  }

  std::vector<std::byte> gather(const Ranks& ranks) const {
    const std::size_t size = size_of(view_.element);
    std::vector<std::byte> small(ranks.size() * size);
    for (std::size_t i = 0; i < ranks.size(); ++i)
      std::memcpy(small.data() + i * size, at(ranks[i]), size);
    return small;
  }

 private:
  ArrayView view_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

ArrayView small_view(const std::vector<std::byte>& memory, Element element) {
  const auto size = static_cast<std::int64_t>(size_of(element));
  return {memory.data(), element, {static_cast<std::int64_t>(memory.size()) / size}, {size}};
}

const Shape line{(std::int64_t{1} << 32) + 4001};
const Shape volume{5, 1 << 15, (1 << 15) + 3};

/// Makes a device whose grid for work on `voxels`, `per_block` of them for a block in one round, is
/// executed in part, and returns the ranks that are.
Ranks execute_ends(std::int64_t voxels, std::int64_t per_block, const std::string& more = "") {
  const std::int64_t blocks = (voxels + per_block - 1) / per_block;
  const std::int64_t skip = blocks - last_blocks;
  emulate("threads=64,multiprocessors=" + std::to_string(blocks) + ",skip=" + std::to_string(skip) +
          more);
  Ranks ranks;
  for (std::int64_t rank = 0; rank < per_block; ++rank) ranks.push_back(rank);
  for (std::int64_t rank = skip * per_block; rank < voxels; ++rank) ranks.push_back(rank);
  check(ranks.back() >> 32 != 0, "the last voxel is not beyond 2^32");
  return ranks;
}

/// Scores and two raters on a large case, and the same voxels as a small one.
struct LargeCase {
  LargeCase(Element element, const Shape& shape, std::int64_t spread, const Ranks& ranks)
      : score(element, shape, spread),
        raters{{Element::uint8, shape, spread}, {Element::uint8, shape, spread}} {
    const std::vector<double> scores = make_scores(Scores::peppered, ranks.size(), 5);
    small_score = score.fill(ranks, [&](std::size_t i) { return scores[i]; });
    std::mt19937 random(7);
    for (std::size_t k = 0; k < 2; ++k)
      small_raters[k] =
          raters[k].fill(ranks, [&](std::size_t) { return random() % 3 == 0 ? 1.0 : 0.0; });
    view = {score.view(), {raters[0].view(), raters[1].view()}};
    small = {
        small_view(small_score, element),
        {small_view(small_raters[0], Element::uint8), small_view(small_raters[1], Element::uint8)}};
  }
  LargeArray score;
  LargeArray raters[2];
  std::vector<std::byte> small_score;
  std::vector<std::byte> small_raters[2];
  CaseView view;
  CaseView small;
};

void maps(Element element, const Shape& shape, std::int64_t spread) {
  const std::int64_t width = 16 / static_cast<std::int64_t>(size_of(element));
  const Ranks ranks = execute_ends(element_count(shape), threads * (spread == 1 ? 4 * width : 1));
  LargeCase sample(element, shape, spread, ranks);
  LargeArray out(element, shape, spread);
  const std::vector<double> x{0.0, 0.1, 0.5, 1.0};
  const std::vector<double> y{0.0, 0.3, 0.4, 0.9};
  cuda::CalibrationMap map(x, y);
  map.apply(sample.score.view(), WritableArrayView{out.view()}, 0, stream);
  std::vector<std::byte> expected(sample.small_score.size());
  twintrack::CalibrationMap(x, y).apply(sample.small.score,
                                        WritableArrayView{small_view(expected, element)}, 1);
  check(out.gather(ranks) == expected, "mapped scores beyond 2^32 differ");
  // A fault there is found, and named.
  const std::int64_t wrong = ranks.back() - 1;
  store_score(element, 1.5, sample.score.at(wrong));
  std::string message;
  try {
    map.apply(sample.score.view(), WritableArrayView{out.view()}, 0, stream);
  } catch (const InputError& invalid) {
    message = invalid.what();
  }
  check(message.find(std::to_string(wrong % shape.back()) + "] is 1.5") != std::string::npos,
        "the fault is not found beyond 2^32: " + message);
}

void score_tallies(Element element, const Shape& shape) {
  // No page of counters is resident.
  const Ranks ranks = execute_ends(element_count(shape), 4 * threads, ",shared=3800");
  const LargeCase sample(element, shape, 1, ranks);
  const Walk walk = case_walk(sample.view);
  twintrack::ScoreTally expected(2);
  expected.update(sample.small, 1);
  cuda::DeviceMemory<std::uint64_t> sums(grid::cells * expected.columns(), stream);
  sums.clear(stream);
  cuda::FaultReport faults(stream);
  cuda::DeviceMemory<std::uint32_t> touched(cuda::case_pages(), stream);
  touched.clear(stream);
  cuda::count_group(cuda::device_case(sample.view, walk, 0, 2), 0, 2, {sums.data(), touched.data()},
                    nullptr, faults.first_fault(), stream);
  faults.require_none(sample.view, walk, stream, "counting");
  std::vector<std::uint64_t> found(sums.data(), sums.data() + sums.size());
  for (std::size_t cell = 0; cell < grid::cells; ++cell)
    twintrack::detail::derive_single_votes(found.data() + cell * expected.columns(), 2);
  check(found == expected.sums().dense(), "a tally of voxels beyond 2^32 differs");
}

void case_tallies(Element element, const Shape& shape) {
  const Ranks ranks = execute_ends(element_count(shape), 4 * threads);
  const LargeCase sample(element, shape, 1, ranks);
  twintrack::CaseTally expected(2, 20);
  expected.update(sample.small, nullptr, 1);
  std::vector<MarkedExtent::Range> marked;
  const CaseSums found = cuda::case_sums(sample.view, 20, &marked, 0, stream);
  check(found.values() == expected.sums().values(), "a case's sums beyond 2^32 differ");
  check(marked.size() == shape.size() && marked[0].first == 0 &&
            marked[0].last > shape[0] - threads * 4 * last_blocks && marked[0].last <= shape[0],
        "the marked extent beyond 2^32 is wrong");
}

// The kernels of the export go round with at most 2^20 blocks.
constexpr std::int64_t most_blocks = std::int64_t{1} << 20;

/// As above; `tiles` of work are dealt with by turns, and `visit(tile)` is called for each that is
/// executed.
template <class Visit>
void execute_some_tiles(std::int64_t tiles, const Visit& visit) {
  const std::int64_t skip = most_blocks - last_blocks;
  emulate("threads=64,skip=" + std::to_string(skip));
  for (std::int64_t round = 0; round < tiles; round += most_blocks) {
    visit(round);
    for (std::int64_t tile = round + skip; tile < std::min(tiles, round + most_blocks); ++tile)
      visit(tile);
  }
}

struct LargeEnsemble {
  LargeEnsemble(const Shape& shape, std::int64_t spread, const Ranks& ranks)
      : member(Element::float16, with_channels(shape), spread) {
    Ranks both = ranks;
    for (const std::int64_t rank : ranks) both.push_back(rank + element_count(shape));
    std::mt19937 random(3);
    std::uniform_real_distribution<double> unit(0, 1);
    small = member.fill(both, [&](std::size_t) { return unit(random); });
    small_member = small_view(small, Element::float16);
    const auto n = static_cast<std::int64_t>(ranks.size());
    small_member.shape = {2, n};
    small_member.strides = {2 * n, 2};
  }
  static Shape with_channels(Shape shape) {
    shape.insert(shape.begin(), 2);
    return shape;
  }
  LargeArray member;
  std::vector<std::byte> small;
  ArrayView small_member;
};

std::vector<std::byte> merged_on_cpu(const LargeEnsemble& sample, std::size_t voxels) {
  std::vector<std::byte> expected(4 * voxels);
  twintrack::ensemble_score({sample.small_member}, {{1}}, nullptr,
                            WritableArrayView{small_view(expected, Element::float32)}, 1);
  return expected;
}

void ensembles(const Shape& shape, std::int64_t spread) {
  const std::int64_t per_block = threads * (spread == 1 ? 4 : 1);
  const std::int64_t voxels = element_count(shape);
  Ranks ranks;
  execute_some_tiles(voxels / per_block, [&](std::int64_t tile) {
    for (std::int64_t i = 0; i < per_block; ++i) ranks.push_back(tile * per_block + i);
  });
  check(ranks.back() >> 32 != 0, "the last voxel is not beyond 2^32");
  const LargeEnsemble sample(shape, spread, ranks);
  LargeArray out(Element::float32, shape, spread);
  cuda::ensemble_score({sample.member.view()}, {{1}}, nullptr, WritableArrayView{out.view()}, 0,
                       stream);
  check(out.gather(ranks) == merged_on_cpu(sample, ranks.size()),
        "merged scores beyond 2^32 differ");
}

void exports(const Shape& shape, std::int64_t spread) {
  constexpr std::int64_t depth = 16;
  const std::int64_t columns = shape[1] * shape[2];
  const std::int64_t across = (columns + threads - 1) / threads;
  Ranks ranks;
  execute_some_tiles(across * ((shape[0] + depth - 1) / depth), [&](std::int64_t tile) {
    const std::int64_t first = tile / across * depth;
    for (std::int64_t z = first; z < std::min(first + depth, shape[0]); ++z)
      for (std::int64_t i = tile % across * threads;
           i < std::min(tile % across * threads + threads, columns); ++i)
        ranks.push_back(z * columns + i);
  });
  check(*std::max_element(ranks.begin(), ranks.end()) >> 32 != 0, "no voxel is beyond 2^32");
  const LargeEnsemble sample(shape, spread, ranks);
  LargeArray out(Element::float32, shape, spread);
  cuda::export_score({sample.member.view()}, {ExportGrid{}}, {{1}}, nullptr,
                     WritableArrayView{out.view()}, 0, stream);
  check(out.gather(ranks) == merged_on_cpu(sample, ranks.size()),
        "exported scores beyond 2^32 differ");
}

}  // namespace

int main() {
  return run([] {
    for (const Element element : {Element::float32, Element::float16}) {
      maps(element, line, 1);
      maps(element, volume, 2);
      // Of strided arrays they read copies: cuda_score_tally_test.cpp.
      score_tallies(element, line);
      case_tallies(element, line);
    }
    ensembles({line[0] - 1}, 1);  // so that the second channel is aligned, too
    ensembles(volume, 2);
    exports({17, 1 << 14, (1 << 14) + 3}, 1);
    exports({17, 1 << 14, (1 << 14) + 3}, 2);
  });
}
