# mistral_ext_sentencepiece: the part of SentencePiece that encodes by byte pairs, with the protobuf-lite
# and the strings of abseil that lie beside it; static and hidden, so that a process that has another
# copy of any of them keeps it. From the sources in the PyPI package sentencepiece, fetched by pip into
# the build folder. 0.2.1 is the last release whose sources need nothing else.
mistral_ext_fetch(
  sentencepiece 0.2.1 8138cec27c2f2282f4a34d9a016e3374cd40e5c6e9cb335063db66a0a3b71fad
  "*/sentencepiece/src/*" "*/sentencepiece/third_party/*" "*/sentencepiece/VERSION.txt")
set(sentencepiece_folder "${CMAKE_BINARY_DIR}/sentencepiece")
set(sentencepiece_root "${sentencepiece_folder}/sentencepiece-0.2.1/sentencepiece")

find_package(Threads REQUIRED)
file(GENERATE OUTPUT "${sentencepiece_folder}/prepared/config.h"
     CONTENT "#define VERSION \"0.2.1\"\n#define PACKAGE \"sentencepiece\"\n#define PACKAGE_STRING \"sentencepiece 0.2.1\"\n#define INSTALL_DATADIR \"\"\n")
set(sentencepiece_files
    src/bpe_model src/builtin_pb/sentencepiece_model.pb src/error src/model_interface src/normalizer src/util
    third_party/absl/flags/flag)
foreach(file IN ITEMS arena arenastring bytestream coded_stream common extension_set generated_enum_util
                      generated_message_table_driven_lite generated_message_util implicit_weak_message int128
                      message_lite parse_context repeated_field status statusor stringpiece stringprintf
                      structurally_valid strutil time wire_format_lite zero_copy_stream zero_copy_stream_impl
                      zero_copy_stream_impl_lite)
  list(APPEND sentencepiece_files "third_party/protobuf-lite/${file}")
endforeach()
list(TRANSFORM sentencepiece_files PREPEND "${sentencepiece_root}/")
list(TRANSFORM sentencepiece_files APPEND ".cc")
add_library(mistral_ext_sentencepiece STATIC ${sentencepiece_files})
# SYSTEM PUBLIC: its headers are not ours to warn about.
target_include_directories(
  mistral_ext_sentencepiece SYSTEM
  PUBLIC "${sentencepiece_root}/src" "${sentencepiece_root}/src/builtin_pb" "${sentencepiece_root}"
         "${sentencepiece_root}/third_party" "${sentencepiece_root}/third_party/protobuf-lite"
         "${sentencepiece_folder}/prepared")
target_compile_definitions(mistral_ext_sentencepiece PUBLIC HAVE_PTHREAD=1 _USE_INTERNAL_STRING_VIEW)
target_compile_options(mistral_ext_sentencepiece PRIVATE ${mistral_ext_prefix_maps} -w)
if(MISTRAL_EXT_SANITIZE)
  list(GET mistral_ext_sanitizers 0 sentencepiece_sanitizers)
  string(REPLACE ",undefined" "" sentencepiece_sanitizers "${sentencepiece_sanitizers}")
  target_compile_options(mistral_ext_sentencepiece PRIVATE ${sentencepiece_sanitizers} -fno-omit-frame-pointer -g1 -O1)
endif()
target_link_libraries(mistral_ext_sentencepiece PUBLIC Threads::Threads)
set_target_properties(mistral_ext_sentencepiece PROPERTIES CXX_STANDARD 17 CXX_VISIBILITY_PRESET hidden)
