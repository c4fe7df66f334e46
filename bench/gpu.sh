#!/usr/bin/env bash
# bench/gpu.sh OUT_DIR [--cpu-check | --tune]: install, test and measure kernels and networks on this GPU machine, in
# under 8 minutes: tests beside each other, then what is timed, alone. Results: OUT_DIR/gpu.csv (kernels), models.csv
# (networks), summary.txt, and a log a step. --cpu-check runs the same steps with Triton's interpreter on tiny sizes,
# without installing: it says whether the script works, and nothing about speed. --tune measures configurations instead
# and writes kernels/tuned/<gpu>.json, which later calls read.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bench/gpu.sh OUT_DIR [--cpu-check | --tune]}
check=${2:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
rm -f "$out"/{summary,table,models}.txt "$out"/{gpu,models}.csv "$out/failed"

say() { echo "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: its output goes to NAME.log; a failure is said, and the other steps still run.
step() {
  local name=$1 seconds=$2 start=$SECONDS
  shift 2
  if timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
    say "$name: ok in $((SECONDS - start)) s"
  else
    say "$name: FAILED with $? after $((SECONDS - start)) s: $(tail -n 1 "$out/$name.log")"
    touch "$out/failed"
  fi
}

# sanitize TOOL: the small cases under compute-sanitizer; not a failure where the machine has or allows none.
sanitize() {
  local tool=$1 log="$out/$1.log"
  if ! command -v compute-sanitizer >/dev/null; then
    say "$tool: compute-sanitizer is not installed"
    return
  fi
  timeout 100 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -P -m pytest -q -p no:cacheprovider \
    tests/kernel_values*.py -k "$small" >"$log" 2>&1 && say "$tool: ok" && return
  case $? in
    9) say "$tool: FAILED: $(grep -m 1 '=========' "$log" || true)"; touch "$out/failed" ;;
    *) say "$tool: not run to its end (not allowed here, or too slow): $(tail -n 1 "$log")" ;;
  esac
}

small="n2-21to21-6x5-k3x3 or n1-24to40-5x6 or n2-21to24-6x7 or g0-2x21x9x7 or 17-0.3"
if [ "$check" = --cpu-check ]; then
  export TRITON_INTERPRET=1
  step values 200 "$python" -P -m pytest -q -p no:cacheprovider tests/kernel_values*.py -k n2-21to21-6x5-k3x3
  step plans 100 "$python" -P -m pytest -q -p no:cacheprovider tests/gpu_plans.py -k "values and dilated"
  step measure 200 "$python" bench/gpu.py "$out" --cpu-check
  step networks 200 "$python" bench/gpu_models.py "$out" --cpu-check
elif [ "$check" = --tune ]; then
  step install 150 "$python" -m pip install --no-build-isolation --no-deps -e .
  step tune 440 "$python" bench/gpu_tune.py --seconds 400
  cp "$out/tune.log" "$out/table.txt"
elif [ -n "$check" ]; then
  echo "bench/gpu.sh: the second argument is '$check': pass --cpu-check, --tune, or none" >&2
  exit 2
else
  step install 150 "$python" -m pip install --no-build-isolation --no-deps -e .
  step values 130 "$python" -P -m pytest -q -p no:cacheprovider tests/kernel_values*.py &
  step plans 130 "$python" -P -m pytest -q -p no:cacheprovider tests/gpu_plans.py -k "not random" &
  sanitize memcheck &
  sanitize racecheck &
  wait
  step measure 120 "$python" bench/gpu.py "$out" --seconds 110
  left=$((460 - SECONDS))
  step networks "$left" "$python" bench/gpu_models.py "$out" --seconds "$((left - 10))"
fi
cat "$out"/{table,models}.txt >>"$out/summary.txt" 2>/dev/null || say "a table is missing"
cat "$out/summary.txt"
[ ! -e "$out/failed" ]
