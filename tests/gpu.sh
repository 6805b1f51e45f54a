#!/usr/bin/env bash
# Builds the cuda preset and runs what needs GPUs: two, of one machine.
#
#   tests/gpu.sh                   the tests over NCCL, its speed beside other ways', and a cluster
#                                  whose answer over NCCL must be the single process's
#   tests/gpu.sh --transport NAME  the last two by another way, on any machine
#   tests/gpu.sh --one             on one GPU: the cuda backend, as deploy/gpu_check.sh does
#
# Exit code 1 where something fails, or cannot run, which it says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

transport=nccl
case "${1:-}" in
  "") ;;
  --transport) transport=${2:?--transport needs a name} ;;
  --one)
    deploy/gpu_bundle.sh
    build/cuda/baton pull smollm2-135m
    exec build/gpu_bundle/gpu_check.sh --model models/SmolLM2-135M-Instruct.Q4_1.gguf --out build/gpu_check
    ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "gpu.sh: unknown argument '$1' (--transport, --one)" >&2; exit 2 ;;
esac
baton=build/cuda/baton
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
fail() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }

cmake --preset cuda
cmake --build --preset cuda -j "$(nproc)" --target baton kv_transfer_test
"$baton" pull smollm2-135m

if [ "$transport" = nccl ]; then
  log=build/cuda/gpu_tests.log
  build/cuda/kv_transfer_test --gtest_filter='NcclTest.*' | tee "$log"
  ! grep -q SKIPPED "$log" || fail "the tests over NCCL were skipped; the reason is above"
fi
"$baton" bench transfer --transport "$transport,shm,ucx" --block-bytes 65536,1048576

# A prompt long enough to be handed over, greedy, by one process and by two.
prompt=$(for i in $(seq 120); do printf 'Line %d of the story. ' "$i"; done)
alone=$("$baton" run -m "$model" -n 24 --temperature 0 --json --prompt "$prompt" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])')
ready=build/cuda/gpu_ready
"$baton" up --model "$model" --transport "$transport" --http 127.0.0.1:0 --grpc 127.0.0.1:0 >"$ready" &
cluster=$!
trap 'kill "$cluster" 2>/dev/null; wait "$cluster" || true' EXIT
until grep -q '^ready ' "$ready"; do
  kill -0 "$cluster" 2>/dev/null || fail "the cluster did not start; the reason is above"
  sleep 0.2
done
http=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' "$ready")
together=$(PROMPT=$prompt python3 - "http://$http/v1/completions" <<'PYTHON'
import json, os, sys, urllib.request
body = {"model": "", "prompt": os.environ["PROMPT"], "max_tokens": 24, "temperature": 0}
models = urllib.request.urlopen(sys.argv[1].replace("completions", "models"))
body["model"] = json.load(models)["data"][0]["id"]
request = urllib.request.Request(sys.argv[1], json.dumps(body).encode(),
                                 {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request))["choices"][0]["text"])
PYTHON
)
[ "$alone" = "$together" ] || fail "one process wrote '$alone', the cluster '$together'"
moved=$(curl -s "http://$http/metrics" | grep "^baton_handoff_bytes_total" || true)
echo "$moved"
grep -q "$transport" <<<"$moved" || fail "no KV moved by $transport"
echo "gpu.sh: passed"
