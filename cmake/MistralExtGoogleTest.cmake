# GTest::gtest_main: the system's GoogleTest, else its sources out of a PyPI package, fetched by pip
# into the build folder. PyPI is what a machine that can install torch can reach.
find_package(GTest QUIET)
if(NOT GTest_FOUND)
  set(gtest_folder "${CMAKE_BINARY_DIR}/googletest")
  set(gtest_sources "${gtest_folder}/ros_gtest_vendor-1.15.1.data/data/src/gtest_vendor")
  if(NOT EXISTS "${gtest_sources}/src/gtest-all.cc" AND Python_EXECUTABLE)
    message(STATUS "No GoogleTest on this system: fetching its sources from PyPI")
    # One wheel for every machine: only its sources are used.
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -m pip download --quiet --no-deps --only-binary :all:
              --python-version 3.11 --implementation cp --platform manylinux_2_28_x86_64
              --dest "${gtest_folder}" ros-gtest-vendor==1.15.1)
    file(GLOB gtest_wheel "${gtest_folder}/ros_gtest_vendor-*.whl")
    if(gtest_wheel)
      file(ARCHIVE_EXTRACT INPUT "${gtest_wheel}" DESTINATION "${gtest_folder}")
    endif()
  endif()
  if(NOT EXISTS "${gtest_sources}/src/gtest-all.cc")
    message(FATAL_ERROR "The C++ tests need GoogleTest, which is not on this system and could not be "
                        "fetched from PyPI: install it (Debian, Ubuntu: apt-get install libgtest-dev; "
                        "Fedora: dnf install gtest-devel), or configure with -DMISTRAL_EXT_TESTS=OFF.")
  endif()
  find_package(Threads REQUIRED)
  add_library(gtest_main STATIC "${gtest_sources}/src/gtest-all.cc" "${gtest_sources}/src/gtest_main.cc")
  target_include_directories(gtest_main SYSTEM PUBLIC "${gtest_sources}/include" PRIVATE "${gtest_sources}")
  target_link_libraries(gtest_main PUBLIC Threads::Threads)
  add_library(GTest::gtest_main ALIAS gtest_main)
endif()
