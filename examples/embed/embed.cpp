// Calibration inside a C++ program, without Python.
//
//     embed apply OUT SCORES CALIBRATOR.json
//     embed fit OUT SCORES mhr|single|hard BINS RATER...
//
// Both write calibrated scores to OUT: by the map of a calibrator file, or by one that is fitted
// here and now to what raters marked. SCORES and OUT are raw float32, each RATER raw bytes of 0 and
// 1, all in one order of voxels: what NumPy's `tofile` writes.
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/arrays/contiguous.hpp"
#include "twintrack/calibration/calibrator_file.hpp"
#include "twintrack/calibration/map_fit.hpp"

namespace tt = twintrack;

namespace {

template <class T>
std::vector<T> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  std::vector<T> values(static_cast<std::size_t>(file.tellg()) / sizeof(T));
  const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(T));
  if (!file.seekg(0).read(reinterpret_cast<char*>(values.data()), bytes))
    throw std::runtime_error(path + ": cannot be read");
  return values;
}

void write(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(float));
  if (!file.write(reinterpret_cast<const char*>(values.data()), bytes).flush())
    throw std::runtime_error(path + ": cannot be written");
}

void print(const tt::CalibrationMap& map, std::size_t voxels) {
  std::cout << voxels << " voxels calibrated by a map of " << map.x().size() << " knots, "
            << map.y().front() << " to " << map.y().back() << '\n';
}

// Maps the scores where they lie.
void calibrate(const tt::CalibrationMap& map, std::vector<float>& score) {
  const tt::Shape shape = {static_cast<std::int64_t>(score.size())};
  map.apply(tt::contiguous(score.data(), shape), tt::writable(score.data(), shape));
  print(map, score.size());
}

void apply(std::vector<float>& score, const std::string& calibrator) {
  const tt::CalibratorFile file = tt::read_calibrator(calibrator);
  std::cout << "target " << file.target << ", fitted to " << file.cases << " cases of "
            << file.raters << " raters\n";
  calibrate(file.map, score);
}

void fit(std::vector<float>& score, tt::Target target, std::uint64_t bins,
         std::span<const std::string> raters) {
  const tt::Shape shape = {static_cast<std::int64_t>(score.size())};
  std::vector<std::vector<std::uint8_t>> masks;
  tt::CaseView one_case;
  one_case.score = tt::contiguous(score.data(), shape);
  for (const std::string& rater : raters) {
    masks.push_back(read<std::uint8_t>(rater));
    if (masks.back().size() != score.size())
      throw std::runtime_error(rater + ": as many bytes as there are scores are needed");
    one_case.raters.push_back(tt::contiguous(masks.back().data(), shape));
  }
  tt::ScoreTally tally(raters.size());
  tally.update(one_case);  // once for each case of a cohort
  calibrate(tt::fit_map(tally, bins, target), score);
}

}  // namespace

int main(int count, char** values) {
  const std::vector<std::string> arguments(values + 1, values + count);
  const std::string command = arguments.empty() ? "" : arguments[0];
  try {
    if (command == "apply" && arguments.size() == 4) {
      std::vector<float> score = read<float>(arguments[2]);
      apply(score, arguments[3]);
      write(arguments[1], score);
    } else if (command == "fit" && arguments.size() >= 6) {
      std::vector<float> score = read<float>(arguments[2]);
      fit(score, tt::target_named(arguments[3]), std::stoull(arguments[4]),
          std::span(arguments).subspan(5));
      write(arguments[1], score);
    } else {
      std::cerr << "usage: embed apply OUT SCORES CALIBRATOR.json\n"
                   "       embed fit OUT SCORES mhr|single|hard BINS RATER...\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
