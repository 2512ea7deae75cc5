#!/bin/bash
# Builds the Python environment of the workloads on the node's own disk, never on Lustre: exact pins, one torch for
# every lab. Ubuntu 22.04's Python is older than transformers allows, so uv brings one.
set -euo pipefail

# shellcheck source=/dev/null
source "$ROOFLAB_ENV"
uv_pin=uv==0.13.6
python_pin=3.12
venv=$ROOFLAB_SCRATCH/venv
link=$ROOT/opt/rooflab/venv
export UV_CACHE_DIR=$ROOFLAB_SCRATCH/uv/cache UV_PYTHON_INSTALL_DIR=$ROOFLAB_SCRATCH/uv/python UV_NO_PROGRESS=1

# g++ compiles what torch.compile generates.
apt-get update -q
apt-get install -qy python3-pip g++ git rsync
python3 -m pip install -q --target "$ROOT/opt/rooflab/uv" --upgrade "$uv_pin"
uv=$ROOT/opt/rooflab/uv/bin/uv
"$uv" venv --clear --seed --python "$python_pin" "$venv"
backend=()
if [ "$ROOFLAB_GPUS" -eq 0 ]; then
  backend=(--torch-backend cpu)
fi
read -ra packages <<<"$ROOFLAB_PACKAGES"
"$uv" pip install --python "$venv/bin/python" "${backend[@]}" "${packages[@]}"

"$venv/bin/python" - "$ROOFLAB_GPUS" <<'END'
import sys

import torch

if torch.cuda.device_count() != int(sys.argv[1]):
    sys.exit(f"torch {torch.__version__} sees {torch.cuda.device_count()} GPUs, this instance type has {sys.argv[1]}")
END
chown -R "${ROOFLAB_USER:-ubuntu}:" "$venv"
ln -sfn "$venv" "$link"
echo "export PATH=$link/bin:\$PATH" >>"$ROOFLAB_ENV"
