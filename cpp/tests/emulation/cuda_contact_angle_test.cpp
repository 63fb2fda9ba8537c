// The kernels of the contact angles give the angles of the CPU, bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/metrics/contact_angle.hpp"
#include "cuda_runtime.h"
#include "elements.hpp"
#include "emulated_device.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/contact_angle.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

void put(Element element, double value, std::byte* to) {
  visit_element(element, [&](auto sample) {
    using T = decltype(sample);
    if constexpr (std::is_class_v<T>) {
      // Whole numbers of up to 8 bits: exact in the upper half of a float, and scores in [0, 1].
      if constexpr (std::is_same_v<T, bfloat16>) {
        const auto bits = detail::bits_as<std::uint32_t>(static_cast<float>(value));
        const auto upper = static_cast<std::uint16_t>(bits >> 16);
        std::memcpy(to, &upper, 2);
      } else {
        const T half = from_unit<T>(static_cast<float>(value));
        std::memcpy(to, &half, 2);
      }
    } else {
      const T stored = static_cast<T>(value);
      std::memcpy(to, &stored, sizeof stored);
    }
  });
}

// A volume of three axes in any memory order, with gaps between elements if `spread` is above 1.
struct Volume {
  Volume(Element element, const Shape& shape, std::array<std::size_t, 3> order, int spread) {
    const auto size = static_cast<std::int64_t>(size_of(element));
    view.element = element;
    view.shape = shape;
    view.strides.assign(3, 0);
    std::int64_t stride = size * spread;
    for (std::size_t i = 3; i-- > 0;) {
      view.strides[order[i]] = stride;
      stride *= shape[order[i]];
    }
    memory.resize(static_cast<std::size_t>(stride + size));
    view.data = memory.data() + (spread > 1 ? size : 0);
  }
  std::byte* at(std::int64_t a, std::int64_t b, std::int64_t c) {
    return const_cast<std::byte*>(view.data) + a * view.strides[0] + b * view.strides[1] +
           c * view.strides[2];
  }
  template <class Value>
  void fill(const Value& value) {
    for (std::int64_t a = 0; a < view.shape[0]; ++a)
      for (std::int64_t b = 0; b < view.shape[1]; ++b)
        for (std::int64_t c = 0; c < view.shape[2]; ++c)
          put(view.element, value(a, b, c), at(a, b, c));
  }
  std::vector<std::byte> memory;
  ArrayView view;
};

enum class Scene {
  noise,       // vessels, masks and scores at random
  tubes,       // mostly background, a few vessels beside a tumour
  equal,       // one vessel that fills the volume, one score equal to a threshold
  background,  // nothing
  corners,     // vessels and tumours at the ends of the axes
};
constexpr Scene all_scenes[] = {Scene::noise, Scene::tubes, Scene::equal, Scene::background,
                                Scene::corners};

struct Sample {
  Sample(Scene scene, const Shape& shape, std::size_t raters, unsigned seed,
         Element score_element = Element::float32, Element label_element = Element::uint8,
         Element vessel_element = Element::uint8, bool awkward = false) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> unit(0, 1);
    const auto order = [&] {
      std::array<std::size_t, 3> axes{0, 1, 2};
      if (awkward) std::shuffle(axes.begin(), axes.end(), random);
      return axes;
    };
    const int spread = awkward ? 2 : 1;
    // The kinds of boxes that scenes are made of.
    const auto at_corner = [&](std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t depth) {
      const auto near = [&](std::int64_t i, std::int64_t extent) {
        return i < depth || i >= extent - depth;
      };
      return near(a, shape[0]) && near(b, shape[1]) && near(c, shape[2]);
    };
    volumes.emplace_back(vessel_element, shape, order(), spread);
    volumes.back().fill([&](std::int64_t a, std::int64_t b, std::int64_t c) -> double {
      switch (scene) {
        case Scene::noise:
          return unit(random) < 0.5 ? 0 : static_cast<double>(random() % 5);
        case Scene::tubes:
          if (b / 3 == 1 && c / 4 == 1) return 2;
          return a / 2 == 1 && c / 3 == 2 ? 4 : 0;
        case Scene::equal:
          return 3;
        case Scene::background:
          return 0;
        case Scene::corners:
          break;
      }
      return at_corner(a, b, c, 2) ? 1 + static_cast<double>(a % 2) : 0;
    });
    for (std::size_t k = 0; k < raters; ++k) {
      volumes.emplace_back(label_element, shape, order(), spread);
      volumes.back().fill([&](std::int64_t a, std::int64_t b, std::int64_t c) -> double {
        if (scene == Scene::background || scene == Scene::equal) return 0;
        if (scene == Scene::noise) return unit(random) < 0.15 ? 1 : 0;
        if (scene == Scene::corners) return at_corner(a, b, c, 1) ? 1 : 0;
        return c / 4 == 2 && b < 4 + static_cast<std::int64_t>(k) ? 1 : 0;
      });
    }
    volumes.emplace_back(score_element, shape, order(), spread);
    volumes.back().fill([&](std::int64_t, std::int64_t b, std::int64_t c) -> double {
      if (scene == Scene::background) return 0;
      if (scene == Scene::equal) return 0.5;
      if (scene == Scene::tubes) return c / 5 == 1 && b > 1 ? 0.75 : 0;
      return unit(random) < 0.8 ? 0 : 0.25 * static_cast<double>(random() % 5);
    });
  }
  Volume& vessels() { return volumes.front(); }
  Volume& score() { return volumes.back(); }

  ContactInput input(std::vector<std::int64_t> labels = {4, 1, 3, 2, 90}) const {
    ContactInput made;
    made.view.score = volumes.back().view;
    for (std::size_t k = 1; k + 1 < volumes.size(); ++k)
      made.view.raters.push_back(volumes[k].view);
    made.vessels = volumes.front().view;
    made.labels = std::move(labels);
    made.thresholds = {0.5, 0.1, 0.7499999999, 1.0};
    return made;
  }
  std::vector<Volume> volumes;
};

void compare(const ContactInput& input, const std::string& what) {
  const ContactAngles expected = contact_angles(input, 1);
  const ContactAngles found = cuda::contact_angles(input, 0, stream);
  check(found.label_occurs == expected.label_occurs, "labels that occur differ: " + what);
  check(found.degrees.size() == expected.degrees.size() &&
            std::memcmp(found.degrees.data(), expected.degrees.data(),
                        expected.degrees.size() * sizeof(double)) == 0,
        "contact angles differ: " + what);
}

void every_scene_and_shape() {
  unsigned seed = 0;
  for (const Scene scene : all_scenes)
    for (const Shape& shape : {Shape{9, 10, 17}, {1, 7, 40}, {6, 1, 5}, {1, 1, 1}, {20, 9, 3}}) {
      if (++seed % thinned != 0) continue;
      emulate(seed % 2 == 0 ? "threads=64" : "threads=128,multiprocessors=1");
      const Sample sample(scene, shape, 1 + seed % 4, seed);
      compare(sample.input(), "scene " + std::to_string(static_cast<int>(scene)) + ", shape " +
                                  detail::to_text(shape));
    }
  const Sample empty(Scene::noise, {4, 0, 5}, 2, 1);
  compare(empty.input(), "no voxels");
  const Sample sample(Scene::noise, {6, 7, 9}, 2, 1);
  compare(sample.input({}), "no labels");
  compare(sample.input({300, 70000, std::int64_t{1} << 40}), "labels that the type does not hold");
}

void every_lie_and_type() {
  emulate("threads=64");
  unsigned seed = 0;
  const Element any[] = {Element::boolean, Element::int8,     Element::uint8,   Element::int16,
                         Element::uint16,  Element::int32,    Element::uint32,  Element::int64,
                         Element::uint64,  Element::bfloat16, Element::float32, Element::float64};
  const Element scores[] = {Element::float32, Element::float64, Element::float16,
                            Element::bfloat16};
  for (const Element element : any)
    for (const bool awkward : {false, true}) {
      if (++seed % thinned != 0) continue;
      const Sample sample(seed % 3 == 0 ? Scene::tubes : Scene::noise, {8, 9, 14}, 2, seed,
                          scores[seed % 4], any[seed % std::size(any)], element, awkward);
      compare(sample.input(), "vessels of type " + std::to_string(static_cast<int>(element)));
    }
}

void many_masks() {
  emulate("threads=64");
  const Sample sample(Scene::noise, {5, 6, 8}, 60, 2);
  compare(sample.input(), "64 masks");
}

void bad_input_is_named_as_on_the_cpu() {
  emulate("threads=64");
  const auto same_message = [](const ContactInput& input, const std::string& begin) {
    const std::string expected = message_of([&] { contact_angles(input, 1); });
    const std::string found = message_of([&] { cuda::contact_angles(input, 0, stream); });
    check(expected.find(begin) == 0, "the CPU says: " + expected);
    check(found == expected, "the device says: " + found + ", the CPU: " + expected);
  };
  for (const bool awkward : {false, true}) {
    Sample sample(Scene::tubes, {12, 13, 20}, 2, 3, Element::float32, Element::uint8,
                  Element::float32, awkward);
    // Near no vessel: neither CPU nor device looks there.
    put(Element::float32, 7, sample.score().at(10, 12, 0));
    compare(sample.input(), "an invalid score far from vessels");
    put(Element::uint8, 3, sample.volumes[2].at(7, 5, 5));
    // Named is the first one of the case.
    const std::string first =
        message_of([&] { twintrack::CaseTally(2, 1).update(sample.input().view, nullptr, 1); });
    same_message(sample.input(), first);
    put(Element::float32, 2.5, sample.vessels().at(11, 12, 1));
    put(Element::float32, std::nan(""), sample.vessels().at(3, 0, 19));
    same_message(sample.input(), "vessels[");
    same_message(sample.input({0}), "labels has 0");
    same_message(sample.input({1, 1}), "labels has 1 twice");
    ContactInput flat = sample.input();
    flat.vessels.shape = {12, 13};
    same_message(flat, "vessels has shape [12, 13]");
    ContactInput none = sample.input();
    none.view.raters.clear();
    same_message(none, "raters is empty");
  }
}

// What is looked at near a vessel is what the CPU looks at: neither less nor more.
void reach() {
  emulate("threads=64,multiprocessors=1");
  const Shape shape{9, 10, 11};
  Sample sample(Scene::background, shape, 1, 1);
  put(Element::uint8, 1, sample.vessels().at(4, 4, 4));
  for (const int a : {-2, -1, 0, 2, 3})
    for (const int b : {-2, -1, 0, 2, 3})
      for (const int c : {-2, -1, 2, 3}) {
        std::byte* const label = sample.volumes[1].at(4 + a, 4 + b, 4 + c);
        *label = std::byte{2};
        const std::string expected = message_of([&] { contact_angles(sample.input(), 1); });
        const std::string found =
            message_of([&] { cuda::contact_angles(sample.input(), 0, stream); });
        check(found == expected, "the device says: " + found + ", the CPU: " + expected);
        *label = std::byte{0};
      }
}

void devices_and_memory() {
  emulate("devices=2");
  const Sample sample(Scene::noise, {5, 6, 8}, 2, 2);
  cuda::contact_angles(sample.input(), 1, stream);
  check(emulation::last_launch().device == 1, "the kernel ran on another device");
  check(emulation::last_launch().stream == stream, "the kernel ran on another stream");
  int current = -1;
  cudaGetDevice(&current);
  check(current == 0, "the current device was changed");
  check(emulation::live_allocations() == 0, "device memory was not given back");
  emulate("memory=400");
  check(message_of([&] {
          cuda::contact_angles(sample.input(), 0, stream);
        }).find("CUDA device 0 has no ") == 0,
        "too little memory is not reported");
}

}  // namespace

int main() {
  return tests::run([] {
    every_scene_and_shape();
    every_lie_and_type();
    many_masks();
    bad_input_is_named_as_on_the_cpu();
    reach();
    devices_and_memory();
  });
}
