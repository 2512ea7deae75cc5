#!/bin/bash
# Looks every minute how long this node's lab still lives. ROOFLAB_NOTICE_S before its deadline every workload is told
# to save what it has; ten minutes after it this node shuts down, and EC2 terminates it. The guard comes between.
# The deadline is the guard's: what `fab extend` wrote, else the stack's creation + ttl-hours. Until the Python that asks
# for it is installed, launch + ttl-hours; while AWS does not answer, the last known one. ~/.rooflab/deadline tells it
# to whatever runs here.
set -euo pipefail

ROOT=${ROOT:-}
# shellcheck source=/dev/null
source "$ROOT/opt/rooflab/boot.env"
user=${ROOFLAB_USER:-ubuntu}
python=$ROOT/opt/rooflab/venv/bin/python
state=$ROOT/var/lib/rooflab
known=$state/deadline
grace_s=600
fresh_s=270
period_s=60
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
if [ "${ROOFLAB_IPV6_ONLY:-0}" = 1 ]; then
  export AWS_USE_DUALSTACK_ENDPOINT=true
fi

launched() { # seconds since 1970
  local token document began
  token=$(curl -fsS -m 5 --retry 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token") &&
    document=$(curl -fsS -m 5 --retry 3 -H "X-aws-ec2-metadata-token: $token" \
      "$imds/latest/dynamic/instance-identity/document") &&
    began=$(sed -n 's/.*"pendingTime" *: *"\([^"]*\)".*/\1/p' <<<"$document") &&
    [ -n "$began" ] && # or `date -d ""` would be midnight
    date -d "$began" +%s
}

from_launch() {
  local began
  if ! began=$(launched); then
    echo "the instance metadata does not tell when this node was launched: no deadline is known yet" >&2
    return 1
  fi
  awk -v began="$began" -v hours="$ROOFLAB_TTL_HOURS" 'BEGIN { printf "%d\n", began + hours * 3600 }'
}

# CloudFormation may have no endpoint with IPv6 (https://docs.aws.amazon.com/general/latest/gr/cfn.html lists none), and
# Systems Manager has: then launch stands for creation, an hour less for what was written before the first node.
from_account() {
  "$python" - "$ROOFLAB_REGION" "$ROOFLAB_STACK" "$ROOFLAB_TTL_HOURS" "$(launched 2>/dev/null || true)" <<'END'
import sys
from datetime import UTC, datetime, timedelta

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

region, name, hours, launched = sys.argv[1:]
config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
try:
    found = boto3.client("cloudformation", region_name=region, config=config).describe_stacks(StackName=name)
    stack = found["Stacks"][0]
    began = earliest = stack["CreationTime"]
    hours = {tag["Key"]: tag["Value"] for tag in stack["Tags"]}["rooflab:ttl-hours"]
except BotoCoreError as error:
    if not launched:
        raise
    print(f"CloudFormation does not answer, launch stands for the stack's creation ({error})", file=sys.stderr)
    began = datetime.fromtimestamp(int(launched), UTC)
    earliest = began - timedelta(hours=1)
deadline = began + timedelta(hours=float(hours))
ssm = boto3.client("ssm", region_name=region, config=config)
try:
    written = ssm.get_parameter(Name=f"/rooflab/deadline/{name}")["Parameter"]
    if written["LastModifiedDate"] >= earliest:  # else it belongs to an earlier life of the lab
        deadline = datetime.fromisoformat(written["Value"])
except ssm.exceptions.ParameterNotFound:
    pass
print(int(deadline.timestamp()))
END
}

mkdir -p "$state"
now=$(date +%s)
if [ -s "$known" ]; then # most minutes end here: nothing is due, and the account was asked a short while ago
  deadline=$(cat "$known")
  asked=$(stat -c %Y "$known")
  if ((now - asked < fresh_s && now < deadline - ROOFLAB_NOTICE_S - period_s)); then exit; fi
fi

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
told=$(date -u -d "@$deadline" +%Y-%m-%dT%H:%M:%SZ)
mkdir -p "$ROOT/home/$user/.rooflab"
echo "$told" >"$ROOT/home/$user/.rooflab/deadline"

due_s=$((deadline - ROOFLAB_NOTICE_S - $(date +%s)))
if ((due_s < period_s)) && [ "$(cat "$state/notice" 2>/dev/null)" != "$deadline" ]; then
  if ((due_s > 0)); then sleep "$due_s"; fi
  echo "$deadline" >"$state/notice" # once: who goes on regardless is not asked again
  if ! "$ROOT/usr/local/sbin/rooflab-notice" "the lab ends at $told"; then
    echo "the workloads could not be told" >&2
  fi
fi
if (($(date +%s) > deadline + grace_s)); then
  echo "the lab's deadline is past: shutting down" >&2
  shutdown -P now
fi
