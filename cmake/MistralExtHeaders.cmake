# The headers of a program that uses the library: those of csrc/mistral_ext that are not of the
# implementation, and version.h, which is written here.
#
# MISTRAL_EXT_INPLACE gives them one folder, mistral_ext/include, as an installation has: version.h,
# and links into csrc/.
set(MISTRAL_EXT_GENERATED_HEADERS "${CMAKE_CURRENT_BINARY_DIR}/include")
if(MISTRAL_EXT_INPLACE)
  set(MISTRAL_EXT_GENERATED_HEADERS "${CMAKE_CURRENT_SOURCE_DIR}/mistral_ext/include")
  file(GLOB floors RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}/csrc/mistral_ext" csrc/mistral_ext/*)
  file(MAKE_DIRECTORY "${MISTRAL_EXT_GENERATED_HEADERS}/mistral_ext")
  foreach(floor IN LISTS floors)
    if(IS_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/csrc/mistral_ext/${floor}" OR floor MATCHES "[.]h$")
      file(CREATE_LINK "../../../csrc/mistral_ext/${floor}"
           "${MISTRAL_EXT_GENERATED_HEADERS}/mistral_ext/${floor}" SYMBOLIC)
    endif()
  endforeach()
endif()
configure_file(cmake/version.h.in "${MISTRAL_EXT_GENERATED_HEADERS}/mistral_ext/version.h" @ONLY)

install(FILES "${MISTRAL_EXT_GENERATED_HEADERS}/mistral_ext/version.h" DESTINATION include/mistral_ext)
# Kernels and the operators' registrations are compiled under flags and macros of their own; the last
# two are for those registrations.
install(
  DIRECTORY csrc/mistral_ext
  DESTINATION include
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN bindings EXCLUDE
  PATTERN kernels EXCLUDE
  PATTERN programs EXCLUDE
  PATTERN ops/cpu EXCLUDE
  PATTERN ops/cuda EXCLUDE
  PATTERN models/cuda EXCLUDE
  PATTERN ops/autograd EXCLUDE
  PATTERN ops/dispatch.h EXCLUDE
  PATTERN ops/rows.h EXCLUDE)
