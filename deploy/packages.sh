#!/usr/bin/env bash
# Installs the Debian 12 packages that Baton is built with. Only what is missing is installed, so a
# second run needs neither network nor root.
#
#   deploy/packages.sh           what the build needs
#   deploy/packages.sh --tests   and what the tests need beside it
#   deploy/packages.sh --list    prints the names, installs nothing (may follow --tests)
set -euo pipefail

build_packages=(
  # Tools. curl and unzip help people look at the results; pip brings the demo model.
  g++ cmake ninja-build pkg-config ccache git ca-certificates curl unzip python3 python3-pip
  # Everywhere: status, formatting, logging, hashes, checksums.
  libabsl-dev libfmt-dev libspdlog-dev libssl-dev libxxhash-dev
  # Pre-tokenizer patterns.
  libpcre2-dev
  # KV handoff.
  libucx-dev
  # Router, workers and command line.
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler
  libboost1.81-dev libboost-json1.81-dev libboost-url1.81-dev
  prometheus-cpp-dev libcli11-dev libyaml-cpp-dev
  # The presets build the tests too.
  libgtest-dev libgmock-dev
)
# iproute2 and nftables make and tear the networks of tests/e2e/network_faults_test.py, openssl the
# certificates of tests/e2e/security_test.py; etcd, HAProxy and nginx are run by tests/discovery and
# tests/e2e/availability_test.py, on free ports: the services that Debian starts are not needed.
# prometheus has promtool, which tests/e2e/observability_test.py checks deploy/prometheus with.
test_packages=(python3-venv iproute2 nftables openssl etcd-server etcd-client haproxy nginx prometheus)

fail() {
  echo "packages.sh: $*" >&2
  exit 1
}

wanted=("${build_packages[@]}")
list_only=false
for argument in "$@"; do
  case "$argument" in
    --tests) wanted+=("${test_packages[@]}") ;;
    --list) list_only=true ;;
    -h | --help)
      sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) echo "packages.sh: unknown argument '$argument' (--tests, --list)" >&2; exit 2 ;;
  esac
done
if $list_only; then
  printf '%s\n' "${wanted[@]}"
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  fail "this is not a Debian system (no apt-get). Install what these Debian packages hold, then" \
       "configure with 'cmake --preset release': ${wanted[*]}"
fi

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "all ${#wanted[@]} packages are installed"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    fail "neither root nor sudo; run as root: apt-get install --no-install-recommends ${missing[*]}"
  as_root=(sudo)
fi

# Three tries each: mirrors and networks have bad moments. Waits for another apt to finish.
apt() {
  local try
  for try in 1 2 3; do
    if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
         -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 "$@"; then
      return 0
    fi
    [ "$try" = 3 ] || { echo "packages.sh: 'apt-get $1' failed, trying again" >&2; sleep $((try * 3)); }
  done
  return 1
}

echo "installing ${#missing[@]} of ${#wanted[@]} packages: ${missing[*]}"
apt update || fail "apt-get update failed three times; is there a network?"
for package in "${missing[@]}"; do
  apt-cache show "$package" >/dev/null 2>&1 ||
    fail "this system's package sources have no '$package'; Baton is built with Debian 12 (bookworm)"
done
apt install --no-install-recommends "${missing[@]}" ||
  fail "apt-get install failed three times; its messages are above"
