# Flags of every target, and the two kinds of library: with the compiler's LLVM, and without.

find_program(CCACHE ccache)
if(CCACHE)
  # Paths relative to the checkout, so that checkouts share what they compiled.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
endif()

add_library(helix_flags INTERFACE)
target_include_directories(helix_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include ${CMAKE_BINARY_DIR}
                                                 ${CMAKE_BINARY_DIR}/include)
target_compile_options(helix_flags INTERFACE -Wall -Wextra -Werror -Wno-unused-parameter)
if(HELIX_SANITIZE)
  target_compile_options(helix_flags INTERFACE -fsanitize=${HELIX_SANITIZE} -fno-sanitize-recover=all
                                               -fno-omit-frame-pointer)
  target_link_options(helix_flags INTERFACE -fsanitize=${HELIX_SANITIZE})
endif()

# helix_library(NAME SOURCES... [LINK ...]): a static library that knows no LLVM.
function(helix_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC helix_flags ${ARG_LINK})
endfunction()

# helix_tool(NAME SOURCES... [LINK ...]): an executable that knows no LLVM.
function(helix_tool name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE helix_flags ${ARG_LINK})
endfunction()
