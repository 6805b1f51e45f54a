#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test.
#
#   tests/run.sh           release preset with all tests, then asan over all but the RPC rooms, the
#                          demo model (small models go through the same code) and the simulator's
#                          longest runs, then tsan over
#                          queues, thread pool, handoff and disk cache (all of it takes too long here),
#                          and the CUDA kernels for one architecture, compiled where nvcc is
#   tests/run.sh --quick   the release preset only
#
# The closing lines of every preset's ctest come last, with what failed tests said; the exit code is
# 0 when all passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=false
for argument in "$@"; do
  case "$argument" in
    --quick) quick=true ;;
    -h | --help)
      sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) echo "run.sh: unknown argument '$argument' (--quick)" >&2; exit 2 ;;
  esac
done

started=$SECONDS
step() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - started))"; }

# The Python packages of tests/e2e, pinned, in an environment of their own; made anew when the list
# changes.
make_venv() {
  local stamp=build/venv/requirements.txt
  if cmp -s tests/e2e/requirements.txt "$stamp" && build/venv/bin/python -c '' 2>/dev/null; then
    return 0
  fi
  mkdir -p build
  python3 -m venv --clear build/venv
  build/venv/bin/python -m pip install --disable-pip-version-check --retries 5 --progress-bar off \
    -r tests/e2e/requirements.txt
  cp tests/e2e/requirements.txt "$stamp"
}

# build_preset PRESET [TARGET ...]
build_preset() {
  local preset=$1
  shift
  [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset"
  NINJA_STATUS="[%f/%t, %es] " cmake --build --preset "$preset" -j "$(nproc)" ${1:+--target "$@"}
}

summaries=build/test_summaries.txt
failed=false

# test_preset PRESET [CTEST_ARGUMENT ...]
test_preset() {
  local preset=$1 log=build/$1/ctest.log
  shift
  step "$preset: tests"
  ctest --test-dir "build/$preset" -j 2 --output-on-failure "$@" 2>&1 | tee "$log" || failed=true
  {
    printf '\n-- %s\n' "$preset"
    sed -n '/tests passed,\|^No tests were found/,$p' "$log"
    # What failed tests said themselves: unittest, GoogleTest, sanitizers.
    grep -E -A 3 '^(FAIL|ERROR): |^[A-Za-z.]*(Error|Exception)\b|: Failure$|(ERROR|WARNING): [A-Za-z]*Sanitizer|: runtime error: ' \
      "$log" | head -n 60 || true
  } >>"$summaries"
}

step "packages"
deploy/packages.sh --tests
step "Python packages for tests/e2e"
make_venv
: >"$summaries"

step "release: build"
build_preset release
step "demo model"
build/release/baton pull smollm2-135m
test_preset release

if ! $quick; then
  step "asan: build"
  build_preset asan
  test_preset asan -LE tidy -E '^(engine_test\.(DemoModel|DemoExecutor|Perplexity\.OfTheDemoModel)|simulator_test\.(Regret|Simulation\.(MD1|WhatTheRouter|PlansPredict)))'
  step "tsan: build"
  build_preset tsan common_test kernels_test kv_disk_test kv_transfer_test
  test_preset tsan -R '^(common_test|kv_disk_test|kv_transfer_test|kernels_test\.ThreadPool)'
fi

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if $quick || [ ! -x "$nvcc" ]; then
  step "cuda: the kernels are not compiled (no nvcc, or --quick)"
else
  step "cuda: the kernels, for one architecture"
  [ -f build/cuda/build.ninja ] || cmake --preset cuda -DBATON_CUDA_ARCHITECTURES=90-real
  cmake --build --preset cuda -j "$(nproc)" --target baton_cuda_kernels
fi

step "all presets"
cat "$summaries"
if $failed; then
  printf '\nsome tests failed\n'
  exit 1
fi
printf '\nall tests passed\n'
