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

/// Subtracts `value` × 2^shift units, shift <= 46, which the sum has.
void take_units(fixed::Sum& sum, std::uint64_t value, int shift) {
  const int up = fixed::fraction_bits - shift;
  const std::uint64_t missing = (0 - value) & ((std::uint64_t{1} << up) - 1);
  // All of `whole` is modulo 2^64.
  sum.add(0 - ((value >> up) + (missing != 0 ? 1 : 0)), missing << shift);
}

/// The scores of `count` voxels by the sums of their terms.
fixed::Sum score_sum(std::uint64_t count, const fixed::Sum& whole, std::uint64_t rest) {
  fixed::Sum sum = whole;
  add_units(sum, rest, 0);
  take_units(sum, count, ScoreTerms::whole_shift - 1);  // rest_bias each
  return sum;
}

/// `count` ones less `value` × 2^-24.
fixed::Sum ones_less(std::uint64_t count, std::uint64_t value) {
  fixed::Sum sum;
  sum.add(count, 0);
  take_units(sum, value, ScoreTerms::whole_shift);
  return sum;
}

fixed::Sum wholes(std::uint64_t value) {
  fixed::Sum sum;
  add_units(sum, value, ScoreTerms::whole_shift);
  return sum;
}

/// A pass and its totals on the host, in one piece of memory.
struct Totals {
  Totals(const CaseLayout& layout_, std::size_t first_rater_, std::size_t raters_)
      : layout(layout_), first_rater(first_rater_), raters(raters_) {}

  std::size_t background() const { return layout.words(); }
  std::size_t squares() const { return background() + 1; }
  std::size_t size() const { return squares() + parts; }

  std::uint64_t cell_sum(std::uint32_t cell, int which) const {
    const std::size_t at = layout.cell_sum(cell, which);
    return value[at] + (value[at + layout.high_cells()] << 32);
  }
  std::uint64_t pattern_sum(std::uint32_t key, int which) const {
    const std::size_t at = layout.pattern_sum(key, which);
    return value[at] + (value[at + layout.high_patterns()] << 32);
  }

  CaseLayout layout;
  std::size_t first_rater;
  std::size_t raters;
  std::vector<std::uint64_t> value;
};

/// Sums of a case that the last group's totals hold for all groups.
void give_scores(const Totals& totals, const std::vector<ScoreParts>& cells, Element score,
                 bool grouped, CaseSums& sums) {
  const CaseLayout& layout = totals.layout;
  const bool own_confidence = ScoreTerms::own_confidence(score);
  for (std::uint32_t cell = 0; cell < layout.cells; ++cell) {
    const ScoreParts& of_cell = cells[cell];
    const std::size_t exceeded =
        sums.votes() + static_cast<std::size_t>(of_cell.exceeded) * (sums.raters() + 1);
    std::uint64_t summed = 0;  // voxels whose terms were
    std::uint64_t count = 0;
    const std::uint32_t keys = 1u << (grouped ? layout.vote_bits : layout.pattern_bits);
    for (std::uint32_t key = 0; key < keys; ++key) {
      std::uint64_t voxels =
          totals.value[grouped ? layout.votes(cell, key) : layout.pattern(cell, key)];
      summed += voxels;
      // Score 0 is in the first cell, with confidence 1.
      if (cell == 0 && key == 0) voxels += totals.value[totals.background()];
      if (voxels == 0) continue;
      const auto votes =
          static_cast<std::size_t>(grouped ? key : static_cast<std::uint32_t>(std::popcount(key)));
      sums.at(exceeded + votes) += voxels;
      count += voxels;
    }
    if (count == 0) continue;
    const std::uint64_t doubt = totals.cell_sum(cell, 0);
    fixed::Sum scores = own_confidence        ? wholes(totals.cell_sum(cell, 1))
                        : of_cell.tumour != 0 ? ones_less(summed, doubt)
                                              : wholes(doubt);
    if (ScoreTerms::has_rest(score))
      scores = score_sum(summed, scores, totals.cell_sum(cell, layout.cell_sums - 1));
    sums.at(sums.score_row(of_cell)) += count;
    sums.add(sums.score_row(of_cell) + 1, scores);
    sums.at(sums.confidence_row(of_cell)) += count;
    sums.add(sums.confidence_row(of_cell) + 1, ones_less(count, doubt));
  }
  sums.add(sums.squares(), sum_of_parts(totals.value.data() + totals.squares()));
}

void give_raters(const Totals& totals, const std::vector<ScoreParts>& cells, Element score,
                 CaseSums& sums) {
  const CaseLayout& layout = totals.layout;
  for (std::uint32_t key = 1; key < layout.patterns(); ++key) {
    std::uint64_t count = 0;
    for (std::uint32_t cell = 0; cell < layout.cells; ++cell)
      count += totals.value[layout.pattern(cell, key)];
    if (count == 0) continue;
    fixed::Sum scores = wholes(totals.pattern_sum(key, 0));
    if (ScoreTerms::has_rest(score)) scores = score_sum(count, scores, totals.pattern_sum(key, 1));
    for (std::size_t k = 0; k < totals.raters; ++k) {
      if ((key >> k & 1u) == 0) continue;
      const std::size_t rater = totals.first_rater + k;
      sums.add(sums.rater_scores() + 2 * rater, scores);
      const std::size_t column = CaseSums::first_vote_column + rater;
      for (std::uint32_t cell = 0; cell < layout.cells; ++cell) {
        const std::uint64_t voxels = totals.value[layout.pattern(cell, key)];
        sums.at(sums.score_row(cells[cell]) + column) += voxels;
        sums.at(sums.confidence_row(cells[cell]) + column) += voxels;
      }
    }
  }
}

/// What the cells that a kernel tells apart are, and the least score of each.
///
/// Scores of at most 32 bits are looked up, so they are in the cells that have any; of float64 ones
/// the number is calculated, so there are empty ones between.
struct Cells {
  std::vector<ScoreParts> parts;
  std::vector<float> first;
};

Cells decoded(int bins, Element score) {
  Cells all;
  visit_real(score, [&](auto real) {
    for (const auto& cell : EvaluationCells<decltype(real)>(bins, score).decode()) {
      if constexpr (sizeof(real) == 4) {
        // An empty cell repeats the one after it, or the last.
        if (!all.first.empty() && all.first.back() == cell.first) continue;
        all.first.push_back(cell.first);
      }
      all.parts.push_back(cell.parts);
    }
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
  const Element score = view.score.element;
  const Cells cells = decoded(bins, score);
  const Buckets buckets = cell_buckets(bins);
  const std::vector<CellNode> nodes =
      cells.first.empty() ? std::vector<CellNode>{} : cell_nodes(cells.first, buckets);
  const bool grouped = raters > votes_per_group;
  MarkedExtent extent(Walk(view.score.shape, {&view.score}), view.score.shape);
  const std::vector<std::int64_t> lengths = extent.lengths();
  // One voxel has no axes; an axis of that one length says whether it is marked.
  const std::size_t axes = std::max<std::size_t>(lengths.size(), 1);

  FaultReport faults(stream);
  DeviceMemory<CellNode> nodes_there(nodes.size(), stream);
  copy(nodes_there.data(), nodes.data(), nodes.size(), cudaMemcpyHostToDevice, stream);
  DeviceMemory<std::uint8_t> votes(grouped ? static_cast<std::size_t>(walk.count() + 3) : 0,
                                   stream);
  DeviceMemory<std::uint64_t> marks(2 * axes, stream);
  check(cudaMemsetAsync(marks.data(), 0xff, marks.bytes(), stream), "cudaMemsetAsync");
  std::vector<Totals> groups;
  std::vector<DeviceMemory<std::uint64_t>> on_device;
  for (std::size_t first = 0; first < raters; first += votes_per_group) {
    const std::size_t count = std::min(votes_per_group, raters - first);
    CasePass pass{.buckets = buckets};
    pass.nodes = nodes_there.data();
    pass.first = first == 0;
    pass.last = first + count == raters;
    const int rest = ScoreTerms::has_rest(score) ? 1 : 0;
    pass.layout = {static_cast<std::uint32_t>(cells.parts.size()), static_cast<int>(count),
                   grouped && pass.last ? static_cast<int>(std::bit_width(raters)) : 0,
                   (ScoreTerms::own_confidence(score) ? 2 : 1) + rest, 1 + rest};
    pass.votes = votes.data();
    if (marked != nullptr) {
      pass.marked_axes = static_cast<int>(axes);
      pass.marked_length[0] = 1;
      std::copy(lengths.begin(), lengths.end(), pass.marked_length);
    }
    Totals& totals = groups.emplace_back(pass.layout, first, count);
    std::uint64_t* const memory = on_device.emplace_back(totals.size(), stream).data();
    on_device.back().clear(stream);
    pass.totals = {memory, memory + totals.background(), memory + totals.squares(), marks.data(),
                   faults.first_fault()};
    count_case(device_case(view, walk, first, count), bins, score, pass, stream);
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

  for (const Totals& totals : groups) give_raters(totals, cells.parts, score, sums);
  give_scores(groups.back(), cells.parts, score, grouped, sums);
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
