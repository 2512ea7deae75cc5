#!/bin/bash
# Shuts this node down once its lab's deadline is ten minutes past; EC2 then terminates it. The guard comes first.
# The deadline is the guard's: what `fab extend` wrote, else the stack's creation + ttl-hours. Until the Python that asks
# for it is installed, launch + ttl-hours; while AWS does not answer, the last known one. ~/.rooflab/deadline tells it
# to whatever runs here.
set -euo pipefail

ROOT=${ROOT:-}
# shellcheck source=/dev/null
source "$ROOT/opt/rooflab/boot.env"
user=${ROOFLAB_USER:-ubuntu}
python=$ROOT/opt/rooflab/venv/bin/python
known=$ROOT/var/lib/rooflab/deadline
grace_s=600
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}

launched() {
  local token document
  token=$(curl -fsS -m 5 --retry 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token") &&
    document=$(curl -fsS -m 5 --retry 3 -H "X-aws-ec2-metadata-token: $token" \
      "$imds/latest/dynamic/instance-identity/document") &&
    sed -n 's/.*"pendingTime" *: *"\([^"]*\)".*/\1/p' <<<"$document"
}

from_launch() {
  local began
  began=$(launched) || began=
  if [ -z "$began" ]; then # and `date -d ""` would be midnight
    echo "the instance metadata does not tell when this node was launched: no deadline is known yet" >&2
    return 1
  fi
  awk -v began="$(date -d "$began" +%s)" -v hours="$ROOFLAB_TTL_HOURS" \
    'BEGIN { printf "%d\n", began + hours * 3600 }'
}

from_account() {
  "$python" - "$ROOFLAB_REGION" "$ROOFLAB_STACK" <<'END'
import sys
from datetime import datetime, timedelta

import boto3

region, name = sys.argv[1:]
stack = boto3.client("cloudformation", region_name=region).describe_stacks(StackName=name)["Stacks"][0]
tags = {tag["Key"]: tag["Value"] for tag in stack["Tags"]}
deadline = stack["CreationTime"] + timedelta(hours=float(tags["rooflab:ttl-hours"]))
ssm = boto3.client("ssm", region_name=region)
try:
    written = ssm.get_parameter(Name=f"/rooflab/deadline/{name}")["Parameter"]
    if written["LastModifiedDate"] >= stack["CreationTime"]:  # else it belongs to an earlier life of the lab
        deadline = datetime.fromisoformat(written["Value"])
except ssm.exceptions.ParameterNotFound:
    pass
print(int(deadline.timestamp()))
END
}

mkdir -p "$(dirname "$known")"
if [ ! -x "$python" ]; then
  deadline=$(from_launch)
elif ! deadline=$(from_account); then
  if [ -s "$known" ]; then
    deadline=$(cat "$known")
    echo "AWS does not tell the deadline: the last known one holds" >&2
  else
    deadline=$(from_launch)
    echo "AWS does not tell the deadline: launch + ttl-hours holds" >&2
  fi
fi
echo "$deadline" >"$known"
date -u -d "@$deadline" +%Y-%m-%dT%H:%M:%SZ >"$ROOT/home/$user/.rooflab/deadline"

if (($(date +%s) > deadline + grace_s)); then
  echo "the lab's deadline is past: shutting down" >&2
  shutdown -P now
fi
