#!/bin/bash
# Waits for the NVIDIA driver, for all GPUs of the type, and for the NVSwitch fabric where there is one.
set -euo pipefail

wait_s=${ROOFLAB_WAIT_S:-180}
until=$((EPOCHSECONDS + wait_s))

gpus() {
  nvidia-smi --query-gpu=name --format=csv,noheader | wc -l
}

while ! found=$(gpus) || [ "$found" -ne "$ROOFLAB_GPUS" ]; do
  if ((EPOCHSECONDS >= until)); then
    echo "nvidia-smi shows ${found:-0} GPUs after $wait_s s, this instance type has $ROOFLAB_GPUS"
    exit 1
  fi
  sleep 2
done
# CUDA fails to initialise until the fabric manager has trained the links.
while nvidia-smi -q | grep -A 2 '^ *Fabric' | grep -q 'In Progress'; do
  if ((EPOCHSECONDS >= until)); then
    echo "the NVSwitch fabric is not ready after $wait_s s: see journalctl -u nvidia-fabricmanager"
    exit 1
  fi
  sleep 2
done
nvidia-smi -pm 1
