#!/bin/bash
# Prepares this node to become an image: the Python environment comes to the root volume, for the scratch disk is in no
# image, and what belongs to this lab and its user alone goes. The node stays usable. What a new instance must not
# believe is removed once more when it first boots, before anyone can log in: see stacks/boot.py.
set -euo pipefail

ROOT=${ROOT:-}
user=$ROOT/home/${ROOFLAB_USER:-ubuntu}
home=$ROOT/opt/rooflab/python
if [ "$(cat "$user/.rooflab/ready")" != ok ]; then
  echo "this node is not ready: $(cat "$user/.rooflab/ready")"
  exit 1
fi
if [ -L "$home" ]; then
  from=$(readlink -f "$home")
  rm -rf "$home.new"
  cp -a "$from" "$home.new"
  # uv may have written where the link led, instead of its name.
  find "$home.new/venv" -maxdepth 1 -name pyvenv.cfg -exec sed -i "s#$from/#$home/#" {} +
  find "$home.new/venv/bin" -type l -lname "$from/*" | while read -r entry; do
    ln -sfn "$home/$(readlink "$entry" | cut -c "$((${#from} + 2))-")" "$entry"
  done
  rm "$home"
  mv "$home.new" "$home"
fi
"$home/venv/bin/python" -c 'import torch'
sed -i '\# /fsx lustre #d' "$ROOT/etc/fstab"
rm -rf "$user/rooflab-runs" "$user/.cache/huggingface/token" "$user/.bash_history" "$user/.python_history" \
  "$user/.netrc" "$user/.ssh/known_hosts"
apt-get clean
# Each instance must make an id of its own, which systemd does where the file is empty; were it missing, systemd would
# take the start for the system's first and enable its units anew. This node keeps its id as systemd does in such a
# start, by a mount: https://www.freedesktop.org/software/systemd/man/latest/machine-id.html#First%20Boot%20Semantics
id=$ROOT/etc/machine-id
if ! mountpoint -q "$id"; then
  install -D -m 0444 "$id" "$ROOT/run/rooflab/machine-id"
  : >"$id"
  mount --bind "$ROOT/run/rooflab/machine-id" "$id"
fi
sync
