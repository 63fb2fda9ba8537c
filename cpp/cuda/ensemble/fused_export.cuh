// The fused export on the device: resample, softmax, mean over members, map and paste, the same
// bits as fused_export.hpp and ensemble.hpp, without any array of channels at the output's
// resolution.
//
// Export. A thread follows one column of the output along axis 0, 16 voxels deep. For each channel
// it keeps the two input slices around it, brought to the column's place in axes 2 and 1, and makes
// a new one when the column passes a slice of the input: 4 loads, through the first-level cache,
// that neighbours share. What is left per voxel and logit is one interpolation and one exponential.
// Slices, logits and scores of a thread are in shared memory, in a place of its own: no thread
// waits for another, neighbours use neighbouring banks, and any number of channels fits. Threads of
// a warp are neighbours along axis 2, so that stores are whole lines.
//
// Ensemble (members on the output's grid). A thread merges four voxels, loaded as one vector of up
// to 16 bytes.
//
// Bytes: the members once (neighbouring columns and slices find theirs in the caches) and the
// output once; the ensemble kernel reads K C logits and writes a score a voxel. Arithmetic bounds
// both, 25 to 35 instructions a logit: 132 multiprocessors at 1.7 GHz do about 10^12 logits of a
// second, which as float16 on one grid are 2 TB/s; upsampled, a logit of the output costs that time
// but hardly any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/ensemble/fused_export.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/ensemble/exponential.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/resample.hpp"
#include "twintrack/ensemble/round_to_half.hpp"

namespace twintrack::cuda {

inline constexpr int export_threads = 128;
/// Blocks that a multiprocessor holds, by their registers: enough threads to hide what they wait
/// for.
inline constexpr int export_blocks = 5;
/// Voxels of a column that a thread does at a time: so many that the two slices made at its start
/// hardly count.
inline constexpr int export_depth = 16;

/// A thread's own values in shared memory, by index; `T` takes up `sizeof(T)` bytes times the
/// threads of the block for each.
template <class T>
class OwnValues {
 public:
  __device__ explicit OwnValues(std::byte* start)
      : value_(reinterpret_cast<T*>(start) + threadIdx.x) {}
  __device__ T& operator[](int i) const { return value_[static_cast<unsigned>(i) * blockDim.x]; }

 private:
  T* value_;
};

/// Notes a value that is neither a logit nor a probability.
__device__ inline float checked(const MergeTask& merge, float value, unsigned& bad) {
  const bool good =
      merge.logits ? twintrack::detail::magnitude_bits(value) < twintrack::detail::logit_limit_bits
                   : score_fault(value) == 0;
  bad |= good ? 0u : 1u;
  return value;
}

template <class T>
__device__ inline float to_float(T value) {
  return static_cast<float>(to_real(value));
}

/// The mean of logits, in the precision of members of type T: one more, and at the end the
/// division.
template <class T>
__device__ inline float add_logit(float sum, float logit) {
  if constexpr (std::is_same_v<T, float16>) return round_to_half(sum + logit);
  return sum + logit;
}
template <class T>
__device__ inline float divide_logit(float sum, int members) {
  if constexpr (std::is_same_v<T, float16>) return round_to_half(sum / static_cast<float>(members));
  return sum / static_cast<float>(members);
}

/// A member's probability of tumour; `value(c)` is channel c of those that are read.
template <class Value>
__device__ inline float merged(const MergeTask& merge, const Value& value, unsigned& bad) {
  float p = value(0);
  if (merge.kind == MergeTask::classes) {
    for (int c = 1; c < merge.channels; ++c) p += value(c);
    const float magnitude = twintrack::detail::bits_as<float>(twintrack::detail::magnitude_bits(p));
    bad |= magnitude <= twintrack::detail::probability_limit ? 0u : 1u;
    return twintrack::detail::at_most_one(p);
  }
  for (int c = 1; c < merge.channels; ++c) p = twintrack::detail::higher(value(c), p);
  if (merge.kind == MergeTask::regions) return p;
  if (merge.kind == MergeTask::region_logits) return logistic(p);
  float total = 0;
  float tumour = 0;
  for (int c = 0; c < merge.channels; ++c) {
    const float e = exp_nonpositive(value(c) - p);
    total += e;
    tumour += merge.tumour[c] != 0 ? e : 0.0f;
  }
  return tumour / total;
}

/// The score of a sum over members. What is not in [0, 1] comes of input that is reported.
__device__ inline float finished(const MergeTask& merge, float sum) {
  const float score = sum / merge.divisor;
  return merge.mapped && score_fault(score) == 0 ? map_score(merge.map, score) : score;
}

__device__ inline void store_score(Element element, float score, std::byte* to) {
  if (element == Element::float32)
    store_once(reinterpret_cast<float*>(to), score);
  else if (element == Element::float16)
    store_once(reinterpret_cast<unsigned short*>(to), from_unit<float16>(score).bits);
  else
    store_once(reinterpret_cast<unsigned short*>(to), from_unit<bfloat16>(score).bits);
}

// --- export --------------------------------------------------------------------------------------

/// Bytes that a thread needs in shared memory.
inline std::size_t export_bytes(int channels, bool rounds) {
  const std::size_t slices = 2 * (rounds ? sizeof(double) : sizeof(float));
  return static_cast<std::size_t>(channels) * (slices + sizeof(float)) +
         export_depth * sizeof(float);
}

/// One column of the output: voxels (z, y, x) with z in [first, last).
template <class T>
class ExportColumn {
 public:
  __device__ ExportColumn(const ExportTask& task, std::int64_t y, std::int64_t x,
                          std::int64_t first, std::int64_t last)
      : task_(task),
        y_(y),
        x_(x),
        first_(first),
        last_(last),
        slices_(shared_memory()),
        row_(slices_ + 2 * static_cast<unsigned>(task.merge.channels) * blockDim.x *
                           (task.rounds ? sizeof(double) : sizeof(float))),
        score_(row_ + static_cast<unsigned>(task.merge.channels) * blockDim.x * sizeof(float)) {}

  /// False if a value was not valid.
  __device__ bool run() {
    const MergeTask& merge = task_.merge;
    const OwnValues<float> score(score_);
    const auto depth = static_cast<int>(last_ - first_);
    for (int i = 0; i < depth; ++i) score[i] = 0;
    const int members = merge.mean_of_logits ? 1 : merge.members;
    for (int k = 0; k < members; ++k) {
      if constexpr (std::is_same_v<T, float16>) {
        if (task_.sources[k].round) {
          add_member<double>(task_.sources[k]);
          continue;
        }
      }
      add_member<float>(task_.sources[k]);
    }
    std::byte* out = task_.out + first_ * task_.out_stride[0] + y_ * task_.out_stride[1] +
                     x_ * task_.out_stride[2];
    for (int i = 0; i < depth; ++i, out += task_.out_stride[0])
      store_score(merge.out, finished(merge, score[i]), out);
    return bad_ == 0;
  }

 private:
  template <class Real>
  __device__ static Tap<Real> tap(const DeviceSource& from, int axis, std::int64_t i) {
    return static_cast<const Tap<Real>*>(from.taps[axis])[i];
  }

  // A value of a member, or the mean of all members' if it is logits that are averaged.
  __device__ float read(const DeviceSource& from, std::int64_t channel, std::int64_t slice,
                        std::int64_t row, std::int64_t column) {
    const auto load = [&](const DeviceSource& source) {
      const std::byte* p = source.data + channel * source.channel_stride +
                           slice * source.stride[0] + row * source.stride[1] +
                           column * source.stride[2];
      return checked(task_.merge, to_float(*reinterpret_cast<const T*>(p)), bad_);
    };
    float value = load(from);
    if (!task_.merge.mean_of_logits) return value;
    for (int k = 1; k < task_.merge.members; ++k)
      value = add_logit<T>(value, load(task_.sources[k]));
    return divide_logit<T>(value, task_.merge.members);
  }

  // A channel of an input slice at the column's place.
  template <class Real>
  __device__ Real place(const DeviceSource& from, std::int64_t channel, std::int64_t slice,
                        const Tap<Real>& along1, const Tap<Real>& along2) {
    const auto widen = [&](std::int64_t row) {
      const Real low = read(from, channel, slice, row, along2.low);
      if (from.identity_inner) return low;
      const Real high = read(from, channel, slice, row, along2.high);
      return lerp<Real>(low, high, along2.weight);
    };
    const Real low = widen(along1.low);
    return along1.weight == 0 ? low : lerp<Real>(low, widen(along1.high), along1.weight);
  }

  // A channel at a voxel, between two slices.
  __device__ float between(const DeviceSource&, std::int64_t, float low, float high,
                           const Tap<float>& along0, const Tap<float>&, const Tap<float>&) {
    return along0.weight == 0 ? low : lerp<float>(low, high, along0.weight);
  }
  // The same, rounded to float16; as SciPy sums it up where that decides.
  __device__ float between(const DeviceSource& from, std::int64_t channel, double low, double high,
                           const Tap<double>& along0, const Tap<double>& along1,
                           const Tap<double>& along2) {
    std::uint64_t apart = 0;
    const double half =
        round_to_half(lerp<double>(low, high, along0.weight), from.tie_margin, apart);
    if (apart == 0) return static_cast<float>(half);
    return static_cast<float>(round_to_half(scipy_value(from, channel, along0, along1, along2)));
  }
  // Not in the loop, as it is rare: it would take up registers.
  __device__ __noinline__ double scipy_value(const DeviceSource& from, std::int64_t channel,
                                             const Tap<double>& along0, const Tap<double>& along1,
                                             const Tap<double>& along2) {
    const Tap<double> taps[3] = {along0, along1, along2};
    return sum_of_corners(taps, from.order, [&](const std::int32_t(&at)[3]) {
      return read(from, channel, at[0], at[1], at[2]);
    });
  }

  template <class Real>
  __device__ void add_member(const DeviceSource& from) {
    const MergeTask& merge = task_.merge;
    const OwnValues<Real> slices(slices_);
    const OwnValues<float> row(row_);
    const OwnValues<float> score(score_);
    const auto along1 = tap<Real>(from, 1, y_);
    const auto along2 = tap<Real>(from, 2, x_);
    // Two slices are remembered, by the parity of their number.
    std::int32_t even = -1;
    std::int32_t odd = -1;
    for (std::int64_t z = first_; z < last_; ++z) {
      const auto along0 = tap<Real>(from, 0, z);
#pragma unroll 1
      for (int end = 0; end < 2; ++end) {
        const std::int32_t slice = end == 0 ? along0.low : along0.high;
        const bool is_odd = (slice & 1) != 0;
        if (slice == (is_odd ? odd : even)) continue;
        (is_odd ? odd : even) = slice;
        for (int c = 0; c < merge.channels; ++c)
          slices[2 * c + (slice & 1)] = place<Real>(from, merge.channel[c], slice, along1, along2);
      }
      for (int c = 0; c < merge.channels; ++c)
        row[c] = between(from, merge.channel[c], slices[2 * c + (along0.low & 1)],
                         slices[2 * c + (along0.high & 1)], along0, along1, along2);
      score[static_cast<int>(z - first_)] += merged(merge, [&](int c) { return row[c]; }, bad_);
    }
  }

  const ExportTask& task_;
  const std::int64_t y_;
  const std::int64_t x_;
  const std::int64_t first_;
  const std::int64_t last_;
  std::byte* const slices_;
  std::byte* const row_;
  std::byte* const score_;
  unsigned bad_ = 0;
};

/// Writes the scores of a volume; members have elements of type T.
template <class T>
__global__ void __launch_bounds__(export_threads, export_blocks)
    export_columns(const __grid_constant__ ExportTask task) {
  const std::int64_t columns = task.extent[1] * task.extent[2];
  const std::int64_t across = (columns + blockDim.x - 1) / blockDim.x;
  const std::int64_t tiles = across * ((task.extent[0] + export_depth - 1) / export_depth);
  bool good = true;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t column = tile % across * blockDim.x + threadIdx.x;
    if (column >= columns) continue;
    const std::int64_t first = tile / across * export_depth;
    const std::int64_t last =
        first + export_depth < task.extent[0] ? first + export_depth : task.extent[0];
    good &=
        ExportColumn<T>(task, column / task.extent[2], column % task.extent[2], first, last).run();
  }
  if (!good) lower(task.merge.fault, 0);
}

// --- ensemble ------------------------------------------------------------------------------------

inline constexpr int ensemble_width = 4;

/// Merges `width` voxels; `load(k, c, value)` reads channel c of member k.
template <class T, int width, class Load>
__device__ inline void merge_vector(const MergeTask& merge, const Load& load, float (&score)[width],
                                    unsigned& bad) {
  const OwnValues<float> own(shared_memory());
#pragma unroll
  for (int j = 0; j < width; ++j) score[j] = 0;
  const int members = merge.mean_of_logits ? 1 : merge.members;
  for (int k = 0; k < members; ++k) {
#pragma unroll 4
    for (int c = 0; c < merge.channels; ++c) {
      float value[width];
      load(k, merge.channel[c], value);
#pragma unroll
      for (int j = 0; j < width; ++j) checked(merge, value[j], bad);
      if (merge.mean_of_logits) {
        for (int other = 1; other < merge.members; ++other) {
          float more[width];
          load(other, merge.channel[c], more);
#pragma unroll
          for (int j = 0; j < width; ++j)
            value[j] = add_logit<T>(value[j], checked(merge, more[j], bad));
        }
#pragma unroll
        for (int j = 0; j < width; ++j) value[j] = divide_logit<T>(value[j], merge.members);
      }
#pragma unroll
      for (int j = 0; j < width; ++j) own[width * c + j] = value[j];
    }
#pragma unroll
    for (int j = 0; j < width; ++j)
      score[j] += merged(merge, [&](int c) { return own[width * c + j]; }, bad);
  }
#pragma unroll
  for (int j = 0; j < width; ++j) score[j] = finished(merge, score[j]);
}

/// For arrays without strides, aligned to four elements.
template <class T>
__global__ void __launch_bounds__(export_threads, export_blocks)
    merge_packed(const __grid_constant__ EnsembleTask task) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t vectors = task.voxels / ensemble_width;
  const auto own = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  auto* const out = const_cast<std::byte*>(task.out.data);
  const auto size = static_cast<std::int64_t>(size_of(task.merge.out));
  const auto channel_of = [&](int k, std::int64_t channel) {
    return reinterpret_cast<const T*>(task.member[k].data + channel * task.channel_stride[k]);
  };
  unsigned bad = 0;
  for (std::int64_t vector = own; vector < vectors; vector += step) {
    const std::int64_t first = vector * ensemble_width;
    float score[ensemble_width];
    merge_vector<T>(
        task.merge,
        [&](int k, std::int64_t channel, float(&value)[ensemble_width]) {
          const FourElements<T> four = load_four(channel_of(k, channel) + first);
#pragma unroll
          for (int j = 0; j < ensemble_width; ++j) value[j] = to_float(four.element[j]);
        },
        score, bad);
    if (task.merge.out == Element::float32) {
      store_once(reinterpret_cast<float4*>(out) + vector,
                 float4{score[0], score[1], score[2], score[3]});
    } else {
#pragma unroll
      for (int j = 0; j < ensemble_width; ++j)
        store_score(task.merge.out, score[j], out + (first + j) * size);
    }
  }
  // What is left over after the last whole vector.
  if (const std::int64_t rank = vectors * ensemble_width + own; rank < task.voxels) {
    float score[1];
    merge_vector<T>(
        task.merge,
        [&](int k, std::int64_t channel, float(&value)[1]) {
          value[0] = to_float(channel_of(k, channel)[rank]);
        },
        score, bad);
    store_score(task.merge.out, score[0], out + rank * size);
  }
  if (bad != 0) lower(task.merge.fault, 0);
}

/// For any strides and alignment.
template <class T>
__global__ void __launch_bounds__(export_threads, export_blocks)
    merge_strided(const __grid_constant__ EnsembleTask task) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  unsigned bad = 0;
  for (std::int64_t rank = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       rank < task.voxels; rank += step) {
    const auto at = [&](const DeviceArray& array) {
      const DeviceArray* const arrays[1] = {&array};
      std::int64_t offset[1] = {0};
      add_offsets(task.axes, task.extent, arrays, rank, offset);
      return array.data + offset[0];
    };
    float score[1];
    merge_vector<T>(
        task.merge,
        [&](int k, std::int64_t channel, float(&value)[1]) {
          const std::byte* p = at(task.member[k]) + channel * task.channel_stride[k];
          value[0] = to_float(*reinterpret_cast<const T*>(p));
        },
        score, bad);
    store_score(task.merge.out, score[0], const_cast<std::byte*>(at(task.out)));
  }
  if (bad != 0) lower(task.merge.fault, 0);
}

}  // namespace twintrack::cuda
