# The CUDA module, twintrack._cuda, apart from the core: the package needs neither it nor a driver.
#
#   TWINTRACK_CUDA  AUTO  build it if nvcc is found (the default)
#                   ON    build it, or stop
#                   OFF   do not look for nvcc
#
# nvcc is CUDACXX, or the first of CUDA_PATH, PATH, /usr/local/cuda and the packages of the Python
# that builds: pip install nvidia-cuda-nvcc nvidia-cuda-runtime, as `make cuda` does.
set(TWINTRACK_CUDA AUTO CACHE STRING "Build the CUDA module: AUTO, ON or OFF")
set_property(CACHE TWINTRACK_CUDA PROPERTY STRINGS AUTO ON OFF)
# Ampere, Hopper and Blackwell as machine code; what comes after them compiles the last one's PTX.
set(TWINTRACK_CUDA_ARCHITECTURES 80-real 90-real 100-real 100-virtual CACHE STRING
  "CUDA architectures, as in CMAKE_CUDA_ARCHITECTURES; one, such as 90-real, compiles fastest")

if(NOT TWINTRACK_PYTHON OR (NOT TWINTRACK_CUDA STREQUAL "AUTO" AND NOT TWINTRACK_CUDA))
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  file(GLOB packages ${Python_SITELIB}/nvidia/*/bin ${Python_SITEARCH}/nvidia/*/bin)
  find_program(TWINTRACK_NVCC nvcc HINTS ENV CUDA_PATH PATH_SUFFIXES bin
    PATHS /usr/local/cuda/bin ${packages})
  mark_as_advanced(TWINTRACK_NVCC)
  if(TWINTRACK_NVCC)
    set(ENV{CUDACXX} ${TWINTRACK_NVCC})
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)  # that it works, too
if(NOT CMAKE_CUDA_COMPILER)
  if(TWINTRACK_CUDA STREQUAL "AUTO")
    message(STATUS "No nvcc: the CUDA module is left out")
    return()
  endif()
  message(FATAL_ERROR "TWINTRACK_CUDA is ${TWINTRACK_CUDA} but there is no nvcc. Set CUDACXX, or "
    "install a toolkit, e.g. pip install nvidia-cuda-nvcc nvidia-cuda-runtime")
endif()

if(CMAKE_CUDA_FLAGS MATCHES "use_fast_math")
  message(FATAL_ERROR "The kernels cannot be compiled with --use_fast_math: they give the CPU's bits. "
    "Take the flag out of CMAKE_CUDA_FLAGS (CUDAFLAGS when a build folder is new).")
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # each target says its own
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
  set(too_old "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}; the kernels need 12 or later")
  if(TWINTRACK_CUDA STREQUAL "AUTO")
    message(STATUS "${too_old}: the CUDA module is left out")
    return()
  endif()
  message(FATAL_ERROR "${too_old}")
endif()
set(architectures ${TWINTRACK_CUDA_ARCHITECTURES})
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8 AND architectures MATCHES "100")
  list(FILTER architectures EXCLUDE REGEX "^100")
  list(APPEND architectures 90-virtual)
endif()
message(STATUS "CUDA module: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${architectures}")

# Kernels by themselves: they see headers of the core, none of what it is linked with.
file(GLOB_RECURSE kernels CONFIGURE_DEPENDS cpp/cuda/*.cu)
add_library(twintrack_kernels OBJECT ${kernels})
target_include_directories(twintrack_kernels PRIVATE cpp/include cpp)
target_compile_definitions(twintrack_kernels PRIVATE TWINTRACK_LINKED)
set_target_properties(twintrack_kernels PROPERTIES
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  CUDA_ARCHITECTURES "${architectures}"
  POSITION_INDEPENDENT_CODE ON
  CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
# Results must be the same bits as the CPU's: no contraction of a * b + c. Rounding, division and
# subnormal numbers are as the standard says by default.
target_compile_options(twintrack_kernels PRIVATE
  -fmad=false --expt-relaxed-constexpr -Xcompiler=-ffp-contract=off
  -Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow
  $<$<BOOL:${TWINTRACK_WERROR}>:-Werror=all-warnings;-Xcompiler=-Werror>)

file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS cpp/cuda/*.cpp)
pybind11_add_module(_cuda MODULE NO_EXTRAS ${cuda_sources} $<TARGET_OBJECTS:twintrack_kernels>)
list(JOIN architectures " " architectures_text)
target_compile_definitions(_cuda PRIVATE TWINTRACK_CUDA_ARCHITECTURES="${architectures_text}")
target_include_directories(_cuda PRIVATE cpp)
target_include_directories(_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(_cuda PRIVATE twintrack_loops twintrack_developer)
set_target_properties(_cuda PROPERTIES
  CXX_VISIBILITY_PRESET hidden UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0
  LINKER_LANGUAGE CUDA
  CUDA_ARCHITECTURES "${architectures}"
  CUDA_RUNTIME_LIBRARY Static)
install(TARGETS _cuda LIBRARY DESTINATION twintrack)
