#!/bin/bash
# Asks the instance metadata every five seconds whether EC2 takes this spot instance back, which it tells two minutes
# before; the workloads are then told once.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
set -euo pipefail

ROOT=${ROOT:-}
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
period_s=${ROOFLAB_WATCH_S:-5}
token=
while true; do
  if [ -z "$token" ]; then
    token=$(curl -fsS -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' "$imds/latest/api/token") || token=
  fi
  answer=$(curl -sS -m 5 -w '\n%{http_code}' -H "X-aws-ec2-metadata-token: $token" \
    "$imds/latest/meta-data/spot/instance-action") || answer=
  case ${answer##*$'\n'} in
  200)
    at=$(sed -n 's/.*"time" *: *"\([^"]*\)".*/\1/p' <<<"$answer")
    exec "$ROOT/usr/local/sbin/rooflab-notice" "EC2 takes this spot instance back at $at"
    ;;
  401) token= ;; # it has expired
  esac
  sleep "$period_s"
done
