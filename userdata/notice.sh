#!/bin/bash
# rooflab-notice REASON: tells every workload on this node by SIGTERM to save what it has and to end. The reason lies in
# its run's folder, from where run.sh writes it into the log; jobs that the run still had before it are not begun.
set -euo pipefail

ROOT=${ROOT:-}
# shellcheck source=/dev/null
source "$ROOT/opt/rooflab/boot.env"
runs=$ROOT/home/${ROOFLAB_USER:-ubuntu}/rooflab-runs
for run in "$runs"/*/; do
  if [ -e "$run/pid" ] && [ ! -e "$run/exit" ]; then
    echo "$1" >"$run/notice"
  fi
done
# A run's processes carry its folder in their environment, in whatever session or group torchrun put them.
while read -r pid; do
  line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || continue # it has ended meanwhile
  case $line in
  *rooflab-runs/*/run.sh* | *operate.ship*) continue ;; # these send what the others save
  # Told as well, these would kill their children some seconds later.
  timeout\ --kill-after=* | *torchrun\ * | *torch.distributed.run\ *) continue ;;
  esac
  if kill -TERM "$pid" 2>/dev/null; then echo "told $pid: $line"; fi
done < <(grep -lsz "^ROOFLAB_RUN_DIR=$runs/" /proc/[0-9]*/environ | cut -d/ -f3)
