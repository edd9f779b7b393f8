# nlohmann_json::nlohmann_json: the system's, else the headers in the PyPI package nlohmann-json: out of
# this Python's (the build backend and requirements-dev.txt ask for it), else fetched by pip. They are
# copied into the build folder, which outlives the environment of an isolated build. Only headers:
# what is built needs none of this.
find_package(nlohmann_json 3.11 QUIET)
if(NOT nlohmann_json_FOUND)
  set(json_folder "${CMAKE_BINARY_DIR}/nlohmann_json")
  set(json_header "nlohmann_json/include/nlohmann/json.hpp")
  if(NOT EXISTS "${json_folder}/${json_header}" AND Python_EXECUTABLE)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import importlib.util as u; print(u.find_spec('nlohmann_json').submodule_search_locations[0])"
      OUTPUT_VARIABLE json_package
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(json_package AND EXISTS "${json_package}/../${json_header}")
      file(COPY "${json_package}/include" DESTINATION "${json_folder}/nlohmann_json")
    else()
      message(STATUS "No nlohmann-json on this system: fetching its headers from PyPI")
      execute_process(COMMAND "${Python_EXECUTABLE}" -m pip download --quiet --no-deps --only-binary :all:
                              --dest "${json_folder}" nlohmann-json==3.12.0)
      file(GLOB json_wheel "${json_folder}/nlohmann_json-*.whl")
      if(json_wheel)
        file(ARCHIVE_EXTRACT INPUT "${json_wheel}" DESTINATION "${json_folder}")
      endif()
    endif()
  endif()
  if(NOT EXISTS "${json_folder}/${json_header}")
    message(FATAL_ERROR "mistral_ext needs the headers of nlohmann-json, which are not on this system and could "
                        "not be fetched from PyPI: install them (pip install nlohmann-json; Debian, Ubuntu: "
                        "apt-get install nlohmann-json3-dev; Fedora: dnf install json-devel).")
  endif()
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json INTERFACE "${json_folder}/nlohmann_json/include")
endif()
