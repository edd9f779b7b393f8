# mistral_ext_pcre2: PCRE2's 8-bit library with Unicode and JIT, static and hidden, from the sources in
# the PyPI package pcre2, fetched by pip into the build folder. The system's library is not taken:
# its version decides which characters are letters, and a wheel would need it.
mistral_ext_fetch(pcre2 0.7.1 69ced4288892e2571dd792e7bfb12371bb059f226204bf03300664177c508b64
                  "*/LICENSE*" "*/LICENCE*" "*.c" "*.h" "*.generic" "*.dist")
set(pcre2_folder "${CMAKE_BINARY_DIR}/pcre2")
set(pcre2_sources "${pcre2_folder}/pcre2-0.7.1/src/libpcre2")

enable_language(C)
find_package(Threads REQUIRED)
# What PCRE2's own instructions for other build systems ask for. Its files are compiled where they are,
# with the prepared forms of three of them beside.
set(pcre2_prepared "${pcre2_folder}/prepared")
configure_file("${pcre2_sources}/src/config.h.generic" "${pcre2_prepared}/config.h" COPYONLY)
configure_file("${pcre2_sources}/src/pcre2.h.generic" "${pcre2_prepared}/pcre2.h" COPYONLY)
configure_file("${pcre2_sources}/src/pcre2_chartables.c.dist" "${pcre2_prepared}/pcre2_chartables.c" COPYONLY)
set(pcre2_files
    auto_possess chkdint compile compile_cgroup compile_class config context convert dfa_match error extuni
    find_bracket jit_compile maketables match match_data match_next newline ord2utf pattern_info script_run
    serialize string_utils study substitute substring tables ucd valid_utf xclass)
list(TRANSFORM pcre2_files PREPEND "${pcre2_sources}/src/pcre2_")
list(TRANSFORM pcre2_files APPEND ".c")
add_library(mistral_ext_pcre2 STATIC ${pcre2_files} "${pcre2_prepared}/pcre2_chartables.c")
# SYSTEM PUBLIC: its headers are not ours to warn about.
target_include_directories(mistral_ext_pcre2 SYSTEM PUBLIC "${pcre2_prepared}" PRIVATE "${pcre2_sources}/src")
target_compile_definitions(
  mistral_ext_pcre2 PUBLIC PCRE2_CODE_UNIT_WIDTH=8 PCRE2_STATIC
  PRIVATE HAVE_CONFIG_H SUPPORT_PCRE2_8 SUPPORT_UNICODE SUPPORT_JIT NEVER_BACKSLASH_C)
target_compile_options(mistral_ext_pcre2 PRIVATE ${mistral_ext_prefix_maps} -w)
target_link_libraries(mistral_ext_pcre2 PRIVATE Threads::Threads)
set_target_properties(mistral_ext_pcre2 PROPERTIES C_VISIBILITY_PRESET hidden)
