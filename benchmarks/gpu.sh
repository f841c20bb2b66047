#!/bin/bash
# Everything to measure on one GPU, in under nine minutes: bash benchmarks/gpu.sh [FOLDER] writes JSON there.
# Try it without a GPU: bash benchmarks/gpu.sh FOLDER --device cpu --tiny
set -u
out=${1:-gpu}
shift || true
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
shape=() accelerator=gpu
case " $* " in *" --tiny "*) shape=(--layers 2 --image_tokens 16 --narrow) ;; esac
case " $* " in *" --device cpu "*) accelerator=cpu ;; esac
status=0
timeout 300 "$python" -m benchmarks.gpu --out "$out/figures.json" "$@" || status=1
timeout 230 "$python" -m benchmarks.rehearsal --family janus-pro-1b --parts lora --accelerator $accelerator \
  "${shape[@]}" --folder "$out/run" || status=1
exit $status
