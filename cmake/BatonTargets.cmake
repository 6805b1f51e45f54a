# One small function per kind of target. Every target states its own dependencies and flags.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

# Several sources in one translation unit build in half the time. Not in the dev preset, where one
# source at a time changes.
option(BATON_UNITY "Compile several sources of a library or test program as one" OFF)

find_program(BATON_CCACHE ccache)
if(BATON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BATON_CCACHE})
endif()

# GCC 12 warns falsely about parts of optional and string that it lost sight of when inlining, and
# about members that designated initialisers leave to their defaults.
add_library(baton_flags INTERFACE)
target_include_directories(baton_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(baton_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror
                                             -Wno-missing-field-initializers -Wno-maybe-uninitialized
                                             -fno-math-errno)
if(BATON_SANITIZE)
  target_compile_options(baton_flags INTERFACE -fsanitize=${BATON_SANITIZE} -fno-omit-frame-pointer
                                               -fno-sanitize-recover=all)
  target_link_options(baton_flags INTERFACE -fsanitize=${BATON_SANITIZE})
endif()

# baton_library(NAME SRCS a.cc b.cc [DEPS lib ...]): static library baton_NAME.
function(baton_library NAME)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(baton_${NAME} STATIC ${ARG_SRCS})
  target_link_libraries(baton_${NAME} PUBLIC baton_flags ${ARG_DEPS})
  set_target_properties(baton_${NAME} PROPERTIES UNITY_BUILD ${BATON_UNITY})
endfunction()

# baton_test(NAME SRCS a_test.cc [DEPS lib ...] [LABELS l ...] [TIMEOUT seconds]): a GoogleTest
# program with each of its tests registered. Tests run in the source root, so that
# tests/golden/... is a valid path.
function(baton_test NAME)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${NAME} ${ARG_SRCS})
  target_link_libraries(${NAME} PRIVATE baton_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${NAME} PROPERTIES UNITY_BUILD ${BATON_UNITY})
  if(BATON_SANITIZE)
    target_compile_options(${NAME} PRIVATE -O0)  # builds in half the time; what it tests has -O1
  endif()
  set(properties TIMEOUT ${ARG_TIMEOUT})
  if(ARG_LABELS)
    list(APPEND properties LABELS "${ARG_LABELS}")
  endif()
  if(BATON_SANITIZE MATCHES thread)
    set(suppressions ${PROJECT_SOURCE_DIR}/tests/tsan_suppressions.txt)
    list(APPEND properties ENVIRONMENT "TSAN_OPTIONS=suppressions=${suppressions}")
  endif()
  gtest_discover_tests(${NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} DISCOVERY_MODE PRE_TEST
                       TEST_PREFIX ${NAME}. PROPERTIES ${properties})
endfunction()
