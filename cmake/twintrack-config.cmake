# find_package(twintrack): the header-only target twintrack::twintrack.
#
# OpenMP is linked if this machine has it; without, threads are std::thread, with the same results.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/twintrack-targets.cmake)
find_package(OpenMP QUIET COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
  set_property(TARGET twintrack::twintrack APPEND PROPERTY INTERFACE_LINK_LIBRARIES OpenMP::OpenMP_CXX)
endif()
