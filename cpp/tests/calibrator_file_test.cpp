// A calibrator file is read to the bit; whatever is not one is refused with its reason.
#include "twintrack/calibration/calibrator_file.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <system_error>
#include <vector>

#include "check.hpp"
#include "twintrack/calibration/json_reader.hpp"

using namespace twintrack;
using twintrack::tests::check;

namespace {

// A file as Python writes it; `changed` replaces the first occurrence of `from` by `to`.
const std::string good = R"({
 "format": "twintrack-calibrator",
 "format_version": 1,
 "knots": {
  "x": [0.0, 5e-324, 0.1, 0.30000000000000004, 1],
  "y": [1e-05, 0.2, 0.2, 0.25, 1.0]
 },
 "target": "single",
 "rater": 2,
 "raters": 5,
 "cases": 3,
 "voxels": 123456789012,
 "region": "b\u00f6x \ud83d\ude00",
 "bins": {"asked": "auto", "made": 5, "largest_share": 0.1, "exact": false,
  "rule": "cells"},
 "cross_validation": {"folds": 5, "scores": {"10": 1.5e-3}},
 "bounds": {"floor": 1e-5, "ceiling": 1.0, "auto": ["floor"]},
 "facts": {"top": 1.0, "log_score": null, "line": "\u2581\u2588", "warnings": ["few bins"]},
 "ensemble": {"average": "logits", "tumour": [1, 2]},
 "versions": {"twintrack": "0.1.0"},
 "fitted_on": [{"case": "0a", "score": "1f-20", "patient": "2b"}, {"case": "9c", "score": null}]
}
)";

std::string changed(const std::string& from, const std::string& to) {
  std::string text = good;
  const std::size_t at = text.find(from);
  check(at != std::string::npos, "the test changes something that is not there: " + from);
  return text.replace(at, from.size(), to);
}

void a_good_file_is_read_to_the_bit() {
  const CalibratorFile file = parse_calibrator(good, "good");
  check(file.map.x() == std::vector<double>{0.0, 5e-324, 0.1, 0.1 + 0.2, 1.0}, "x is wrong");
  check(file.map.y() == std::vector<double>{1e-05, 0.2, 0.2, 0.25, 1.0}, "y is wrong");
  // The first two knots are too close for a slope.
  std::vector<double> scores{0.0, 5e-324, 1.0};
  const WritableArrayView all = writable(scores.data(), {3});
  file.map.apply(all, all, 1);
  check(scores == std::vector<double>{1e-05, 0.2, 1.0}, "scores at knots are mapped wrongly");
  check(file.target == "single" && file.rater == 2, "target or rater is wrong");
  check(file.raters == 5 && file.cases == 3 && file.voxels == 123456789012u, "a count is wrong");
  check(file.region == "b\xc3\xb6x \xf0\x9f\x98\x80", "the escapes of region are decoded wrongly");
  check(file.ensemble == R"({"average": "logits", "tumour": [1, 2]})", "ensemble is wrong");
  const CalibratorFile none = parse_calibrator(changed("\"rater\": 2", "\"rater\": null"), "null");
  check(!none.rater, "a rater of null is no rater");
  parse_calibrator(changed("\"fitted_on\": [", "\"fitted_on\": null, \"more\": ["), "not known");
  parse_calibrator(changed("\"fitted_on\"", "\"more\""), "of an earlier version");
}

void refused(const std::string& text, const std::string& why) {
  std::string message = "nothing";
  try {
    parse_calibrator(text, "file.json");
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  check(message.starts_with("file.json: ") && message.find(why) != std::string::npos,
        "the message should say '" + why + "' but is: " + message);
}

void what_is_no_calibrator_is_refused() {
  refused("", "not a JSON file (a value is missing here: line 1, column 1)");
  refused("[1, 2]", "its format is not 'twintrack-calibrator'");
  refused(changed("twintrack-calibrator", "other"), "its format is not");
  refused(changed("\"format\"", "\"formats\""), "its format is not");
  refused(changed("version\": 1", "version\": 2"),
          "format_version is 2, this TwinTrack reads up to 1: update TwinTrack");
  refused(changed("version\": 1", "version\": 0"), "format_version is 0; it must be a positive");
  refused(changed("version\": 1", "version\": 1.0"), "format_version is 1.0; it must be");
  refused(changed("version\": 1", "version\": true"), "format_version is true; it must be");
  refused(changed("format_version", "version"), "format_version is absent; it must be");
  refused(changed("\"x\"", "\"u\""), "knots must hold the lists of numbers x and y");
  refused(changed("0.0,", "\"0\","), "knots must hold the lists of numbers x and y");
  refused(changed("0.0,", "false,"), "knots must hold the lists of numbers x and y");
  refused(changed("\"knots\": {", "\"knots\": [], \"more\": {"), "knots must hold the lists");
  refused(changed("0.1,", ""), "its knots are broken: the map has 4 x values but 5 y values");
  refused(changed("0.1,", "0.0,"), "its knots are broken: x[2] is 0, not above the knot before it");
  refused(changed("0.25,", "0.1,"), "its knots are broken: y[3] is 0.1, below the knot before it");
  refused(changed("1.0]", "1.5]"), "its knots are broken: y[4] is 1.5, not in [0, 1]");
  refused(changed("single", "double"), "target is \"double\"; it must be one of mhr, single");
  refused(changed("\"single\"", "7"), "target is 7; it must be one of");
  refused(changed("\"raters\": 5", "\"raters\": -5"), "raters is -5; it must be a whole number");
  refused(changed("\"cases\": 3", "\"cases\": 3e0"), "cases is 3e0; it must be a whole number");
  refused(changed("123456789012", "null"), "voxels is null; it must be a whole number");
  refused(changed("\"bins\": {", "\"bins\": 3, \"more\": {"), "bins and ensemble must be objects");
  refused(changed("\"ensemble\": {", "\"ensemble\": \"\", \"more\": {"), "must be objects or null");
  refused(changed("\"0a\"", "10"),
          "fitted_on must be null or a list of objects with case and score");
  refused(changed("\"1f-20\"", "{}"), "fitted_on must be null or a list of objects");
  refused(changed("{\"case\": \"9c\", \"score\": null}", "\"9c\""),
          "fitted_on must be null or a list");
  refused(changed("\"case\": \"9c\", ", ""), "fitted_on must be null or a list");
  refused(changed("\"fitted_on\": [", "\"fitted_on\": {}, \"more\": ["),
          "fitted_on must be null or");
}

double number_of(const std::string& text) {
  JsonReader json(text);
  const double value = json.number().value;
  json.end();
  return value;
}

// As Python reads them; but what Python takes for infinite is refused.
void numbers_at_the_ends_of_the_range() {
  for (const std::string text : {"1e-400", "1e-324", "0.0001e-321", "9e-99999999999999999999",
                                 "1E-0400", "0e400", "0E99999"})
    for (const std::string sign : {"", "-"}) {
      const double value = number_of(sign + text);
      check(value == 0 && std::signbit(value) == (sign == "-"), sign + text + " is not read as 0");
    }
  check(number_of("0." + std::string(400, '0') + "1") == 0, "a long small number is not 0");
  check(number_of("0." + std::string(800, '0') + "1e10") == 0, "a long small number is not 0");
  check(number_of("0." + std::string(400, '0') + "1e401") == 1, "a long 1 is not 1");
  check(number_of("1" + std::string(400, '0') + "e-400") == 1, "a long 1 is not 1");
  check(number_of("5e-324") == 0x1p-1074 && number_of("3e-324") == 0x1p-1074 &&
            number_of("-2.5e-310") == -2.5e-310,
        "a subnormal number is wrong");
  check(number_of("1.7976931348623157e308") == std::numeric_limits<double>::max(),
        "the largest number is wrong");
  for (const std::string text : {"1e400", "-1e400", "1.8e308", "0.1e+310", "12345678901e299",
                                 "1e99999999999999999999", "10000e0305"})
    refused(changed("0.25", text), "(the number " + text + " is out of the range of a double: ");
  refused(changed("0.25", "1" + std::string(800, '0') + "e-10"), "is out of the range of a double");
  refused(changed("0.25", "1" + std::string(400, '0')),
          "is out of the range of a double: line 6, ");
}

// Each of these breaks one rule of JSON.
void what_is_not_json_is_refused() {
  for (std::size_t length = 0; length + 2 < good.size(); length += 7)
    refused(good.substr(0, length), "not a JSON file");
  refused(good + "x", "something follows the end: line 23, column 1");
  for (const std::string number :
       {"NaN", "Infinity", "-", "+1", "01", "1.", ".5", "1e", "0x1", "1_0", "--1"})
    refused(changed("0.25", number), "not a JSON file");
  for (const std::string text : {"\"\\x\"", "\"\\u12g4\"", "\"a\tb\"", "\"\xff\"", "\"\xc0\x80\"",
                                 "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "'a'",
                                 "{1: 2}", "{\"a\" 2}", "[1,]", "[1 2]", "{\"a\": 1,}", "tru"})
    refused(changed("\"0.1.0\"", text), "not a JSON file");
  refused(std::string("\xef\xbb\xbf") + good, "not a JSON file");
  const std::string deep(100'000, '[');
  refused(changed("\"0.1.0\"", deep), "it is nested too deeply");
}

void strings_and_places() {
  const std::string text = R"( {"a\"\\\/\b\f\n\r\t" : "\u20ac\ud800x" , "b" : [ ] } )";
  JsonReader json(text);
  std::string names;
  std::string value;
  json.object([&](const std::string& name) {
    names += name;
    if (json.next() == JsonReader::Kind::string)
      value = json.string();
    else
      json.skip();
  });
  json.end();
  check(names == "a\"\\/\b\f\n\r\tb", "escapes in a name are decoded wrongly");
  check(value == "\xe2\x82\xac\xed\xa0\x80x", "\\u is decoded wrongly");
}

void files() {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      ("twintrack-calibrator-test-" + std::to_string(std::random_device{}()) + ".json");
  std::ofstream(path, std::ios::binary) << good;
  check(read_calibrator(path).map.x().size() == 5, "a file is not read as its text is");
  std::filesystem::resize_file(path, 17u << 20);
  std::string message;
  try {
    read_calibrator(path);
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  std::filesystem::remove(path);
  check(message.find("17825792 bytes is too large") != std::string::npos, "a huge file was read");
  bool named = false;
  try {
    read_calibrator(path);
  } catch (const std::filesystem::filesystem_error& error) {
    named = error.path1() == path && error.code() == std::errc::no_such_file_or_directory;
  }
  check(named, "a file that is not there is not named");
}

}  // namespace

int main() {
  return tests::run([] {
    a_good_file_is_read_to_the_bit();
    what_is_no_calibrator_is_refused();
    what_is_not_json_is_refused();
    numbers_at_the_ends_of_the_range();
    strings_and_places();
    files();
  });
}
