#!/bin/bash
# Runs this node's steps in order. ~/.rooflab/ready then holds "ok", or "failed: STEP: reason", where the reason is the
# last line that the step printed; ~/.rooflab/boot holds each step's log, and the seconds that each took, the system's
# own start first. Running it again is harmless.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
export ROOFLAB_HERE=$here
export ROOT=${ROOT:-} # tests put another root in front of every path that the steps write
user=${ROOFLAB_USER:-ubuntu}
home=$ROOT/home/$user/.rooflab
export ROOFLAB_ENV=$home/env.sh
set -a
# shellcheck source=/dev/null
source "$here/boot.env"
set +a

ms() {
  echo $((${EPOCHREALTIME/[^0-9]/} / 1000))
}
took() { # took STEP MILLISECONDS
  printf '%s %d.%03d\n' "$1" $(($2 / 1000)) $(($2 % 1000)) >>"$home/boot/seconds"
}

mkdir -p "$home/boot"
rm -f "$home/ready" "$home/boot/"*
took start "$(awk '{ printf "%d", $1 * 1000 }' /proc/uptime)"
cat >"$ROOFLAB_ENV" <<END
export AWS_REGION=$ROOFLAB_REGION AWS_DEFAULT_REGION=$ROOFLAB_REGION
export ROOFLAB_STACK=$ROOFLAB_STACK ROOFLAB_BUCKET=$ROOFLAB_BUCKET
END

outcome=ok
for step in $ROOFLAB_STEPS; do
  log=$home/boot/$step.log
  began=$(ms)
  if ! bash -euo pipefail "$here/$step.sh" >"$log" 2>&1; then
    reason=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-300) || reason="it printed nothing"
    outcome="failed: $step: $reason"
  fi
  took "$step" $(($(ms) - began))
  [ "$outcome" = ok ] || break
done

echo "$outcome" >"$home/ready.new"
chown -R "$user:" "$home"
mv "$home/ready.new" "$home/ready"
echo "rooflab: $outcome"
[ "$outcome" = ok ]
