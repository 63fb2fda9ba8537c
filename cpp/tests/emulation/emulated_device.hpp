// The emulated device as the tests of the kernels set it up.
#pragma once

#include <cstdlib>
#include <string>

#include "cuda_runtime.h"

namespace twintrack::tests {

/// No stream of the runtime's own, so that work on another one shows.
inline const cudaStream_t stream = reinterpret_cast<cudaStream_t>(0x1234);

/// What the device has from now on, such as "shared=6000,threads=64": any of what
/// emulation::device reads (runtime.cpp).
inline void emulate(const std::string& device) {
  setenv("TWINTRACK_EMULATION", device.c_str(), 1);
}

}  // namespace twintrack::tests
