#!/bin/bash
# Finds the node's fast scratch directory: the image's own NVMe mount, else the instance's NVMe disks as one striped
# file system, else the root volume. Everything on it is lost with the node.
set -euo pipefail

image_mount=$ROOT/opt/dlami/nvme # where the Deep Learning AMI mounts all NVMe disks while it boots
scratch=$ROOT/var/lib/rooflab/scratch

instance_disks() { # those that hold nothing yet
  lsblk -dno PATH,MODEL | awk '/Amazon EC2 NVMe Instance Storage/ { print $1 }' | while read -r disk; do
    if [ -z "$(lsblk -no FSTYPE "$disk" | tr -d '[:space:]')" ] && [ "$(lsblk -no NAME "$disk" | wc -l)" -eq 1 ]; then
      echo "$disk"
    fi
  done
}

if [ -d "$ROOT/opt/dlami" ]; then
  for _ in {1..60}; do
    if findmnt "$image_mount" >/dev/null || [ -z "$(instance_disks)" ]; then break; fi
    sleep 2
  done
fi
if findmnt "$image_mount" >/dev/null; then
  scratch=$image_mount
elif ! findmnt "$scratch" >/dev/null; then
  mkdir -p "$scratch"
  mapfile -t disks < <(instance_disks)
  if [ "${#disks[@]}" -gt 0 ]; then
    device=${disks[0]}
    if [ "${#disks[@]}" -gt 1 ]; then
      device=/dev/md/rooflab
      mdadm --create "$device" --run --level=0 --raid-devices="${#disks[@]}" "${disks[@]}"
    fi
    mkfs.ext4 -q -E nodiscard "$device"
    mount -o noatime "$device" "$scratch"
  fi
fi

mkdir -p "$scratch/huggingface"
chown "${ROOFLAB_USER:-ubuntu}:" "$scratch" "$scratch/huggingface"
echo "export ROOFLAB_SCRATCH=$scratch HF_HOME=$scratch/huggingface" >>"$ROOFLAB_ENV"
