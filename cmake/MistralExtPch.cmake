# Precompiled headers, for the files that include torch: parsing torch is most of what compiling them
# costs. They hold torch's headers, never ours, so editing ours rebuilds only what includes it.
# kernels/ does without: torch has no place there.

# mistral_ext_precompile(target header...), called when the target has its sources.
function(mistral_ext_precompile target)
  if(NOT MISTRAL_EXT_PCH)
    return()
  endif()
  target_precompile_headers(${target} PRIVATE ${ARGN})
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "/kernels/")
  if(sources)
    set_source_files_properties(${sources} TARGET_DIRECTORY ${target} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endif()
endfunction()

# mistral_ext_precompile_once(target header...): one precompiled header for all targets of a folder
# that ask for it. Their flags are equal; the first one owns it.
function(mistral_ext_precompile_once target)
  if(NOT MISTRAL_EXT_PCH)
    return()
  endif()
  get_property(owner DIRECTORY PROPERTY mistral_ext_pch_owner)
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE ${ARGN})
    set_property(DIRECTORY PROPERTY mistral_ext_pch_owner ${target})
  endif()
endfunction()
