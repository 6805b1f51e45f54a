#!/usr/bin/env bash
# Builds the cuda preset and makes a bundle of it for deploy/gpu_check.sh: programs, the libraries
# that they need beside the C library, the kernels in them compiled. 64 MiB at most.
#
#   deploy/gpu_bundle.sh [FILE]    writes FILE (build/gpu_bundle.tar.gz)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) echo "gpu_bundle.sh: unknown argument '$1'" >&2; exit 2 ;;
esac
target=${1:-build/gpu_bundle.tar.gz}

cmake --preset cuda
cmake --build --preset cuda -j "$(nproc)" --target baton cuda_test cuda_engine_test
bundle=build/gpu_bundle
rm -rf "$bundle"
mkdir -p "$bundle/lib"
for program in baton cuda_test cuda_engine_test; do
  strip -o "$bundle/$program" "build/cuda/$program"
  # The machine brings the C library, its loader and its threads; all else comes along.
  ldd "build/cuda/$program" | awk '$3 ~ /^\// {print $3}' |
    grep -vE '/(libc|libm|libpthread|libdl|librt|libresolv)\.so|/ld-linux' |
    while read -r library; do cp -nL "$library" "$bundle/lib/"; done
done
cp deploy/gpu_check.sh deploy/zero_model.py "$bundle/"
tar -czf "$target" -C build gpu_bundle
bytes=$(stat -c %s "$target")
echo "$target: $((bytes >> 20)) MiB"
[ "$bytes" -le $((64 << 20)) ] || { echo "gpu_bundle.sh: more than 64 MiB" >&2; exit 1; }
