#!/bin/bash
# This node has no public IPv4 address and reaches the world by IPv6 alone, through an egress-only internet gateway.
# What has no IPv6 by itself is pointed at names that have it. Its private IPv4 address stays: metadata, time, names
# (169.254.0.0/16), its peers, Lustre and the way in need no more.
set -euo pipefail

echo "export AWS_USE_DUALSTACK_ENDPOINT=true" >>"$ROOFLAB_ENV"

# Ubuntu's mirrors in EC2 have no IPv6, its main archive has:
# https://blog.swwomm.com/2020/02/ipv6-for-private-aws-subnets.html
apt=$ROOT/etc/apt
mkdir -p "$apt/apt.conf.d"
find "$apt" -name '*.list' -o -name '*.sources' | while read -r list; do
  sed -i -E 's#https?://[a-z0-9.-]+\.ec2\.archive\.ubuntu\.com#http://archive.ubuntu.com#' "$list"
done
echo 'Acquire::ForceIPv6 "true";' >"$apt/apt.conf.d/91rooflab-ipv6"

# The agent does not find its dual-stack endpoints by itself: https://github.com/aws/amazon-ecs-agent/pull/4747
mkdir -p "$ROOT/etc/amazon/ssm"
site=$ROOFLAB_REGION.api.aws
cat >"$ROOT/etc/amazon/ssm/amazon-ssm-agent.json" <<END
{
  "Ssm": {"Endpoint": "https://ssm.$site"},
  "Mgs": {"Endpoint": "https://ssmmessages.$site"},
  "Mds": {"Endpoint": "https://ec2messages.$site"}
}
END
for agent in snap.amazon-ssm-agent.amazon-ssm-agent amazon-ssm-agent; do
  if systemctl cat "$agent.service" >/dev/null 2>&1; then systemctl restart "$agent.service"; fi
done

wait_s=${ROOFLAB_WAIT_S:-180}
until=$((EPOCHSECONDS + wait_s))
while ! curl -6 -fsS -m 10 -o /dev/null https://pypi.org/simple/pip/; do
  if ((EPOCHSECONDS >= until)); then
    echo "pypi.org does not answer over IPv6 after $wait_s s: does ::/0 of the subnet lead to an egress-only gateway?"
    exit 1
  fi
  sleep 2
done
