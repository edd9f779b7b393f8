# mistral_ext_fetch(package version sha256 pattern...): the files of a PyPI package's sources that match the
# patterns, in ${CMAKE_BINARY_DIR}/<package>/<package>-<version>. Fetched by this Python's pip, or out of
# the archive that MISTRAL_EXT_<PACKAGE>_SOURCE names, where there is no index of packages to ask.
function(mistral_ext_fetch package version sha256)
  string(TOUPPER "MISTRAL_EXT_${package}_SOURCE" option)
  set(name "${package}-${version}.tar.gz")
  set(${option} "" CACHE FILEPATH "${name} of PyPI, where pip cannot fetch it")
  set(folder "${CMAKE_BINARY_DIR}/${package}")
  if(EXISTS "${folder}/${package}-${version}")
    return()
  endif()
  set(archive "${${option}}")
  if(NOT archive)
    set(archive "${folder}/${name}")
    if(Python_EXECUTABLE)
      message(STATUS "Fetching the sources of ${package} ${version} from PyPI")
      # Inside an isolated build, variables name that build's backend, and pip would take it for the package's.
      execute_process(
        COMMAND "${CMAKE_COMMAND}" -E env --unset=_PYPROJECT_HOOKS_BUILD_BACKEND --unset=_PYPROJECT_HOOKS_BACKEND_PATH
                --unset=_PYPROJECT_HOOKS_BACKEND_PATH_JSON --unset=PEP517_BUILD_BACKEND --unset=PEP517_BACKEND_PATH
                "${Python_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-deps
                --no-binary "${package}" --dest "${folder}" "${package}==${version}")
    endif()
  endif()
  if(NOT EXISTS "${archive}")
    message(FATAL_ERROR "mistral_ext needs the sources of ${package} ${version}, which could not be fetched from PyPI: "
                        "get them where there is an index of packages (pip download --no-deps --no-binary ${package} "
                        "${package}==${version}) and name the archive with -D${option}=<path>/${name}.")
  endif()
  file(SHA256 "${archive}" found)
  if(NOT found STREQUAL sha256)
    message(FATAL_ERROR "${archive} is not PyPI's ${name}: its SHA-256 must be ${sha256}, and is ${found}.")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${folder}" PATTERNS ${ARGN})
endfunction()
