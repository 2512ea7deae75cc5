#!/bin/bash
# Makes the Python environment of the workloads on the node's own disk, never on Lustre: exact pins, one torch for every
# lab. Ubuntu 22.04's Python is older than transformers allows, so uv brings one. An environment with the same pins, as
# in an image that was baked, is used as it is; with others it is brought to them.
set -euo pipefail

# shellcheck source=/dev/null
source "$ROOFLAB_ENV"
uv_pin=0.13.6
python_pin=3.12
# All paths within name it so: a link to the scratch disk, or in a baked image the folder itself.
home=$ROOT/opt/rooflab/python
venv=$home/venv
link=$ROOT/opt/rooflab/venv
backend=()
if [ "$ROOFLAB_GPUS" -eq 0 ]; then
  backend=(--torch-backend cpu)
fi
wanted="python $python_pin: $ROOFLAB_PACKAGES ${backend[*]}"

make_venv() { # make_venv PYTHON
  "$uv" venv --clear --seed --python "$1" "$venv"
}

install_packages() {
  # g++ compiles what torch.compile generates; fio measures storage beside us.
  local needed=(python3-pip g++ git rsync fio)
  if [ "$(dpkg-query -W -f '${db:Status-Abbrev}\n' "${needed[@]}" | grep -c '^ii')" -ne "${#needed[@]}" ]; then
    apt-get update -q
    apt-get install -qy "${needed[@]}"
  fi
  uv=$ROOT/opt/rooflab/uv/bin/uv
  if [ "$("$uv" --version | cut -d' ' -f2)" != "$uv_pin" ]; then
    python3 -m pip install -q --target "$ROOT/opt/rooflab/uv" --upgrade "uv==$uv_pin"
  fi
  if [ -L "$home" ] || [ ! -d "$home" ]; then
    mkdir -p "$ROOFLAB_SCRATCH/python"
    ln -sfn "$ROOFLAB_SCRATCH/python" "$home"
  fi
  rm -f "$home/pins"
  export UV_CACHE_DIR=$ROOFLAB_SCRATCH/uv UV_PYTHON_INSTALL_DIR=$home/interpreter UV_NO_PROGRESS=1
  if [ "${ROOFLAB_IPV6_ONLY:-0}" = 1 ]; then
    # Else uv falls back to github.com, which has no IPv6 and is waited for in vain:
    # https://docs.astral.sh/uv/reference/environment/#uv_astral_mirror_url
    export UV_ASTRAL_MIRROR_URL=https://releases.astral.sh
  fi
  if [ "$(sed -n 's/^version_info = \([0-9]*\.[0-9]*\)\..*/\1/p' "$venv/pyvenv.cfg" 2>/dev/null)" != "$python_pin" ]; then
    if ! make_venv "$python_pin"; then
      if [ "${ROOFLAB_IPV6_ONLY:-0}" != 1 ]; then return 1; fi
      echo "warning: $UV_ASTRAL_MIRROR_URL has no Python $python_pin for us: Ubuntu's own 3.11 takes its place"
      apt-get install -qy python3.11-venv python3.11-dev
      make_venv /usr/bin/python3.11
    fi
  fi
  local packages
  read -ra packages <<<"$ROOFLAB_PACKAGES"
  "$uv" pip install --python "$venv/bin/python" "${backend[@]}" "${packages[@]}"
  chown -R "${ROOFLAB_USER:-ubuntu}:" "$home/"
  echo "$wanted" >"$home/pins"
}

if [ ! -e "$home/pins" ] || [ "$(cat "$home/pins")" != "$wanted" ]; then
  install_packages
fi
"$venv/bin/python" - "$ROOFLAB_GPUS" <<'END'
import sys

import torch

if torch.cuda.device_count() != int(sys.argv[1]):
    sys.exit(f"torch {torch.__version__} sees {torch.cuda.device_count()} GPUs, this instance type has {sys.argv[1]}")
END
ln -sfn "$venv" "$link"
echo "export PATH=$link/bin:\$PATH" >>"$ROOFLAB_ENV"
