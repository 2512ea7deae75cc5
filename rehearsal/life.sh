#!/usr/bin/env bash
# One whole life of a lab in a rehearsal, by the commands that a user types. Usage: rehearsal/life.sh LAB [NAME]
set -uo pipefail
cd "$(dirname "$0")/.." || exit
lab=$1 name=${2:-default}
# Marks this script and all it starts, so that `fab rehearsal.stop` finds them whatever became of us.
export ROOFLAB_REHEARSAL_OWNS="$PWD/.rehearsal/$name"
export PYTHONUNBUFFERED=1
failed=0

say() { # say COMMAND...: show it as typed, run it, remember a failure
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@" && return
    failed=$?
    printf '\033[31mexit code %s\033[0m\n' "$failed"
    [ "$failed" -lt 128 ] || exit "$failed" # killed, as by `fab rehearsal.stop` from another shell
    return "$failed"
}
trap 'exit 130' INT TERM

say fab rehearsal.start --name "$name" || exit
trap 'unset AWS_ENDPOINT_URL; say fab rehearsal.stop --name "$name"' EXIT
# shellcheck disable=SC2016  # shown, not run
printf '\n\033[1m$ eval "$(fab rehearsal.env --name %s)"\033[0m\n' "$name"
eval "$(fab rehearsal.env --name "$name")" || exit

if say cdk deploy "Lab${lab}Stack" --require-approval never; then
    say fab nodes --lab "$lab"
    say fab run-lab --lab "$lab"
    say fab report --lab "$lab"
fi
say fab teardown --lab "$lab"
say fab audit
exit "$failed"
