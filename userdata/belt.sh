#!/bin/bash
# Shuts this node down once its lab's deadline is ten minutes past; EC2 then terminates it. The guard comes first.
# Deadline: the SSM parameter that `fab extend` writes, else launch + the ttl-hours tag. While the parameter cannot be
# read, the last known deadline holds. ~/.rooflab/deadline tells it to whatever runs here.
set -euo pipefail

ROOT=${ROOT:-}
# shellcheck source=/dev/null
source "$ROOT/opt/rooflab/boot.env"
user=${ROOFLAB_USER:-ubuntu}
python=$ROOT/opt/rooflab/venv/bin/python
known=$ROOT/var/lib/rooflab/deadline
grace_s=600
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}

metadata() {
  local token
  token=$(curl -fsS -m 5 --retry 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token")
  curl -fsS -m 5 --retry 3 -H "X-aws-ec2-metadata-token: $token" "$imds/latest/$1"
}

# Prints the parameter's value, or nothing where there is none; fails where AWS does not answer.
parameter() {
  "$python" - "$ROOFLAB_REGION" "/rooflab/deadline/$ROOFLAB_STACK" <<'END'
import sys

import boto3

ssm = boto3.client("ssm", region_name=sys.argv[1])
try:
    print(ssm.get_parameter(Name=sys.argv[2])["Parameter"]["Value"])
except ssm.exceptions.ParameterNotFound:
    pass
END
}

from_launch() {
  local launched hours
  launched=$(metadata dynamic/instance-identity/document | sed -n 's/.*"pendingTime" *: *"\([^"]*\)".*/\1/p')
  hours=$(metadata meta-data/tags/instance/rooflab:ttl-hours) || hours=$ROOFLAB_TTL_HOURS
  echo $(($(date -d "$launched" +%s) + $(awk -v hours="$hours" 'BEGIN { printf "%d", hours * 3600 }')))
}

mkdir -p "$(dirname "$known")"
if [ ! -x "$python" ]; then
  deadline=$(from_launch) # the boot has not come to installing what reads the parameter
elif written=$(parameter); then
  deadline=$(if [ -n "$written" ]; then date -d "$written" +%s; else from_launch; fi)
elif [ -s "$known" ]; then
  echo "the deadline parameter cannot be read: the last known deadline holds" >&2
  deadline=$(cat "$known")
else
  echo "the deadline parameter cannot be read: launch + ttl-hours holds" >&2
  deadline=$(from_launch)
fi
echo "$deadline" >"$known"
date -u -d "@$deadline" +%Y-%m-%dT%H:%M:%SZ >"$ROOT/home/$user/.rooflab/deadline"

if (($(date +%s) > deadline + grace_s)); then
  echo "the lab's deadline is past: shutting down" >&2
  shutdown -P now
fi
