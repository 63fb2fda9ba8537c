// The loops of calibration_map.hpp: maps an array of scores, of any strides, on threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/map_table16.hpp"

namespace twintrack {

namespace detail {

// How a thread maps the blocks of an array: by nodes, or by table for 16 bits.
template <class T>
class BlockMapper {
 public:
  using Map = MapView<T>;
  using Real = T;

  BlockMapper(const Map& map, const VoxelBlocks<T>& blocks, const Walk&)
      : map_(map), blocks_(blocks), buffers_(blocks) {}

  /// Maps ranks [rank, rank + n) to `out`. False, and nothing written, if a score is invalid.
  TWINTRACK_INLINE bool map(std::int64_t rank, int n, T* out) {
    return map_to<MapStore::cached>(rank, n, out);
  }
  /// The same past the cache (streaming.hpp).
  TWINTRACK_INLINE bool stream(std::int64_t rank, int n, T* out) {
    if (reinterpret_cast<std::uintptr_t>(out) % 16 == 0)
      return map_to<MapStore::streamed>(rank, n, out);
    if (!map(rank, n, room())) return false;
    stream_copy(room(), sizeof *out * static_cast<std::size_t>(n), out);
    return true;
  }
  /// Room for the results of a block.
  T* room() { return out_.data(); }

 private:
  template <MapStore store>
  TWINTRACK_INLINE bool map_to(std::int64_t rank, int n, T* out) {
    VoxelBlock<T> block;
    if (!blocks_.load(rank, n, buffers_, block)) return false;
    map_block<store>(map_, block.score, n, block.score + n, room_, out);
    return true;
  }

  const Map map_;
  const VoxelBlocks<T>& blocks_;
  typename VoxelBlocks<T>::Buffers buffers_;
  MapRoom<T> room_;
  alignas(64) std::array<T, block_voxels> out_;
};

template <>
class BlockMapper<std::uint16_t> {
 public:
  using Map = MapTable16;
  using Real = float;

  BlockMapper(const Map& table, const VoxelBlocks<float>&, const Walk& walk)
      : table_(table),
        walk_(walk),
        ready_(walk.contiguous(0, sizeof(std::uint16_t)) &&
               reinterpret_cast<std::uintptr_t>(walk.start(0)) % alignof(std::uint16_t) == 0) {}

  TWINTRACK_INLINE bool map(std::int64_t rank, int n, std::uint16_t* out) {
    const std::uint16_t* score = load(rank, n);
    if (!table_.valid(score, n)) return false;
    table_.map(score, n, out);
    return true;
  }
  TWINTRACK_INLINE bool stream(std::int64_t rank, int n, std::uint16_t* out) {
    const std::uint16_t* score = load(rank, n);
    if (!table_.valid(score, n)) return false;
    if (reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
      table_.stream(score, n, block_voxels, out);
    } else {
      table_.map(score, n, value_.data());
      stream_copy(value_.data(), sizeof *out * static_cast<std::size_t>(n), out);
    }
    return true;
  }
  std::uint16_t* room() { return value_.data(); }

 private:
  TWINTRACK_INLINE const std::uint16_t* load(std::int64_t rank, int n) {
    if (ready_) return reinterpret_cast<const std::uint16_t*>(walk_.start(0)) + rank;
    walk_.for_each_run(
        0, rank, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          pack_run(sizeof(std::uint16_t), p, stride, length,
                   reinterpret_cast<std::byte*>(score_.data() + done));
        });
    return score_.data();
  }

  const Map& table_;
  const Walk& walk_;
  const bool ready_;
  alignas(64) std::array<std::uint16_t, block_voxels> score_;
  alignas(64) std::array<std::uint16_t, block_voxels> value_;
};

// Stores `n` mapped values at ranks [first, first + n) of array `k`.
template <class T>
TWINTRACK_NOINLINE void store(const Walk& walk, std::size_t k, std::int64_t first, int n,
                              const T* value) {
  walk.for_each_run(
      k, first, n,
      [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
        std::byte* to = const_cast<std::byte*>(p);  // a WritableArrayView's
        for (std::int64_t i = 0; i < length; ++i)
          std::memcpy(to + i * stride, value + done + i, sizeof(T));
      });
}

// Maps an array of T; CalibrationMap::apply says what for.
template <class T>
void apply_map(const typename BlockMapper<T>::Map& map, const ArrayView& score,
               const WritableArrayView& out, int threads) {
  CaseView view;
  view.score = score;
  const VoxelBlocks<typename BlockMapper<T>::Real> blocks(view);
  // The same first array as in `blocks`, so the same order of voxels.
  const Walk walk(score.shape, {&score, &out});
  const bool direct =
      walk.contiguous(1, sizeof(T)) && reinterpret_cast<std::uintptr_t>(out.data) % alignof(T) == 0;
  const bool in_place = out.data == score.data;
  const bool stream = direct && !in_place &&
                      sizeof(T) * static_cast<std::size_t>(blocks.voxels()) >= streaming_bytes;

  std::vector<std::unique_ptr<BlockMapper<T>>> mappers;
  for (int thread = 0; thread < team_size(threads, blocks.tasks()); ++thread)
    mappers.push_back(std::make_unique<BlockMapper<T>>(map, blocks, walk));

  const auto pass = [&](bool write) {
    const bool valid = parallel_valid(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      BlockMapper<T>& mapper = *mappers[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      bool mapped = true;
      with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
        for (std::int64_t rank = task * task_voxels; rank < last && mapped; rank += block_voxels) {
          const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
          T* to = reinterpret_cast<T*>(const_cast<std::byte*>(walk.start(1))) + rank;  // if direct
          if (write && stream) {
            mapped = mapper.stream(rank, n, to);
          } else if (write && direct) {
            mapped = mapper.map(rank, n, to);
          } else {
            mapped = mapper.map(rank, n, mapper.room());
            if (mapped && write) store(walk, 1, rank, n, mapper.room());
          }
        }
        if (stream) end_streaming();
      });
      return mapped;
    });
    if (!valid) blocks.explain();
  };
  // Scores that are to be overwritten are all checked before the first one is.
  if (in_place) pass(false);
  pass(true);
}

}  // namespace detail

TWINTRACK_ENTRY void CalibrationMap::apply(const ArrayView& score, const WritableArrayView& out,
                                           int threads) const {
  detail::check_mapped(score, out);
  switch (score.element) {
    case Element::float16:
    case Element::bfloat16:
      return detail::apply_map<std::uint16_t>(table(score.element), score, out, threads);
    case Element::float32:
      return detail::apply_map<float>(view<float>(), score, out, threads);
    case Element::float64:
      return detail::apply_map<double>(view<double>(), score, out, threads);
    default:
      throw InputError("score", "must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace twintrack
