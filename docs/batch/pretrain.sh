#!/bin/bash
# What docs/batch/pretrain.sub starts: one base on the GPUs of one machine.
# Arguments: recipe, output folder, number of GPUs.
set -euo pipefail

RECIPE="$1" OUT="$2" GPUS="$3"

# a job that was evicted left its states beside the result
RESUME=()
if [ -d "$OUT.work" ]; then RESUME=(--resume); fi

torchrun --standalone --nproc-per-node "$GPUS" \
    -m metacalo pretrain --config "$RECIPE" --device cuda --out "$OUT" --log-dir "$OUT.log" "${RESUME[@]}"
