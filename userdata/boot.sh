#!/bin/bash
# Runs this node's steps in order. ~/.rooflab/ready then holds "ok", or "failed: STEP: reason", where the reason is the
# last line that the step printed; ~/.rooflab/boot holds each step's log and seconds. Running it again is harmless.
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

mkdir -p "$home/boot"
rm -f "$home/ready" "$home/boot/seconds"
cat >"$ROOFLAB_ENV" <<END
export AWS_REGION=$ROOFLAB_REGION AWS_DEFAULT_REGION=$ROOFLAB_REGION
export ROOFLAB_STACK=$ROOFLAB_STACK ROOFLAB_BUCKET=$ROOFLAB_BUCKET
END

outcome=ok
for step in $ROOFLAB_STEPS; do
  log=$home/boot/$step.log
  began=$EPOCHSECONDS
  if ! bash -euo pipefail "$here/$step.sh" >"$log" 2>&1; then
    reason=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-300) || reason="it printed nothing"
    outcome="failed: $step: $reason"
  fi
  echo "$step $((EPOCHSECONDS - began))" >>"$home/boot/seconds"
  [ "$outcome" = ok ] || break
done

echo "$outcome" >"$home/ready.new"
chown -R "$user:" "$home"
mv "$home/ready.new" "$home/ready"
echo "rooflab: $outcome"
[ "$outcome" = ok ]
