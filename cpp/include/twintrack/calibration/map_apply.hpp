// Maps an array of scores, of any strides, on threads.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/map_table16.hpp"

namespace twintrack::detail {

// How a thread maps the blocks of an array of T: by nodes, or by table for 16 bits.
template <class T>
class BlockMapper {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);

 public:
  using Map = MapView<T>;

  BlockMapper(const Map& map, const VoxelBlocks<T>& blocks, const Walk&)
      : map_(map), blocks_(blocks), buffers_(blocks) {}

  /// The mapped values of ranks [rank, rank + n), until the next call; null if a score is invalid.
  TWINTRACK_INLINE const T* map(std::int64_t rank, int n) {
    VoxelBlock<T> block;
    if (!blocks_.load(rank, n, buffers_, block)) return nullptr;
    map_block(map_, block.score, n, block.score + n, room_);
    return room_.value.data();
  }

  /// The same, written to `out` past the cache (streaming.hpp). False, and nothing written, if a
  /// score is invalid.
  TWINTRACK_INLINE bool stream(std::int64_t rank, int n, T* out) {
    const T* value = map(rank, n);
    if (value != nullptr) stream_copy(value, sizeof(T) * static_cast<std::size_t>(n), out);
    return value != nullptr;
  }

 private:
  const Map map_;
  const VoxelBlocks<T>& blocks_;
  typename VoxelBlocks<T>::Buffers buffers_;
  MapRoom<T> room_;
};

template <class T>
  requires(sizeof(T) == 2)
class BlockMapper<T> {
 public:
  using Map = MapTable16<T>;

  BlockMapper(const Map& table, const VoxelBlocks<float>&, const Walk& walk)
      : table_(table),
        walk_(walk),
        ready_(walk.contiguous(0, sizeof(T)) &&
               reinterpret_cast<std::uintptr_t>(walk.start(0)) % alignof(T) == 0) {}

  TWINTRACK_INLINE const T* map(std::int64_t rank, int n) {
    const T* score = load(rank, n);
    if (!Map::valid(score, n)) return nullptr;
    table_.map(score, n, value_.data());
    return value_.data();
  }

  TWINTRACK_INLINE bool stream(std::int64_t rank, int n, T* out) {
    const T* score = load(rank, n);
    if (!Map::valid(score, n)) return false;
    if (reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
      table_.stream(score, n, block_voxels, out);
    } else {
      table_.map(score, n, value_.data());
      stream_copy(value_.data(), sizeof(T) * static_cast<std::size_t>(n), out);
    }
    return true;
  }

 private:
  TWINTRACK_INLINE const T* load(std::int64_t rank, int n) {
    if (ready_) return reinterpret_cast<const T*>(walk_.start(0)) + rank;
    gather(rank, n);
    return score_.data();
  }

  TWINTRACK_NOINLINE void gather(std::int64_t rank, int n) {
    walk_.for_each_run(
        0, rank, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          for (std::int64_t i = 0; i < length; ++i)
            score_[static_cast<std::size_t>(done + i)] = detail::load<T>(p + i * stride);
        });
  }

  const Map& table_;
  const Walk& walk_;
  const bool ready_;
  alignas(64) std::array<T, block_voxels> score_;
  alignas(64) std::array<T, block_voxels> value_;
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
  using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;
  CaseView view;
  view.score = score;
  const VoxelBlocks<Real> blocks(view);
  // The same first array as in `blocks`, so the same order of voxels.
  const Walk walk(score.shape, {&score, &out});
  const bool direct =
      walk.contiguous(1, sizeof(T)) && reinterpret_cast<std::uintptr_t>(out.data) % alignof(T) == 0;
  const bool in_place = out.data == score.data;
  const bool stream = direct && !in_place &&
                      sizeof(T) * static_cast<std::size_t>(blocks.voxels()) >= streaming_bytes;

  threads = static_cast<int>(std::clamp<std::int64_t>(blocks.tasks(), 1, std::max(threads, 1)));
  std::vector<std::unique_ptr<BlockMapper<T>>> mappers;
  for (int thread = 0; thread < threads; ++thread)
    mappers.push_back(std::make_unique<BlockMapper<T>>(map, blocks, walk));

  std::atomic<bool> valid{true};
  const auto pass = [&](bool write) {
    parallel_tasks(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      if (!valid.load(std::memory_order_relaxed)) return;
      BlockMapper<T>& mapper = *mappers[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
        for (std::int64_t rank = task * task_voxels; rank < last; rank += block_voxels) {
          const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
          T* to = reinterpret_cast<T*>(const_cast<std::byte*>(walk.start(1))) + rank;  // if direct
          bool mapped;
          if (stream) {
            mapped = mapper.stream(rank, n, to);
          } else {
            const T* value = mapper.map(rank, n);
            mapped = value != nullptr;
            if (mapped && write) {
              if (direct)
                std::memcpy(to, value, sizeof(T) * static_cast<std::size_t>(n));
              else
                store(walk, 1, rank, n, value);
            }
          }
          if (!mapped) {
            valid.store(false, std::memory_order_relaxed);
            return;
          }
        }
        if (stream) end_streaming();
      });
    });
    if (!valid) blocks.explain();
  };
  // Scores that are to be overwritten are all checked before the first one is.
  if (in_place) pass(false);
  pass(true);
}

}  // namespace twintrack::detail
