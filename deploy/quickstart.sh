#!/usr/bin/env bash
# From a bare Debian 12 to a running cluster with the demo model: installs packages, builds, gets
# the model, starts a router, a prefill worker and a decode worker as processes of their own, asks
# one question and shows what happened. Stays up until Ctrl-C.
#
#   deploy/quickstart.sh [--once] [--question TEXT] [--http HOST:PORT] [--grpc HOST:PORT]
#
#   --once            end after the answer; the exit code tells whether all went well
#   --question TEXT   what to ask
#   --http HOST:PORT  where the OpenAI API listens (127.0.0.1:8000; a bare PORT will do)
#   --grpc HOST:PORT  where gRPC listens (127.0.0.1:8001)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
baton=build/release/baton
name=smollm2-135m
model=models/SmolLM2-135M-Instruct.Q4_1.gguf

question="What is photosynthesis?"
http=127.0.0.1:8000
grpc=127.0.0.1:8001
once=false

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
  printf '\nquickstart.sh: %s\n' "$*" >&2
  exit 1
}
usage_error() {
  printf 'quickstart.sh: %s\n' "$*" >&2
  exit 2
}
address() { case "$1" in *:*) printf %s "$1" ;; *) printf %s "127.0.0.1:$1" ;; esac; }

while [ $# -gt 0 ]; do
  case "$1" in
    --once) once=true ;;
    --question | --http | --grpc)
      [ $# -ge 2 ] || usage_error "$1 needs a value"
      case "$1" in
        --question) question=$2 ;;
        --http) http=$(address "$2") ;;
        --grpc) grpc=$(address "$2") ;;
      esac
      shift
      ;;
    -h | --help)
      sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) usage_error "unknown argument '$1' (--once, --question, --http, --grpc; --help tells more)" ;;
  esac
  shift
done

# Before the long steps: whoever listens on a port would only be found minutes later.
check_port_free() {
  local host=${2%:*} port=${2##*:}
  [ "$port" != 0 ] || return 0
  if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
    fail "$2 is taken: something listens there already. Choose another with $1 HOST:PORT."
  fi
}
check_port_free --http "$http"
check_port_free --grpc "$grpc"

started=$SECONDS
cd "$root"

step "1/5 packages"
deploy/packages.sh || fail "the packages are not complete; the reason is above"

step "2/5 build"
if [ ! -f build/release/build.ninja ]; then
  cmake --preset release || fail "cmake could not configure; its messages are above"
fi
NINJA_STATUS="[%f/%t, %es] " cmake --build --preset release --target baton -j "$(nproc)" ||
  fail "the build failed; its messages are above"

step "3/5 demo model (SmolLM2-135M-Instruct, Q4_1, 98 MB)"
"$baton" pull "$name" || fail "the demo model could not be had; the reason is above"

step "4/5 cluster: a router, a prefill worker, a decode worker"
mkdir -p build/quickstart
log=build/quickstart/cluster.log
ready=build/quickstart/ready
: >"$log"
: >"$ready"
# A process group of its own (set -m): Ctrl-C reaches this script alone, which then drains.
set -m
"$baton" up --model "$model" --served-model-name "$name" --prefill 1 --decode 1 \
  --http "$http" --grpc "$grpc" >"$ready" 2>"$log" &
cluster=$!
set +m
tail -n +1 -f "$log" --pid="$cluster" 2>/dev/null &
follow=$!

# Drains the cluster, once; its exit code is the result.
stop_cluster() {
  local pid=$cluster code=0
  [ -n "$pid" ] || return 0
  cluster=
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || code=$?
  return "$code"
}
stop_follow() {
  [ -n "$follow" ] || return 0
  kill "$follow" 2>/dev/null || true
  wait "$follow" 2>/dev/null || true
  follow=
}
trap 'stop_follow; stop_cluster || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

deadline=$((SECONDS + 120))
until grep -q '^ready ' "$ready"; do
  kill -0 "$cluster" 2>/dev/null || { sleep 0.3; fail "the cluster ended before it was ready; see above"; }
  [ $SECONDS -lt $deadline ] || fail "the cluster was not ready after 120 s; its log is $log"
  sleep 0.1
done
sleep 0.2  # lets the last log lines through
stop_follow
line=$(grep -m1 '^ready ' "$ready")
say "$line"
http=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' <<<"$line")
grpc=$(sed -n 's/.* grpc=\([^ ]*\).*/\1/p' <<<"$line")

step "5/5 a question"
say "> $question"
"$baton" chat --url "http://$http" --stats --max-tokens 256 "$question" ||
  fail "the question got no answer; the cluster's log is $log"
say ""
say "$((SECONDS - started)) s from the start of this script."

if $once; then
  stop_cluster || fail "the cluster did not end cleanly; its log is $log"
  exit 0
fi

cat <<TEXT

The cluster stays up; its log is $log. Talk to it:

  build/release/baton chat --url http://$http

  curl -N http://$http/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "$name", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'

  from openai import OpenAI  # pip install openai
  client = OpenAI(base_url="http://$http/v1", api_key="none")
  print(client.chat.completions.create(
      model="$name", messages=[{"role": "user", "content": "Hello!"}]).choices[0].message.content)

  gRPC: $grpc, service baton.v1.Baton (proto/baton/v1/baton.proto; reflection is on)

Ctrl-C drains and ends it.
TEXT

trap 'say ""; say "draining"; interrupted=true' INT TERM HUP
interrupted=false
code=0
wait "$cluster" || code=$?
if $interrupted; then
  code=0
  stop_cluster || code=$?
  [ $code -eq 0 ] || fail "the cluster did not end cleanly (exit code $code); its log is $log"
  exit 0
fi
cluster=
fail "the cluster ended by itself with exit code $code; its log is $log"
