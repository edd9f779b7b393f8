# Flags every target of ours shares, and sources that are compiled once for each instruction set.

set(mistral_ext_warnings -Wall -Wextra)
if(MISTRAL_EXT_WERROR)
  list(APPEND mistral_ext_warnings -Werror)
endif()

# __FILE__ in an error names the file as a reader knows it, not where it lay on the machine that built.
set(mistral_ext_prefix_maps
    "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=" "-ffile-prefix-map=${TORCH_INSTALL_PREFIX}/include/=")

if(MISTRAL_EXT_SANITIZE STREQUAL "thread")
  set(mistral_ext_sanitizers -fsanitize=thread)
  # A fence in torch's headers, where it counts references to Python's objects, is one it cannot follow.
  list(APPEND mistral_ext_warnings "$<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>")
elseif(MISTRAL_EXT_SANITIZE)
  set(mistral_ext_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
endif()

function(mistral_ext_configure target)
  target_compile_options(${target} PRIVATE ${mistral_ext_warnings} ${mistral_ext_prefix_maps})
  if(MISTRAL_EXT_SANITIZE)
    target_compile_options(${target} PRIVATE ${mistral_ext_sanitizers} -fno-omit-frame-pointer -g1 -O1)
    target_link_options(${target} PUBLIC ${mistral_ext_sanitizers})
  endif()
  if(MISTRAL_EXT_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# mistral_ext_export_only(target map): of the library's symbols, those that the linker script `map` names.
function(mistral_ext_export_only target map)
  set(map "${CMAKE_CURRENT_SOURCE_DIR}/${map}")
  target_link_options(${target} PRIVATE "-Wl,--version-script=${map}")
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${map}")
endfunction()

# The instruction-set levels of kernels/cpu, each with its flags. `plain` is whatever the compiler's default is.
set(mistral_ext_levels plain)
set(mistral_ext_flags_plain "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND mistral_ext_levels avx2 avx512 avx512_bf16)
  set(mistral_ext_flags_avx2 -mavx2 -mfma -mf16c)
  set(mistral_ext_flags_avx512 ${mistral_ext_flags_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
  set(mistral_ext_flags_avx512_bf16 ${mistral_ext_flags_avx512} -mavx512bf16)
endif()

# mistral_ext_add_level_sources(target file...): compiles each file once a level, with
# MISTRAL_EXT_LEVEL set to the level's name, which the file uses as its namespace.
function(mistral_ext_add_level_sources target)
  list(TRANSFORM ARGN PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  foreach(level IN LISTS mistral_ext_levels)
    set(objects ${target}_${level})
    if(NOT TARGET ${objects})
      add_library(${objects} OBJECT)
      mistral_ext_configure(${objects})
      target_include_directories(${objects} PRIVATE "${CMAKE_SOURCE_DIR}/csrc")
      target_compile_definitions(${objects} PRIVATE MISTRAL_EXT_LEVEL=${level})
      target_compile_options(${objects} PRIVATE -fno-math-errno -fno-trapping-math -Wno-psabi ${mistral_ext_flags_${level}})
      # GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for a mistake of ours.
      target_compile_options(${objects} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>")
      if(NOT MISTRAL_EXT_SANITIZE)
        target_compile_options(${objects} PRIVATE -O3)
      endif()
      target_sources(${target} PRIVATE "$<TARGET_OBJECTS:${objects}>")
    endif()
    target_sources(${objects} PRIVATE ${ARGN})
  endforeach()
endfunction()
