// The calibrator file: the knots of a map and where they come from, one JSON object.
//
// The format is described in python/twintrack/calibration/calibrator_file.py, which writes it. The
// file is read strictly, and refused for the same reasons as there; the band is passed over.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/json_reader.hpp"

namespace twintrack {

/// A calibrator as it was read.
struct CalibratorFile {
  CalibrationMap map;
  std::string target;                 // "mhr", "single", "hard", "majority" or "none"
  std::optional<std::int64_t> rater;  // that "single" follows, 0-based
  std::uint64_t raters;
  std::uint64_t cases;
  std::uint64_t voxels;
  std::string region;    // which voxels counted: "all", "mask", "roi", "box"
  std::string ensemble;  // how the score was made, as JSON text: compare it with your own pipeline
};

namespace detail {

inline constexpr std::string_view calibrator_format = "twintrack-calibrator";
inline constexpr std::uint64_t calibrator_format_version = 1;
inline constexpr std::uintmax_t largest_calibrator_file = std::uintmax_t{16} << 20;  // bytes

// The fields of a calibrator file as they stand there; those that are absent or of another kind
// than they should be are empty. Of a field that occurs twice the last one counts, as in Python.
struct CalibratorFields {
  bool is_object = false;
  std::optional<std::string> format;
  std::string version_text = "absent";
  std::optional<std::uint64_t> version;
  std::optional<std::vector<double>> x;
  std::optional<std::vector<double>> y;
  std::optional<std::string> target;
  std::string target_text = "absent";
  std::optional<std::int64_t> rater;
  std::array<std::optional<std::uint64_t>, 3> counts;  // raters, cases, voxels
  std::array<std::string, 3> count_texts = {"absent", "absent", "absent"};
  std::string region;
  bool bins_valid = true;
  bool ensemble_valid = true;
  std::string ensemble = "null";
  bool fitted_on_valid = true;
};

inline constexpr std::array<std::string_view, 3> count_names = {"raters", "cases", "voxels"};

// What was read since `place`, as a message shows it.
inline std::string shown(const JsonReader& json, std::size_t place) {
  const std::string_view text = json.text_since(place);
  return text.size() <= 60 ? std::string(text) : std::string(text.substr(0, 60)) + "…";
}

template <class Integer>
std::optional<Integer> integer_of(const JsonNumber& number) {
  Integer value{};
  const char* end = number.text.data() + number.text.size();
  const std::from_chars_result read = std::from_chars(number.text.data(), end, value);
  if (!number.whole() || read.ec != std::errc{} || read.ptr != end) return std::nullopt;
  return value;
}

// Reads an integer; empty if something else stands there, whose text is in `text` either way.
template <class Integer>
std::optional<Integer> read_integer(JsonReader& json, std::string& text) {
  const std::size_t place = json.place();
  std::optional<Integer> value;
  if (json.next() == JsonReader::Kind::number)
    value = integer_of<Integer>(json.number());
  else
    json.skip();
  text = shown(json, place);
  return value;
}

inline std::optional<std::string> read_string(JsonReader& json) {
  if (json.next() == JsonReader::Kind::string) return json.string();
  json.skip();
  return std::nullopt;
}

// Reads a list of numbers; empty if something else stands there.
inline std::optional<std::vector<double>> read_numbers(JsonReader& json) {
  if (json.next() != JsonReader::Kind::array) {
    json.skip();
    return std::nullopt;
  }
  std::vector<double> values;
  bool numbers = true;
  json.array([&] {
    if (json.next() == JsonReader::Kind::number) {
      values.push_back(json.number().value);
    } else {
      numbers = false;
      json.skip();
    }
  });
  if (!numbers) return std::nullopt;
  return values;
}

inline void read_knots(JsonReader& json, CalibratorFields& fields) {
  fields.x.reset();
  fields.y.reset();
  if (json.next() != JsonReader::Kind::object) return json.skip();
  json.object([&](const std::string& axis) {
    if (axis == "x")
      fields.x = read_numbers(json);
    else if (axis == "y")
      fields.y = read_numbers(json);
    else
      json.skip();
  });
}

inline bool skip_object_or_null(JsonReader& json) {
  const JsonReader::Kind kind = json.next();
  json.skip();
  return kind == JsonReader::Kind::object || kind == JsonReader::Kind::null;
}

// Whether the cases that the map was fitted on are listed as they should be; they are not kept.
inline bool skip_fitted_cases(JsonReader& json) {
  if (json.next() != JsonReader::Kind::array) {
    const bool is_null = json.next() == JsonReader::Kind::null;
    json.skip();
    return is_null;
  }
  bool valid = true;
  json.array([&] {
    bool named = false;
    bool scored = true;
    bool of_patient = true;
    if (json.next() != JsonReader::Kind::object)
      json.skip();
    else
      json.object([&](const std::string& name) {
        const JsonReader::Kind kind = json.next();
        json.skip();
        const bool text = kind == JsonReader::Kind::string;
        if (name == "case") named = text;
        if (name == "score") scored = text || kind == JsonReader::Kind::null;
        if (name == "patient") of_patient = text || kind == JsonReader::Kind::null;
      });
    valid = valid && named && scored && of_patient;
  });
  return valid;
}

inline void read_field(JsonReader& json, const std::string& name, CalibratorFields& fields) {
  for (std::size_t i = 0; i < count_names.size(); ++i)
    if (name == count_names[i]) {
      fields.counts[i] = read_integer<std::uint64_t>(json, fields.count_texts[i]);
      return;
    }
  if (name == "format") {
    fields.format = read_string(json);
  } else if (name == "format_version") {
    fields.version = read_integer<std::uint64_t>(json, fields.version_text);
  } else if (name == "knots") {
    read_knots(json, fields);
  } else if (name == "target") {
    const std::size_t place = json.place();
    fields.target = read_string(json);
    fields.target_text = shown(json, place);
  } else if (name == "rater") {
    std::string text;
    fields.rater = read_integer<std::int64_t>(json, text);
  } else if (name == "region") {
    fields.region = read_string(json).value_or("");
  } else if (name == "bins") {
    fields.bins_valid = skip_object_or_null(json);
  } else if (name == "ensemble") {
    const std::size_t place = json.place();
    fields.ensemble_valid = skip_object_or_null(json);
    fields.ensemble = std::string(json.text_since(place));
  } else if (name == "fitted_on") {
    fields.fitted_on_valid = skip_fitted_cases(json);
  } else {
    json.skip();
  }
}

inline CalibratorFields read_fields(std::string_view text) {
  CalibratorFields fields;
  JsonReader json(text);
  fields.is_object = json.next() == JsonReader::Kind::object;
  if (fields.is_object)
    json.object([&](const std::string& name) { read_field(json, name, fields); });
  else
    json.skip();
  json.end();
  return fields;
}

// The bytes of a file that may be no larger than a calibrator file can be.
inline std::string read_bytes(const std::filesystem::path& path) {
  const std::uintmax_t size = std::filesystem::file_size(path);  // throws, naming path and reason
  if (size > largest_calibrator_file)
    throw std::invalid_argument(path.string() + ": " + std::to_string(size) +
                                " bytes is too large for a calibrator file");
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<std::size_t>(size), '\0');
  if (!file || !file.read(bytes.data(), static_cast<std::streamsize>(size)))
    throw std::filesystem::filesystem_error("cannot read the calibrator file", path,
                                            std::make_error_code(std::errc::io_error));
  return bytes;
}

}  // namespace detail

/// Reads the text of a calibrator file; `name` is what messages call it.
///
/// Throws std::invalid_argument if it is no calibrator, is damaged, or has a newer format.
inline CalibratorFile parse_calibrator(std::string_view text, const std::string& name) {
  const auto check = [&](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(name + ": " + what);
  };
  detail::CalibratorFields fields;
  try {
    fields = detail::read_fields(text);
  } catch (const JsonError& error) {
    check(false, std::string("not a JSON file (") + error.what() + ")");
  }
  check(
      fields.is_object && fields.format == detail::calibrator_format,
      "not a calibrator file: its format is not '" + std::string(detail::calibrator_format) + "'");
  check(fields.version && *fields.version >= 1,
        "format_version is " + fields.version_text + "; it must be a positive number");
  check(*fields.version <= detail::calibrator_format_version,
        "format_version is " + fields.version_text + ", this TwinTrack reads up to " +
            std::to_string(detail::calibrator_format_version) + ": update TwinTrack");
  check(fields.x && fields.y, "knots must hold the lists of numbers x and y");
  const std::string target = fields.target.value_or("");
  check(
      target == "mhr" || target == "single" || target == "hard" || target == "majority" ||
          target == "none",
      "target is " + fields.target_text + "; it must be one of mhr, single, hard, majority, none");
  for (std::size_t i = 0; i < fields.counts.size(); ++i)
    check(fields.counts[i].has_value(), std::string(detail::count_names[i]) + " is " +
                                            fields.count_texts[i] + "; it must be a whole number");
  check(fields.bins_valid && fields.ensemble_valid, "bins and ensemble must be objects or null");
  check(fields.fitted_on_valid, "fitted_on must be null or a list of objects with case and score");
  try {
    return {CalibrationMap(std::move(*fields.x), std::move(*fields.y)),
            target,
            fields.rater,
            *fields.counts[0],
            *fields.counts[1],
            *fields.counts[2],
            fields.region,
            fields.ensemble};
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(name + ": its knots are broken: " + error.what());
  }
}

/// Reads a calibrator file that `twintrack fit` or `Calibrator.save` wrote.
///
/// Throws std::filesystem::filesystem_error if it cannot be read, and as `parse_calibrator` does.
inline CalibratorFile read_calibrator(const std::filesystem::path& path) {
  return parse_calibrator(detail::read_bytes(path), path.string());
}

}  // namespace twintrack
