// The loops of fused_export.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/ensemble/export_grid.hpp"
#include "twintrack/ensemble/fused_export.hpp"
#include "twintrack/ensemble/member_rows.hpp"
#include "twintrack/ensemble/members.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/merged_scores.hpp"
#include "twintrack/ensemble/resample.hpp"
#include "twintrack/ensemble/round_to_half.hpp"

namespace twintrack {

namespace detail {

class FusedExport {
 public:
  FusedExport(const std::vector<ArrayView>& members, const std::vector<ExportGrid>& grids,
              const MergeRule& rule, const CalibrationMap* map, const WritableArrayView& out)
      : members_(members),
        merge_(export_merge(members, grids, rule, out)),
        map_(map_view(map)),
        out_(out),
        sources_(export_sources(members, grids, rule, out)) {
    const std::int64_t columns = out.shape[2];
    const std::int64_t across = std::max<std::int64_t>(1, ceil_divide(columns, most_columns));
    width_ = std::max<std::int64_t>(1, ceil_divide(columns, across));
    height_ =
        std::clamp<std::int64_t>(block_voxels / width_, 1, std::max<std::int64_t>(1, out.shape[1]));
    tiles_ = {ceil_divide(out.shape[0], depth), ceil_divide(out.shape[1], height_),
              ceil_divide(columns, width_)};
  }

  void run(int threads) const {
    const std::int64_t tasks = tiles_[0] * tiles_[1] * tiles_[2];
    std::vector<std::unique_ptr<Room>> rooms;
    for (int thread = 0; thread < team_size(threads, tasks); ++thread)
      rooms.push_back(std::make_unique<Room>(*this));
    const bool valid = parallel_valid(threads, tasks, [&](int thread, std::int64_t task) {
      Room& room = *rooms[static_cast<std::size_t>(thread)];
      bool good = true;
      with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA { good = run_tile(tile(task), room); });
      return good;
    });
    if (!valid) explain_members(members_, merge_);
  }

 private:
  /// Output slices of a task: so many that the two planes made at its start hardly count.
  static constexpr std::int64_t depth = 32;
  /// Columns of a tile at most.
  static constexpr std::int64_t most_columns = 256;
  static_assert(most_columns <= merge_voxels);

  struct Tile {
    std::array<std::int64_t, 3> first;
    std::array<std::int64_t, 3> last;
  };

  /// Two things remembered by the parity of their index along an axis, so that the two neighbours
  /// that an output voxel needs are always both there.
  struct Remembered {
    std::array<std::int64_t, 2> index{-1, -1};
    bool has(std::int64_t i) const { return index[static_cast<std::size_t>(i & 1)] == i; }
    void put(std::int64_t i) { index[static_cast<std::size_t>(i & 1)] = i; }
  };

  /// Input at the tile's resolution, in axis 2 (rows) or axes 1 and 2 (planes), by parity.
  template <class Real>
  struct Planes {
    Planes() = default;
    Planes(std::size_t channel_count, std::size_t voxel_count, std::size_t columns)
        : channels(channel_count),
          voxels(voxel_count),
          width(columns),
          plane(2 * channels * voxels),
          row(2 * width) {}
    Real* plane_of(std::int64_t slice, std::size_t channel) {
      return plane.data() + (static_cast<std::size_t>(slice & 1) * channels + channel) * voxels;
    }
    Real* row_of(std::int64_t input_row) {
      return row.data() + static_cast<std::size_t>(input_row & 1) * width;
    }
    std::size_t channels = 0;
    std::size_t voxels = 0;
    std::size_t width = 0;
    std::vector<Real> plane;
    std::vector<Real> row;
  };

  struct Room {
    explicit Room(const FusedExport& work)
        : voxels(static_cast<std::size_t>(work.width_ * work.height_)),
          width(static_cast<std::size_t>(work.width_)),
          channels(work.merge_.channels().size()),
          score(voxels * static_cast<std::size_t>(depth)),
          row(channels * width),
          rows(channels) {
      std::int64_t longest = 0;
      for (const ExportSource& source : work.sources_)
        longest = std::max(longest, source.extent[2]);
      input.resize(static_cast<std::size_t>(longest));
      if (!work.merge_.rule().mean_of_logits) return;
      member_input.resize(work.sources_.size() * input.size());
      member_rows.resize(work.sources_.size());
    }
    template <class Real>
    Planes<Real>& planes() {
      Planes<Real>& made = std::get<Planes<Real>>(interpolated);
      if (made.plane.empty()) made = Planes<Real>(channels, voxels, width);
      return made;
    }

    std::size_t voxels;
    std::size_t width;
    std::size_t channels;
    std::vector<float> score;                                // of the whole task
    std::tuple<Planes<float>, Planes<double>> interpolated;  // made when first needed
    std::vector<float> row;  // by channel: resampled, ready to be merged
    std::vector<const float*> rows;
    std::vector<float> input;         // an input row in float
    std::vector<float> member_input;  // the same by member, if they are averaged
    std::vector<const float*> member_rows;
    Merge::Room merge;
    MapRoom<float> map;
  };

  static std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

  Tile tile(std::int64_t task) const {
    const std::array<std::int64_t, 3> size{depth, height_, width_};
    Tile made{};
    for (std::size_t axis = 3; axis-- > 0;) {
      made.first[axis] = task % tiles_[axis] * size[axis];
      made.last[axis] = std::min(made.first[axis] + size[axis], out_.shape[axis]);
      task /= tiles_[axis];
    }
    return made;
  }

  // Columns [first, last) of an input row to `out`, which is indexed as the row is.
  TWINTRACK_INLINE bool read_row(const ExportSource& from, std::int64_t channel, std::int64_t slice,
                                 std::int64_t row, std::int64_t first, std::int64_t last,
                                 float* out) const {
    const std::byte* p = from.data + channel * from.channel_stride + slice * from.stride[0] +
                         row * from.stride[1] + first * from.stride[2];
    const Element element = members_[0].element;
    const bool logits = merge_.rule().logits;
    if (from.stride[2] != static_cast<std::int64_t>(size_of(element)))
      return read_values(element, logits, p, from.stride[2], last - first, out + first);
    // The row that is read next, where there is one.
    prefetch(p + from.stride[1], static_cast<std::size_t>((last - first) * from.stride[2]));
    return read_packed(element, logits, p, last - first, out + first);
  }

  // An input row, or the mean of all members' if it is logits that are averaged.
  TWINTRACK_INLINE bool read_input(const ExportSource& from, std::int64_t channel,
                                   std::int64_t slice, std::int64_t row, std::int64_t first,
                                   std::int64_t last, Room& room) const {
    if (!merge_.rule().mean_of_logits)
      return read_row(from, channel, slice, row, first, last, room.input.data());
    bool good = true;
    for (std::size_t k = 0; k < sources_.size(); ++k) {
      float* input = room.member_input.data() + k * room.input.size();
      good &= read_row(sources_[k], channel, slice, row, first, last, input);
      room.member_rows[k] = input + first;
    }
    average_logits(room.member_rows.data(), sources_.size(), last - first,
                   members_[0].element == Element::float16, room.input.data() + first);
    return good;
  }

  // An input row along axis 2 at the tile's columns.
  template <class Real>
  TWINTRACK_INLINE bool widen(const ExportSource& from, std::int64_t channel, std::int64_t slice,
                              std::int64_t row, const Tile& at, Room& room,
                              Real* __restrict out) const {
    const AxisTaps& taps = from.taps[2];
    const auto start = static_cast<std::size_t>(at.first[2]);
    const auto n = static_cast<int>(at.last[2] - at.first[2]);
    const std::int32_t* __restrict low = taps.low.data() + start;
    const std::int32_t* __restrict high = taps.high.data() + start;
    const double* __restrict weight = taps.weight.data() + start;
    if (!read_input(from, channel, slice, row, low[0], high[n - 1] + 1, room)) return false;
    const float* __restrict input = room.input.data();
    if (taps.identity) {
      std::copy_n(input + start, n, out);
      return true;
    }
    for (int x = 0; x < n; ++x)
      out[x] = lerp<Real>(input[low[x]], input[high[x]], static_cast<Real>(weight[x]));
    return true;
  }

  // One channel of an input slice at the tile's rows and columns.
  template <class Real>
  TWINTRACK_INLINE bool make_plane(const ExportSource& from, std::int64_t channel,
                                   std::int64_t slice, const Tile& at, Room& room,
                                   Planes<Real>& planes, Real* __restrict plane) const {
    const AxisTaps& taps = from.taps[1];
    const auto n = static_cast<int>(at.last[2] - at.first[2]);
    Remembered made;
    for (std::int64_t y = at.first[1]; y < at.last[1]; ++y, plane += n) {
      const auto i = static_cast<std::size_t>(y);
      for (const std::int64_t row : {taps.low[i], taps.high[i]}) {
        if (made.has(row)) continue;
        if (!widen(from, channel, slice, row, at, room, planes.row_of(row))) return false;
        made.put(row);
      }
      const Real* __restrict low = planes.row_of(taps.low[i]);
      const Real* __restrict high = planes.row_of(taps.high[i]);
      const Real weight = static_cast<Real>(taps.weight[i]);
      if (weight == 0)
        std::copy_n(low, n, plane);
      else
        for (int x = 0; x < n; ++x) plane[x] = lerp(low[x], high[x], weight);
    }
    return true;
  }

  /// A row of the output's tile, of one channel.
  struct Row {
    std::int64_t channel;
    std::int64_t z;
    std::int64_t y;
    std::int64_t x;  // its first column
    int n;
  };

  // A row between two planes.
  TWINTRACK_INLINE const float* between(const ExportSource& from, const Row& at,
                                        const float* __restrict low, const float* __restrict high,
                                        float* __restrict out) const {
    const auto weight = static_cast<float>(from.taps[0].weight[static_cast<std::size_t>(at.z)]);
    if (weight == 0) return low;
    for (int x = 0; x < at.n; ++x) out[x] = lerp(low[x], high[x], weight);
    return out;
  }

  // The same, rounded to float16.
  TWINTRACK_INLINE const float* between(const ExportSource& from, const Row& at,
                                        const double* __restrict low, const double* __restrict high,
                                        float* __restrict out) const {
    const double weight = from.taps[0].weight[static_cast<std::size_t>(at.z)];
    const double margin = from.tie_margin;
    const auto round = [&](int first, int last) TWINTRACK_INLINE_LAMBDA {
      std::uint64_t apart = 0;
      for (int x = first; x < last; ++x)
        out[x] = static_cast<float>(round_to_half(lerp(low[x], high[x], weight), margin, apart));
      return apart == 0;
    };
    if (round(0, at.n)) return out;
    // Few voxels of a row lie near ties: the others are not looked at one by one.
    constexpr int run = 32;
    for (int first = 0; first < at.n; first += run) {
      const int last = std::min(first + run, at.n);
      if (round(first, last)) continue;
      for (int x = first; x < last; ++x)
        if (!round(x, x + 1)) out[x] = static_cast<float>(round_to_half(scipy_value(from, at, x)));
    }
    return out;
  }

  // The value of a voxel that lies near a tie. Kept out of the loops, as it is rare.
  TWINTRACK_NOINLINE double scipy_value(const ExportSource& from, const Row& row, int x) const {
    const Tap<double> taps[3] = {from.taps[0][row.z], from.taps[1][row.y], from.taps[2][row.x + x]};
    return sum_of_corners(taps, from.order.data(), [&](const std::int32_t(&at)[3]) {
      const auto load = [&](const ExportSource& source) {
        const std::byte* p = source.data + row.channel * source.channel_stride +
                             at[0] * source.stride[0] + at[1] * source.stride[1] +
                             at[2] * source.stride[2];
        float16 half;  // the only type of member that is rounded
        std::memcpy(&half, p, sizeof half);
        return to_real(half);
      };
      float value = load(from);
      if (!merge_.rule().mean_of_logits) return value;
      for (std::size_t k = 1; k < sources_.size(); ++k)
        value = round_to_half(value + load(sources_[k]));
      return round_to_half(value / static_cast<float>(sources_.size()));
    });
  }

  // Adds a member's tumour probabilities to the task's scores.
  template <class Real>
  TWINTRACK_INLINE bool add_member(const ExportSource& from, const Tile& at, Room& room) const {
    const AxisTaps& taps = from.taps[0];
    const std::vector<std::int64_t>& channels = merge_.channels();
    const std::int64_t width = at.last[2] - at.first[2];
    const std::int64_t height = at.last[1] - at.first[1];
    Planes<Real>& planes = room.planes<Real>();
    float* score = room.score.data();
    Remembered made;
    for (std::int64_t z = at.first[0]; z < at.last[0]; ++z) {
      const auto i = static_cast<std::size_t>(z);
      for (const std::int64_t slice : {taps.low[i], taps.high[i]}) {
        if (made.has(slice)) continue;
        for (std::size_t c = 0; c < channels.size(); ++c)
          if (!make_plane(from, channels[c], slice, at, room, planes, planes.plane_of(slice, c)))
            return false;
        made.put(slice);
      }
      for (std::int64_t y = 0; y < height; ++y, score += width) {
        for (std::size_t c = 0; c < channels.size(); ++c)
          room.rows[c] = between(
              from, Row{channels[c], z, at.first[1] + y, at.first[2], static_cast<int>(width)},
              planes.plane_of(taps.low[i], c) + y * width,
              planes.plane_of(taps.high[i], c) + y * width, room.row.data() + c * room.width);
        if (!merge_.add(room.rows.data(), static_cast<int>(width), room.merge, score)) return false;
      }
    }
    return true;
  }

  TWINTRACK_INLINE bool run_tile(const Tile& at, Room& room) const {
    std::fill(room.score.begin(), room.score.end(), 0.0f);
    const std::size_t members = merge_.rule().mean_of_logits ? 1 : sources_.size();
    for (std::size_t k = 0; k < members; ++k)
      if (!(sources_[k].round ? add_member<double>(sources_[k], at, room)
                              : add_member<float>(sources_[k], at, room)))
        return false;
    const std::int64_t width = at.last[2] - at.first[2];
    const std::int64_t height = at.last[1] - at.first[1];
    float* score = room.score.data();
    for (std::int64_t z = at.first[0]; z < at.last[0]; ++z, score += height * width) {
      const float* finished = finish_scores(static_cast<float>(members), map_,
                                            static_cast<int>(height * width), room.map, score);
      for (std::int64_t y = 0; y < height; ++y) {
        // A WritableArrayView's.
        std::byte* to = const_cast<std::byte*>(out_.data) + z * out_.strides[0] +
                        (at.first[1] + y) * out_.strides[1] + at.first[2] * out_.strides[2];
        write_scores(out_.element, finished + y * width, out_.strides[2], width, to);
      }
    }
    return true;
  }

  const std::vector<ArrayView>& members_;
  Merge merge_;
  std::optional<MapView<float>> map_;
  WritableArrayView out_;
  std::vector<ExportSource> sources_;
  std::int64_t width_ = 0;   // of a tile, along axis 2; at most most_columns
  std::int64_t height_ = 0;  // along axis 1; width · height is at most block_voxels
  std::array<std::int64_t, 3> tiles_{};
};

}  // namespace detail

TWINTRACK_ENTRY void export_score(const std::vector<ArrayView>& members,
                                  const std::vector<ExportGrid>& grids, const MergeRule& rule,
                                  const CalibrationMap* map, const WritableArrayView& out,
                                  int threads) {
  detail::FusedExport(members, grids, rule, map, out).run(threads);
}

}  // namespace twintrack
