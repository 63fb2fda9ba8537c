#include "cuda/metrics/case_tally.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "twintrack/arrays/array_view.hpp"

namespace twintrack::cuda {

namespace {

/// Adds `value` × 2^shift units.
void add_units(fixed::Sum& sum, std::uint64_t value, int shift) {
  constexpr int bits = fixed::fraction_bits;
  if (shift >= bits)
    sum.add(value << (shift - bits), 0);
  else
    sum.add(value >> (bits - shift), (value & ((std::uint64_t{1} << (bits - shift)) - 1)) << shift);
}

fixed::Sum sum_of_parts(const std::uint64_t* part) {
  fixed::Sum sum;
  for (int i = 0; i < parts; ++i) add_units(sum, part[i], i * part_bits);
  return sum;
}

/// `count` confidences of 1 less `doubt` units of 2^-24.
fixed::Sum confidence_sum(std::uint64_t count, std::uint64_t doubt) {
  const std::uint64_t missing = (0 - doubt) & (confidence_one - 1);
  fixed::Sum sum;
  sum.add(count - (doubt + missing) / confidence_one, 0);
  add_units(sum, missing, fixed::fraction_bits - confidence_bits);
  return sum;
}

/// A pass and its totals on the host, in one piece of memory.
struct Totals {
  Totals(const CaseLayout& layout_, std::size_t first_rater_, std::size_t raters_)
      : layout(layout_), first_rater(first_rater_), raters(raters_) {}

  std::size_t background() const { return layout.words(); }
  std::size_t squares() const { return background() + 1; }
  std::size_t rater_scores() const { return squares() + parts; }
  std::size_t size() const { return rater_scores() + parts * raters; }

  CaseLayout layout;
  std::size_t first_rater;
  std::size_t raters;
  std::vector<std::uint64_t> value;
};

/// Sums of a case that the last group's totals hold for all groups.
void give_scores(const Totals& totals, const std::vector<ScoreParts>& cells, bool grouped,
                 CaseSums& sums) {
  const CaseLayout& layout = totals.layout;
  const auto sum_of = [&](int which, std::uint32_t cell) {
    const std::uint32_t at = layout.sum(which, cell);
    return totals.value[at] + (totals.value[at + layout.cells] << 32);
  };
  for (std::uint32_t cell = 0; cell < layout.cells; ++cell) {
    const ScoreParts& of_cell = cells[cell];
    const std::size_t exceeded =
        sums.votes() + static_cast<std::size_t>(of_cell.exceeded) * (sums.raters() + 1);
    std::uint64_t count = 0;
    const std::uint32_t keys = 1u << (grouped ? layout.vote_bits : layout.pattern_bits);
    for (std::uint32_t key = 0; key < keys; ++key) {
      std::uint64_t voxels =
          totals.value[grouped ? layout.votes(cell, key) : layout.pattern(cell, key)];
      // Score 0 is in the first cell, with confidence 1.
      if (cell == 0 && key == 0) voxels += totals.value[totals.background()];
      if (voxels == 0) continue;
      const auto votes =
          static_cast<std::size_t>(grouped ? key : static_cast<std::uint32_t>(std::popcount(key)));
      sums.at(exceeded + votes) += voxels;
      count += voxels;
    }
    if (count == 0) continue;
    fixed::Sum scores;
    add_units(scores, sum_of(CaseLayout::low, cell), 0);
    add_units(scores, sum_of(CaseLayout::high, cell), CaseLayout::low_bits);
    sums.at(sums.score_row(of_cell)) += count;
    sums.add(sums.score_row(of_cell) + 1, scores);
    sums.at(sums.confidence_row(of_cell)) += count;
    sums.add(sums.confidence_row(of_cell) + 1,
             confidence_sum(count, sum_of(CaseLayout::doubt, cell)));
  }
  sums.add(sums.squares(), sum_of_parts(totals.value.data() + totals.squares()));
}

void give_raters(const Totals& totals, const std::vector<ScoreParts>& cells, CaseSums& sums) {
  const CaseLayout& layout = totals.layout;
  for (std::size_t k = 0; k < totals.raters; ++k) {
    const std::size_t rater = totals.first_rater + k;
    const std::uint32_t bit = 1u << k;
    for (std::uint32_t cell = 0; cell < layout.cells; ++cell)
      for (std::uint32_t key = bit; key < 1u << layout.pattern_bits; key = (key + 1) | bit) {
        const std::uint64_t voxels = totals.value[layout.pattern(cell, key)];
        const std::size_t column = CaseSums::first_vote_column + rater;
        sums.at(sums.score_row(cells[cell]) + column) += voxels;
        sums.at(sums.confidence_row(cells[cell]) + column) += voxels;
      }
    sums.add(sums.rater_scores() + 2 * rater,
             sum_of_parts(totals.value.data() + totals.rater_scores() + parts * k));
  }
}

std::vector<ScoreParts> parts_of_cells(int bins, Element score) {
  std::vector<ScoreParts> all;
  visit_real(score, [&](auto real) {
    for (const auto& cell : EvaluationCells<decltype(real)>(bins, score).decode())
      all.push_back(cell.parts);
  });
  return all;
}

}  // namespace

CaseSums case_sums(const CaseView& view, int bins, std::vector<MarkedExtent::Range>* marked,
                   int device, cudaStream_t stream) {
  const std::size_t raters = view.raters.size();
  CaseSums sums = twintrack::CaseTally(raters, bins).sums();  // zeros, and checks both numbers
  if (marked != nullptr && view.region != nullptr)
    throw std::invalid_argument("the marked extent of a case with a region is not defined");
  const Walk walk = case_walk(view);
  if (marked != nullptr) marked->clear();
  if (walk.count() == 0) return sums;

  const DeviceGuard guard(device);
  const std::vector<ScoreParts> cells = parts_of_cells(bins, view.score.element);
  const bool grouped = raters > votes_per_group;
  MarkedExtent extent(Walk(view.score.shape, {&view.score}), view.score.shape);
  const std::vector<std::int64_t> lengths = extent.lengths();
  // One voxel has no axes; an axis of that one length says whether it is marked.
  const std::size_t axes = std::max<std::size_t>(lengths.size(), 1);

  FaultReport faults(stream);
  DeviceMemory<std::uint8_t> votes(grouped ? static_cast<std::size_t>(walk.count() + 3) : 0,
                                   stream);
  DeviceMemory<std::uint64_t> marks(2 * axes, stream);
  check(cudaMemsetAsync(marks.data(), 0xff, marks.bytes(), stream), "cudaMemsetAsync");
  std::vector<Totals> groups;
  std::vector<DeviceMemory<std::uint64_t>> on_device;
  for (std::size_t first = 0; first < raters; first += votes_per_group) {
    const std::size_t count = std::min(votes_per_group, raters - first);
    CasePass pass{};
    pass.first = first == 0;
    pass.last = first + count == raters;
    pass.layout = {static_cast<std::uint32_t>(cells.size()), static_cast<int>(count),
                   grouped && pass.last ? static_cast<int>(std::bit_width(raters)) : 0};
    pass.votes = votes.data();
    if (marked != nullptr) {
      pass.marked_axes = static_cast<int>(axes);
      pass.marked_length[0] = 1;
      std::copy(lengths.begin(), lengths.end(), pass.marked_length);
    }
    Totals& totals = groups.emplace_back(pass.layout, first, count);
    std::uint64_t* const memory = on_device.emplace_back(totals.size(), stream).data();
    on_device.back().clear(stream);
    pass.totals = {memory,
                   memory + totals.background(),
                   memory + totals.squares(),
                   memory + totals.rater_scores(),
                   marks.data(),
                   faults.first_fault()};
    count_case(device_case(view, walk, first, count), bins, view.score.element, pass, stream);
  }
  const auto fetch = [&](std::vector<std::uint64_t>& to, const DeviceMemory<std::uint64_t>& from) {
    to.resize(from.size());
    copy(to.data(), static_cast<const std::uint64_t*>(from.data()), from.size(),
         cudaMemcpyDeviceToHost, stream);
  };
  for (std::size_t group = 0; group < groups.size(); ++group)
    fetch(groups[group].value, on_device[group]);
  std::vector<std::uint64_t> found;
  fetch(found, marks);
  faults.require_none(view, walk, stream, "evaluating a case");  // waits

  for (const Totals& totals : groups) give_raters(totals, cells, sums);
  give_scores(groups.back(), cells, grouped, sums);
  if (marked != nullptr && found[0] != no_voxel) {
    std::vector<MarkedExtent::Range> ranges;
    for (std::size_t axis = 0; axis < axes; ++axis)
      ranges.push_back({static_cast<std::int64_t>(found[2 * axis]),
                        static_cast<std::int64_t>(~found[2 * axis + 1]) + 1});
    extent.add_ranges(ranges);
    *marked = extent.ranges();
  }
  return sums;
}

}  // namespace twintrack::cuda
