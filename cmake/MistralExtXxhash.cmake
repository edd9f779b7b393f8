# mistral_ext_xxhash: the header xxhash.h, the system's, else the one inside the sources of the PyPI
# package xxhash, which pip fetches. It is copied into the build folder. Only a header, included by one
# file: what is built needs none of this.
add_library(mistral_ext_xxhash INTERFACE)
set(xxhash_folder "${CMAKE_BINARY_DIR}/xxhash")
find_path(MISTRAL_EXT_XXHASH_INCLUDE xxhash.h HINTS "${xxhash_folder}" NO_CACHE)
# XXH3, and the way it is included here, are stable from 0.8 on.
if(MISTRAL_EXT_XXHASH_INCLUDE)
  file(STRINGS "${MISTRAL_EXT_XXHASH_INCLUDE}/xxhash.h" xxhash_minor REGEX "define XXH_VERSION_MINOR +[0-9]+")
  string(REGEX MATCH "[0-9]+$" xxhash_minor "${xxhash_minor}")
  if(NOT xxhash_minor OR xxhash_minor LESS 8)
    unset(MISTRAL_EXT_XXHASH_INCLUDE)
  endif()
endif()
if(NOT MISTRAL_EXT_XXHASH_INCLUDE)
  mistral_ext_fetch(xxhash 4.1.0 "${xxhash_folder}")
  file(GLOB xxhash_sources "${xxhash_folder}/xxhash-*.tar.gz")
  if(xxhash_sources)
    file(ARCHIVE_EXTRACT INPUT "${xxhash_sources}" DESTINATION "${xxhash_folder}" PATTERNS "*/deps/xxhash/xxhash.h")
    file(GLOB xxhash_header "${xxhash_folder}/*/deps/xxhash/xxhash.h")
    if(xxhash_header)
      file(COPY "${xxhash_header}" DESTINATION "${xxhash_folder}")
      set(MISTRAL_EXT_XXHASH_INCLUDE "${xxhash_folder}")
    endif()
  endif()
endif()
if(NOT MISTRAL_EXT_XXHASH_INCLUDE)
  message(FATAL_ERROR "mistral_ext needs the header xxhash.h (0.8 or later), which is not on this system and could "
                      "not be fetched from PyPI: install it (Debian, Ubuntu: apt-get install libxxhash-dev; Fedora: "
                      "dnf install xxhash-devel).")
endif()
target_include_directories(mistral_ext_xxhash INTERFACE "${MISTRAL_EXT_XXHASH_INCLUDE}")
