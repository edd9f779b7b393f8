# mistral_ext_xxhash: the header xxhash.h, the system's, else the one inside the sources of the PyPI
# package xxhash, which pip fetches. Only a header, included by one file: what is built needs none
# of this.
add_library(mistral_ext_xxhash INTERFACE)
find_path(MISTRAL_EXT_XXHASH_INCLUDE xxhash.h NO_CACHE)
# XXH3, and the way it is included here, are stable from 0.8 on.
if(MISTRAL_EXT_XXHASH_INCLUDE)
  file(STRINGS "${MISTRAL_EXT_XXHASH_INCLUDE}/xxhash.h" xxhash_minor REGEX "define XXH_VERSION_MINOR +[0-9]+")
  string(REGEX MATCH "[0-9]+$" xxhash_minor "${xxhash_minor}")
  if(NOT xxhash_minor OR xxhash_minor LESS 8)
    unset(MISTRAL_EXT_XXHASH_INCLUDE)
  endif()
endif()
if(NOT MISTRAL_EXT_XXHASH_INCLUDE)
  mistral_ext_fetch(xxhash 4.1.0 c9b288e4c1f5dae54417bc8a05e6f6daf505783d916b4783f4dd2f2e7d5db486
                    "*/deps/xxhash/xxhash.h")
  set(MISTRAL_EXT_XXHASH_INCLUDE "${CMAKE_BINARY_DIR}/xxhash/xxhash-4.1.0/deps/xxhash")
endif()
target_include_directories(mistral_ext_xxhash INTERFACE "${MISTRAL_EXT_XXHASH_INCLUDE}")
