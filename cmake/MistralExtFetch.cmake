# mistral_ext_fetch(package version folder): the sources of a PyPI package, as <package>-<version>.tar.gz in
# the folder, fetched by this Python's pip. Where it cannot, there is no file.
function(mistral_ext_fetch package version folder)
  if(NOT Python_EXECUTABLE)
    return()
  endif()
  message(STATUS "Fetching the sources of ${package} ${version} from PyPI")
  # Inside an isolated build, variables name that build's backend, and pip would take it for the package's.
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env --unset=_PYPROJECT_HOOKS_BUILD_BACKEND --unset=_PYPROJECT_HOOKS_BACKEND_PATH
            --unset=_PYPROJECT_HOOKS_BACKEND_PATH_JSON --unset=PEP517_BUILD_BACKEND --unset=PEP517_BACKEND_PATH
            "${Python_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-deps
            --no-binary "${package}" --dest "${folder}" "${package}==${version}")
endfunction()
