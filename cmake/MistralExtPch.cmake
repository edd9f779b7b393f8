# One precompiled header for libmistral_ext's files that include torch: parsing torch is most of what
# compiling them costs. It holds what most of them include, never a header of ours, so editing ours
# rebuilds only what includes it. kernels/ does without: torch has no place there.
# Called when the target has its sources.
function(mistral_ext_precompile target)
  target_precompile_headers(${target} PRIVATE
    <ATen/core/Tensor.h>
    <fmt/format.h>
    <torch/csrc/autograd/custom_function.h>
    <torch/library.h>
    <torch/nn/module.h>
  )
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "/kernels/")
  set_source_files_properties(
    ${sources} TARGET_DIRECTORY ${target} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()
