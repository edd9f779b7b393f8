# CLI11::CLI11, for the programs: the system's, else on Debian and its relatives the headers out of the
# package libcli11-dev, which apt-get downloads into the build folder: that needs no root. Only headers:
# what is built needs none of this. Without it MISTRAL_EXT_PROGRAMS_BUILT is off, and a sentence says so.
set(MISTRAL_EXT_PROGRAMS_BUILT OFF)
if(MISTRAL_EXT_PROGRAMS AND NOT MISTRAL_EXT_SANITIZE AND NOT MISTRAL_EXT_FUZZ)  # those run the C++ tests
  find_package(CLI11 2.1 QUIET)
  if(NOT CLI11_FOUND)
    set(cli11_folder "${CMAKE_BINARY_DIR}/cli11")
    find_program(apt_get_program apt-get NO_CACHE)
    find_program(dpkg_program dpkg NO_CACHE)
    if(NOT EXISTS "${cli11_folder}/usr/include/CLI/CLI.hpp" AND apt_get_program AND dpkg_program)
      message(STATUS "No CLI11 on this system: fetching its headers from Debian's packages")
      file(MAKE_DIRECTORY "${cli11_folder}/lists/partial" "${cli11_folder}/cache/archives/partial")
      set(apt_get "${CMAKE_COMMAND}" -E chdir "${cli11_folder}" "${apt_get_program}" --quiet --quiet)
      # Where the system has no lists of packages, or old ones: lists of our own.
      set(own_lists -o "Dir::State::Lists=${cli11_folder}/lists" -o "Dir::Cache=${cli11_folder}/cache"
                    -o APT::Sandbox::User=root)
      foreach(lists IN ITEMS "" own_lists)
        if(lists)
          execute_process(COMMAND ${apt_get} ${${lists}} update TIMEOUT 120 OUTPUT_QUIET ERROR_QUIET)
        endif()
        execute_process(COMMAND ${apt_get} ${${lists}} download libcli11-dev TIMEOUT 60 OUTPUT_QUIET ERROR_QUIET)
        file(GLOB cli11_package "${cli11_folder}/libcli11-dev_*.deb")
        if(cli11_package)
          break()
        endif()
      endforeach()
      if(cli11_package)
        execute_process(COMMAND "${dpkg_program}" -x "${cli11_package}" "${cli11_folder}")
      endif()
    endif()
    if(EXISTS "${cli11_folder}/usr/include/CLI/CLI.hpp")
      add_library(CLI11::CLI11 INTERFACE IMPORTED)
      target_include_directories(CLI11::CLI11 INTERFACE "${cli11_folder}/usr/include")
    endif()
  endif()
  if(TARGET CLI11::CLI11)
    set(MISTRAL_EXT_PROGRAMS_BUILT ON)
  else()
    message(STATUS "The programs mistral_ext_generate and mistral_ext_bench are not built: they need CLI11, which is not "
                   "on this system and could not be fetched (Debian, Ubuntu: apt-get install libcli11-dev; Fedora: "
                   "dnf install cli11-devel).")
  endif()
endif()
