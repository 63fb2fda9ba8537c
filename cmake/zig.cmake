# Toolchain file: Clang of the Python package ziglang, which has libc++ and the system's headers for
# other machines, and needs nothing else. For compiling; what it makes is not linked.
#
#   TWINTRACK_ZIG         the program zig, ziglang/zig in the package
#   TWINTRACK_ZIG_TARGET  aarch64-macos, aarch64-linux-gnu or x86_64-windows-gnu
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TWINTRACK_ZIG TWINTRACK_ZIG_TARGET)
string(REPLACE "-" ";" parts "${TWINTRACK_ZIG_TARGET}")
list(GET parts 0 CMAKE_SYSTEM_PROCESSOR)
list(GET parts 1 system)
set(systems "macos=Darwin" "linux=Linux" "windows=Windows")
list(FILTER systems INCLUDE REGEX "^${system}=")
string(REGEX REPLACE ".*=" "" CMAKE_SYSTEM_NAME "${systems}")

# Always -c: to link, it would first compile libc++ and more, even for what CMake asks of a compiler.
set(CMAKE_CXX_COMPILER ${TWINTRACK_ZIG} c++ -target ${TWINTRACK_ZIG_TARGET} -c)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_DISABLE_FIND_PACKAGE_OpenMP ON)  # it has no omp.h
