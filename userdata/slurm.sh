#!/bin/bash
# Installs Slurm and munge, and starts neither: a cluster's nodes and its key are known only when all of it stands, so
# whoever launches by Slurm writes them and starts the daemons. Ubuntu 22.04's is Slurm 21.08: proctrack/linuxproc.
set -euo pipefail

units=(slurmctld.service slurmd.service munge.service)
if ! dpkg-query -W slurmd slurmctld munge >/dev/null 2>&1; then
  # Masked before they come, or their installation starts them without a configuration.
  systemctl mask "${units[@]}"
  apt-get update -q
  apt-get install -qy slurmctld slurmd slurm-client munge
fi
systemctl unmask "${units[@]}"
systemctl disable --now "${units[@]}"
apt-mark hold slurmctld slurmd slurm-client munge
