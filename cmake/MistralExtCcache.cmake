# ccache where there is one. The sloppiness is what ccache asks for with precompiled headers.
find_program(MISTRAL_EXT_CCACHE ccache)
if(MISTRAL_EXT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros;CCACHE_NOHASHDIR=1;CCACHE_BASEDIR=${CMAKE_SOURCE_DIR};${MISTRAL_EXT_CCACHE}")
endif()
