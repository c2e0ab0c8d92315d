#!/usr/bin/env bash
# Everything that is to be shown on a GPU, from a built tree, in one go:
#
#   cargo build --release && cargo test --release --no-run --test ops --test parity --test pjrt
#   tools/gpu_check.sh --cifar PATH [--out DIR] [--python PYTHON]
#
#   1  tests of the runtime, the ops and parity
#   2  the train step of ViT-S/16, B/16 and R50 beside equivalent JAX and PyTorch steps
#   3  MoCo v3, ViT-Ti/4 on CIFAR-10 for as many epochs as fit, kNN and linear probe
#   4  a batch of 4096 pictures of ViT-B/16 on one card, by `accumulate`
#   5  a run that is killed and resumed: the same bits as an unbroken one
#
# Each part takes at most 8 minutes (PART_SECONDS). What came of it stands in DIR/summary.txt, what it
# said in DIR/N-*.log. PYTHON has JAX with CUDA and PyTorch; without them those rows are left out.
# --parts "1 5" runs some. --device cpu tries the script itself, with tiny sizes, where no GPU is.
set -uo pipefail
cd "$(dirname "$0")/.."

out=runs/gpu_check python=python3 cifar="" device=gpu parts="1 2 3 4 5"
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 ;;
    --python) python=$2 ;;
    --cifar) cifar=$2 ;;
    --device) device=$2 ;;
    --parts) parts=$2 ;;
    *) echo "unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
  shift 2 || { echo "the last option lacks its value" >&2; exit 2; }
done

seconds=${PART_SECONDS:-480}
tool=${XLA_MOCO:-target/release/xla-moco}
[ -x "$tool" ] || { echo "no $tool: cargo build --release" >&2; exit 2; }
[ -n "$cifar" ] || [[ " $parts " != *" 3 "* ]] || { echo "part 3 needs --cifar PATH (xla-moco data get cifar10)" >&2; exit 2; }
mkdir -p "$out"
summary=$out/summary.txt
failed=0
: > "$summary"

say() { echo "$*" | tee -a "$summary"; }
# field JSON-FILE KEY...: a value, or ? where it is not there.
field() {
  "$python" -c 'import json, sys
try:
    value = json.load(open(sys.argv[1]))
    for key in sys.argv[2:]:
        value = value[key]
    print(f"{value:.4g}" if isinstance(value, float) else value)
except Exception:
    print("?")' "$@"
}
# within LOG COMMAND...: runs it for as long as the part has left.
within() {
  local log=$1 left=$((deadline - SECONDS))
  shift
  [ "$left" -gt 0 ] || { echo "no time is left in this part" >> "$log"; return 124; }
  timeout --kill-after=20 "$left" "$@" >> "$log" 2>&1
}
# json FILE LOG COMMAND...: the same, stdout into FILE.
json() {
  local file=$1 log=$2 left=$((deadline - SECONDS))
  shift 2
  [ "$left" -gt 0 ] || { echo "no time is left in this part" >> "$log"; return 124; }
  timeout --kill-after=20 "$left" "$@" > "$file" 2>> "$log"
}
# outcome NAME STATUS LOG
outcome() {
  case $2 in
    0) say "   $1: ok" ;;
    124 | 137) failed=1; say "   $1: OUT OF TIME (see $3)" ;;
    *) failed=1; say "   $1: FAILED, exit code $2 (see $3)" ;;
  esac
}

say "xla-moco on $device, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2> /dev/null || echo 'no git')"
if [ "$device" = gpu ]; then
  command -v nvidia-smi > /dev/null && say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -1)"
  if ! "$tool" plugins check gpu > "$out/0-plugin.log" 2>&1; then
    say "the plugin does not run here:"
    say "$(tail -12 "$out/0-plugin.log")"
    exit 1
  fi
fi

part_1() {
  local log=$out/1-tests.log test
  : > "$log"
  for test in pjrt ops parity; do
    if [ "$device" = gpu ]; then
      XLA_MOCO_TEST_PJRT=gpu within "$log" cargo test --release --test "$test" -- --test-threads 4
    else
      XLA_MOCO_TEST_PJRT=cpu within "$log" cargo test --release --test "$test" -- add
    fi
    outcome "tests/$test" $? "$log"
  done
  grep -E '^test result|^test .* FAILED' "$log" | sed 's/^/      /' | tee -a "$summary"
}

# ours NAME CONFIG SETTINGS...
ours() {
  local name=$1 config=$2 file=$out/2-ours-$1.json log=$out/2-steps.log
  shift 2
  json "$file" "$log" "$tool" bench --config "$config" --pjrt "$device" --core --data synthetic --json "${counts[@]}" "$@"
  outcome "ours, $name" $? "$log"
  say "      $(field "$file" without_input images_per_second) images/s, $(field "$file" without_input step_seconds median) s a step, MFU $(field "$file" without_input mfu), $(field "$file" lowering)"
}
# theirs NAME SCRIPT...
theirs() {
  local name=$1 file=$out/2-$1.json log=$out/2-steps.log needs=torch
  shift
  case $name in jax_*) needs=jax ;; esac
  if ! "$python" -c "import $needs" 2> /dev/null; then
    say "   $name: left out, $python has no $needs"
    return
  fi
  json "$file" "$log" "$python" "$@"
  outcome "$name" $? "$log"
  say "      $(field "$file" images_per_second) images/s, $(field "$file" median_ms) ms a step"
}
part_2() {
  local log=$out/2-steps.log size batch
  : > "$log"
  if [ "$device" = gpu ]; then
    counts=(--steps 30 --warmup 5)
    # B/16 first, for which there are targets. Compilations are kept: where time runs out before S/16
    # and R50, --parts 2 once more goes on from them.
    for size in b16 s16; do
      batch=256
      ours "vit_$size" "configs/paper/moco_v3_vit_${size}_300ep.json" --set batch=$batch --set gpu.memory_fraction=0.9
      ours "vit_${size}_fused" "configs/paper/moco_v3_vit_${size}_300ep.json" --set batch=$batch --set gpu.memory_fraction=0.9 \
        --set model.attention=fused
      theirs "jax_vit_$size" tools/bench_jax.py --preset "vit_$size" --batch $batch --compute bfloat16 --device gpu --time 30
      theirs "torch_eager_vit_$size" tools/bench_torch.py --preset "vit_$size" --batch $batch --time 30
      theirs "torch_compile_vit_$size" tools/bench_torch.py --preset "vit_$size" --batch $batch --compile --time 30
    done
    ours r50 configs/paper/moco_v3_r50_300ep.json --set batch=256 --set gpu.memory_fraction=0.9
    theirs torch_eager_r50 tools/bench_torch.py --preset r50 --batch 256 --time 30
    theirs torch_compile_r50 tools/bench_torch.py --preset r50 --batch 256 --compile --time 30
  else
    counts=(--steps 2 --warmup 1)
    ours vit_micro configs/quickstart.json --set batch=16
    theirs jax_vit_micro tools/bench_jax.py --preset vit_micro --batch 16 --time 2
    theirs torch_eager_vit_micro tools/bench_torch.py --preset vit_micro --batch 16 --time 2 --warmup 1 --device cpu
  fi
  "$python" - "$out" << 'EOF' | tee -a "$summary"
import json, pathlib, sys

def rate(name):
    try:
        found = json.loads((pathlib.Path(sys.argv[1]) / f"2-{name}.json").read_text())
        return found.get("without_input", found)["images_per_second"]
    except Exception:
        return None

for model in ("vit_b16", "vit_b16_fused", "vit_s16", "vit_s16_fused", "r50", "vit_micro"):
    mine = rate(f"ours-{model}")
    for other in ("jax", "torch_eager", "torch_compile"):
        theirs = rate(f"{other}_{model.removesuffix('_fused')}")
        if mine and theirs:
            print(f"      {model}: {mine / theirs:.2f} times {other}")
EOF
}

part_3() {
  local log=$out/3-cifar.log config=configs/cifar10/moco_v3_vit_tiny_patch4.json run=$out/cifar
  local train_seconds epochs size=()
  : > "$log"
  if [ "$device" = cpu ]; then
    size=(--set model.blocks=1 --set model.dim=32 --set model.heads=2 --set model.patch=16 --set batch=64
      --set eval.bank_limit=256 --set eval.query_limit=128)
  fi
  json "$out/3-speed.json" "$log" "$tool" bench --config "$config" --data "$cifar" --pjrt "$device" --steps 10 --warmup 3 --json "${size[@]}"
  outcome "speed" $? "$log"
  # As many epochs as fit into what is left, for whose end the schedule is made.
  train_seconds=$(((deadline - SECONDS) * 7 / 10))
  epochs=$("$python" -c 'import json, sys
speed = json.load(open(sys.argv[1]))["with_input"]["images_per_second"]
print(max(1, int(speed * float(sys.argv[2]) / 50_000)))' "$out/3-speed.json" "$train_seconds" 2>> "$log") || { say "   no speed, so no run"; return; }
  [ "$device" = gpu ] || epochs=0.02
  say "   $(field "$out/3-speed.json" with_input images_per_second) images/s: $epochs epochs"
  rm -rf "$run"
  within "$log" "$tool" train --config "$config" --data "$cifar" --pjrt "$device" --out "$run" "${size[@]}" \
    --set "schedule.epochs=$epochs" --set "schedule.warmup_epochs=$("$python" -c "print($epochs / 20)")" --set eval.every_epochs=null \
    --set eval.every_steps="$("$python" -c "print(max(1, round($epochs * 50_000 / 1024 / 8)))")"
  outcome "train" $? "$log"
  grep -ho 'held-out [^(]* after step [^(]*' "$run/events.jsonl" 2> /dev/null | tail -20 | sed 's/^/      /' | tee -a "$summary"
  json "$out/3-knn.json" "$log" "$tool" knn --checkpoint "$run" --pjrt "$device" --json
  outcome "knn" $? "$log"
  say "      kNN $(field "$out/3-knn.json" top1) %"
  json "$out/3-probe.json" "$log" "$tool" probe --fast --checkpoint "$run" --pjrt "$device" --json
  outcome "probe" $? "$log"
  say "      probe on fixed features $(field "$out/3-probe.json" top1) %"
}

part_4() {
  local log=$out/4-accumulate.log size=(--set batch=4096 --set accumulate=32 --set gpu.memory_fraction=0.92)
  local config=configs/paper/moco_v3_vit_b16_300ep.json
  : > "$log"
  if [ "$device" = cpu ]; then
    config=configs/quickstart.json size=(--set batch=64 --set accumulate=4 --set model.blocks=1)
  fi
  json "$out/4-accumulate.json" "$log" "$tool" bench --config "$config" --pjrt "$device" --core --data synthetic --json --steps 5 --warmup 1 "${size[@]}"
  outcome "the exact batch by accumulate" $? "$log"
  say "      batch $(field "$out/4-accumulate.json" batch) in $(field "$out/4-accumulate.json" accumulate) chunks: $(field "$out/4-accumulate.json" without_input images_per_second) images/s, $(field "$out/4-accumulate.json" peak_memory_bytes) bytes, loss $(field "$out/4-accumulate.json" without_input last_loss)"
}

part_5() {
  local log=$out/5-resume.log process kept=()
  local common=(--config configs/quickstart.json --pjrt "$device" --steps 400 --set deterministic=true
    --set checkpoint.every_steps=5 --set eval.at_start=false --set eval.bank_limit=256 --set eval.query_limit=128)
  : > "$log"
  [ "$device" = gpu ] && common+=(--set model.compute_dtype=bf16)
  rm -rf "$out/unbroken" "$out/killed"
  within "$log" "$tool" train "${common[@]}" --out "$out/unbroken"
  outcome "unbroken" $? "$log"
  "$tool" train "${common[@]}" --out "$out/killed" >> "$log" 2>&1 &
  process=$!
  # Killed, not asked to stop, once it has saved twice.
  while kill -0 "$process" 2> /dev/null && [ "$SECONDS" -lt "$deadline" ]; do
    kept=("$out"/killed/checkpoints/step-*)
    if [ "${#kept[@]}" -ge 2 ]; then
      kill -9 "$process"
      break
    fi
    sleep 0.05
  done
  wait "$process" 2> /dev/null
  say "   killed at $(wc -l < "$out/killed/metrics.jsonl" 2> /dev/null || echo '?') of 400 steps"
  if [ -e "$out/killed/checkpoints/step-00000400" ]; then
    failed=1
    say "   it was done before it could be killed: nothing was shown"
  fi
  within "$log" "$tool" train "${common[@]}" --out "$out/killed"
  outcome "resumed" $? "$log"
  cmp "$out"/{unbroken,killed}/checkpoints/step-00000400/state.safetensors >> "$log" 2>&1
  outcome "the same bits" $? "$log"
}

names=("" "tests" "steps beside JAX and PyTorch" "CIFAR-10" "4096 pictures on one card" "killed and resumed")
for part in $parts; do
  start=$SECONDS deadline=$((SECONDS + seconds))
  say "$part  ${names[$part]}"
  "part_$part"
  say "   took $((SECONDS - start)) s"
done
[ "$failed" = 0 ] && say "all of parts $parts went well" || say "something failed: see above"
exit "$failed"
