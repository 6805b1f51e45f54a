#!/usr/bin/env bash
# Checks and measures Baton on a machine with one NVIDIA GPU and its driver, from the bundle of
# deploy/gpu_bundle.sh, without a compiler or a network. It needs bash and python3.
#
#   ./gpu_check.sh --model FILE.gguf [--out DIRECTORY]
#
# Writes report.json and report.txt, and each step's log, to DIRECTORY (gpu_check). A step that
# fails does not stop the others. Exit code 1 where one failed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model="" out=gpu_check
while [ $# -gt 0 ]; do
  case "$1" in
    --model) model=${2:?--model needs a file}; shift 2 ;;
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "gpu_check.sh: unknown argument '$1' (--model, --out)" >&2; exit 2 ;;
  esac
done
[ -f "$model" ] || { echo "gpu_check.sh: --model '$model' is no file" >&2; exit 2; }
mkdir -p "$out"
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
baton=$here/baton
: >"$out/steps.tsv"

# step NAME SECONDS COMMAND...: runs it, at most so long, and notes how it went.
step() {
  local name=$1 limit=$2 begin=$SECONDS status=passed
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status="failed ($?)"
  if [ "$status" = passed ] && grep -q "SKIPPED" "$out/$name.log"; then status="failed (skipped)"; fi
  printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - begin)) >>"$out/steps.tsv"
  printf '%-24s %s, %d s\n' "$name" "$status" $((SECONDS - begin))
}

# The text of a greedy answer: greedy ARGUMENTS...
prompt=$(for i in $(seq 60); do printf 'Line %d of the story. ' "$i"; done)
greedy() {
  "$baton" run -m "$model" -n 32 --temperature 0 --json --prompt "$prompt" "$@" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])'
}

# The GPU's mean negative log likelihood must be the CPU's, within 1%: the GPU rounds activations to
# 11 bits (8 with BF16 weights), the CPU to 8.
likelihood() {
  local text="$out/eval.txt" cpu gpu
  printf '%s\n' "$prompt" >"$text"
  cpu=$("$baton" eval -m "$model" --ppl "$text" --device cpu --json) || return 1
  gpu=$("$baton" eval -m "$model" --ppl "$text" --device cuda --json) || return 1
  printf 'cpu  %s\ncuda %s\n' "$cpu" "$gpu"
  CPU=$cpu GPU=$gpu python3 -c '
import json, os
cpu, gpu = (json.loads(os.environ[name])["mean_nll"] for name in ("CPU", "GPU"))
raise SystemExit(abs(cpu - gpu) > 0.01 * abs(cpu))'
}

# Tokens of cpu and cuda: how many of the answer are the same, which rounding may end early.
tokens() {
  greedy --device cpu >"$out/cpu.txt" && greedy --device cuda >"$out/cuda.txt" || return 1
  greedy --device cuda >"$out/cuda_again.txt" || return 1
  cmp "$out/cuda.txt" "$out/cuda_again.txt" || return 1
  cmp "$out/cpu.txt" "$out/cuda.txt" || echo "cpu and cuda part at the character above"
}

# Prefill and decode as two processes on the one GPU: the answer must be one process's.
cluster() {
  local ready="$out/ready" http
  "$baton" up --model "$model" --device cuda --one-gpu --http 127.0.0.1:0 --grpc 127.0.0.1:0 >"$ready" &
  local pid=$!
  for _ in $(seq 300); do
    grep -q '^ready ' "$ready" && break
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.2
  done
  http=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$ready")
  PROMPT=$prompt python3 - "http://$http/v1" >"$out/cluster.txt" <<'PYTHON'
import json, os, sys, urllib.request
model = json.load(urllib.request.urlopen(sys.argv[1] + "/models"))["data"][0]["id"]
body = {"model": model, "prompt": os.environ["PROMPT"], "max_tokens": 32, "temperature": 0}
request = urllib.request.Request(sys.argv[1] + "/completions", json.dumps(body).encode(),
                                 {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request))["choices"][0]["text"])
PYTHON
  local status=$?
  kill "$pid"
  wait "$pid"
  [ "$status" = 0 ] && greedy --device cuda >"$out/cuda.txt" && cmp "$out/cuda.txt" "$out/cluster.txt"
}

export -f greedy likelihood tokens cluster
export baton model out prompt
step doctor 30 "$baton" doctor
step op_tests 120 "$here/cuda_test"
step engine_tests 60 "$here/cuda_engine_test"
if command -v compute-sanitizer >/dev/null; then
  step sanitizer 120 compute-sanitizer --error-exitcode 9 "$here/cuda_test" \
    --gtest_filter='*RmsNorm*:*SwiGlu*:*KeepsNans*:*LongAttention*'
  step sanitizer_draws 60 compute-sanitizer --error-exitcode 9 "$here/cuda_engine_test" \
    --gtest_filter='*DeviceDraw*'
else
  printf 'sanitizer\tskipped: no compute-sanitizer here\t0\n' >>"$out/steps.tsv"
fi
step likelihood 60 bash -c likelihood
step tokens 60 bash -c tokens
step cluster 90 bash -c cluster
step bench_kernels 90 "$baton" bench kernels --device cuda --json
step bench_engine 60 "$baton" bench engine -m "$model" --device cuda --json --batch 1,32,64
# Of 8 billion parameters; its weights, zeros, need 16 GB of memory here and there.
"$here/zero_model.py" "$out/zero_8b.gguf"
step bench_8b 150 "$baton" bench engine -m "$out/zero_8b.gguf" --device cuda --json --repeat 1 \
  --kv-dtype bf16 --block-tokens 32 --chunk-tokens 4096 --batch 1,32,128 --prompt 1000 --generate 100
rm -f "$out/zero_8b.gguf"

OUT=$out python3 - <<'PYTHON'
import json, os
out = os.environ["OUT"]
def log(name):
    try:
        return open(f"{out}/{name}.log", errors="replace").read()
    except OSError:
        return ""
steps = []
for line in open(f"{out}/steps.tsv"):
    name, status, seconds = line.rstrip("\n").split("\t")
    steps.append({"name": name, "status": status, "seconds": int(seconds)})
def rows_of(name):
    return [json.loads(line) for line in log(name).splitlines() if line.startswith("{")]
rows = {name: rows_of(name) for name in ("bench_kernels", "bench_engine", "bench_8b")}
# Of the 8B model: weights that a step reads, KV of its mean context, and what the GPU copies a second.
WEIGHT_BYTES, KV_BYTES, PARAMETERS = 15.0e9, 131072, 7.5e9
ceilings = {row["unit"]: row["value"] for row in rows["bench_kernels"] if row["name"] == "ceiling"}
for row in rows["bench_8b"]:
    context = row["prompt_tokens"] + row["generated_tokens"] / 2
    step_bytes = WEIGHT_BYTES + row["batch"] * context * KV_BYTES
    if "GB/s" in ceilings:
        row["decode_share_of_copy"] = round(
            step_bytes * row["decode_tokens_per_s"] / row["batch"] / 1e9 / ceilings["GB/s"], 3)
    if "GFLOP/s" in ceilings:
        row["prefill_share_of_mma"] = round(
            2 * PARAMETERS * row["prefill_tokens_per_s"] / 1e9 / ceilings["GFLOP/s"], 3)
json.dump({"steps": steps, "machine": log("doctor").splitlines(), **rows},
          open(f"{out}/report.json", "w"), indent=1)
with open(f"{out}/report.txt", "w") as report:
    for step in steps:
        report.write(f"{step['name']:<16}{step['status']}, {step['seconds']} s\n")
    report.write("\n" + log("doctor") + "\n")
    for row in rows["bench_kernels"]:
        share = "" if row["share"] is None else f"{100 * row['share']:6.1f}%"
        report.write(f"{row['name']:<18}{row['shape']:<32}{row['type']:<12}"
                     f"{row['value']:>12.1f} {row['unit']:<8}{share}\n")
    for row in rows["bench_engine"] + rows["bench_8b"]:
        report.write(json.dumps(row) + "\n")
    for step in steps:
        if not step["status"].startswith(("passed", "skipped")):
            report.write(f"\n--- {step['name']}, the end of its log\n{log(step['name'])[-3000:]}\n")
PYTHON
cat "$out/report.txt"
! grep -qP '\tfailed' "$out/steps.tsv"
