"""What a node is told to do: its run.sh, and the commands that start and stop it. Pure functions, no machine needed.

A run is detached: it belongs to no SSH connection. It lies in one folder on each node, over once `exit` is there.
"""

import io
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from shlex import join, quote

from labs.catalog import Workload
from operate import batch, watch
from operate.hang import DEFAULT_S
from operate.secret import FORWARDED

_RUN = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+")
_GRACE_S = 15
_STOP_S = 10
_DEAD_S = 5
NOT_RUN = 69
"""Exit code of a job that was skipped, for a node was lost, the node's belt gave notice of its end in the run's file
`notice`, or workloads.connectivity wrote into the file `unfit` why no cluster job can run: EX_UNAVAILABLE of
sysexits.h."""
# A run's processes are found by ROOFLAB_RUN_DIR in their environment: torchrun puts its workers in sessions of their
# own, so a process group would miss them. The brackets keep the search from finding itself.
_MARKED = """\
marked() {
    if [ -d /proc/self ]; then grep -lsz "^[R]OOFLAB_RUN_DIR=$run\\$" /proc/[0-9]*/environ | cut -d/ -f3
    else ps axeww -o pid=,command= | grep "[R]OOFLAB_RUN_DIR=$run " | awk '{print $1}'; fi
}
told() { cat "/proc/$1/cmdline" 2>/dev/null || ps -o args= -p "$1"; }"""
_TIMEOUT = """\
command -v timeout > /dev/null || timeout() { # macOS has none: the same by hand
    local grace=${1#*=} limit=$2 pid code
    shift 2
    rm -f "$run/over"
    set -m # a process group of its own, to be ended whole
    "$@" &
    pid=$!
    set +m
    ( SECONDS=0
    while kill -0 "$pid" && [ "$SECONDS" -le "$limit" ]; do sleep 1; done # SECONDS is up to one too many
    kill -0 "$pid" || exit
    : > "$run/over"
    kill -TERM "-$pid"
    while kill -0 "$pid" && [ "$SECONDS" -le "$((limit + grace))" ]; do sleep 1; done
    kill -KILL "-$pid" ) > /dev/null 2>&1 < /dev/null &
    wait "$pid" 2> /dev/null
    code=$?
    if [ -e "$run/over" ]; then rm "$run/over"; return 124; fi
    return "$code"
}"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where Rooflab's things lie on a machine, as bash words."""

    tree: str = "~/rooflab"
    runs: str = "~/rooflab-runs"
    environment: str = "~/.rooflab/env.sh"
    ready: str = "~/.rooflab/ready"
    boot: str = "~/.rooflab/boot/seconds"

    def run(self, run: str) -> str:
        """The folder of `run`."""
        assert _RUN.fullmatch(run), run
        return f"{self.runs}/{run}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One entry of a run's list: a workload of the catalogue, or the user's own command."""

    name: str
    command: tuple[str, ...]
    """A module's or script's name and its arguments, or, with `kind` "command", a whole command."""
    kind: str = "module"
    """"module": `python -m`; "script": a Python file; "command": run as it is. """
    scope: str = "node"
    """As in `labs.catalog.Workload`."""
    timeout_s: int = 900
    cpu_ranks: int = 2
    """As in `labs.catalog.Workload`."""
    restarts: int = 0
    """As in `labs.catalog.Workload`."""


def job(workload: Workload) -> Job:
    """The job that runs a workload of the catalogue."""
    return Job(
        name=workload.name,
        command=(workload.module, *workload.args),
        scope=workload.scope,
        timeout_s=workload.timeout_s,
        cpu_ranks=workload.cpu_ranks,
        restarts=workload.restarts,
    )


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One node's part in a run."""

    node: str
    index: int
    processes: int
    """Ranks in a "cluster" job: CUDA devices, or 2 on a CPU."""
    cores: int
    """CPUs that the node's processes may use."""
    gpus: bool = True
    """Whether the node has CUDA devices; without, a job may ask for another number of ranks."""
    address: str = ""
    """Where the other nodes reach it; "" where that is not known."""

    def ranks(self, item: Job) -> int:
        """Ranks of this job here."""
        return self.processes if self.gpus else item.cpu_ranks


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, on all nodes."""

    run: str
    """YYYYMMDD-HHMMSS-labN."""
    jobs: tuple[Job, ...]
    seats: tuple[Seat, ...]
    head: str
    """Private address of node0, where ranks meet."""
    lab: int | None = None
    instance_type: str = ""
    usd_per_hour: float | None = None
    """Price of all nodes together."""
    commit: str = ""
    environment: tuple[str, ...] = ()
    """Names of variables beside FORWARDED whose values are secret."""
    launcher: str = "torchrun"
    """"torchrun", or "slurm": see `operate.batch`."""
    login: bool = False
    """As in `operate.cluster.Cluster`."""
    hang_s: int = DEFAULT_S
    """After so long without a sign of life a cluster job is ended; 0: it may be silent until its time limit."""
    place: Place = field(default_factory=Place)


def run_id(now: datetime, lab: int | None) -> str:
    """Name of a run that starts `now` (UTC)."""
    return f"{now:%Y%m%d-%H%M%S}-{'own' if lab is None else f'lab{lab}'}"


def master_port(run: str, index: int) -> int:
    """Port where the ranks of job `index` meet, 20000 to 29999: another for each job and, nearly always, each run."""
    return 20000 + (zlib.crc32(run.encode()) + index) % 10000


def script(plan: Plan, seat: Seat) -> str:
    """The whole run.sh of one node."""
    facts = {
        "ROOFLAB_RUN": plan.run,
        "ROOFLAB_LAB": "" if plan.lab is None else str(plan.lab),
        "ROOFLAB_NODE": seat.node,
        "ROOFLAB_NODES": str(len(plan.seats)),
        "ROOFLAB_PEERS": " ".join(f"{other.node}={other.address}" for other in plan.seats if other.address),
        "ROOFLAB_INSTANCE_TYPE": plan.instance_type,
        "ROOFLAB_USD_PER_HOUR": "" if plan.usd_per_hour is None else f"{plan.usd_per_hour:.6g}",
        "ROOFLAB_COMMIT": plan.commit,
        "ROOFLAB_HANG_S": str(plan.hang_s or ""),
        "ROOFLAB_SECRETS": " ".join(plan.environment),
    }
    exports = "\n".join(f"export {name}={quote(value)}" for name, value in facts.items() if value)
    works = [_work(plan, seat, index) for index in range(len(plan.jobs))]
    begin, again, notice = "", "", '[ -e "$run/notice" ] || echo "this node shuts down" > "$run/notice"'
    end = "\n".join([*works, 'echo "$status" > "$run/exit.partial" && mv "$run/exit.partial" "$run/exit"\n'])
    if plan.launcher == "slurm":  # whose SIGTERM means a step's end, not the node's
        begin, again, notice = batch.preamble(len(plan.seats), login=plan.login), batch.AGAIN, ":"
        end = batch.choice([item.name for item in plan.jobs], works)
    return f"""\
#!/usr/bin/env bash
# {plan.run} on {seat.node}, written by fab: every workload in order, each with its log and its exit code.
set -u
run={plan.place.run(plan.run)}
mkdir -p "$run/logs" "$run/records" "$run/out"
echo $$ > "$run/pid"
cd -P {plan.place.tree} || {{ echo 1 > "$run/exit"; exit 1; }}
[ -f {plan.place.environment} ] && . {plan.place.environment}
{exports}
export ROOFLAB_RUN_DIR="$run" ROOFLAB_OUT="$run/out"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/workloads/startup${{PYTHONPATH:+:$PYTHONPATH}}"
export TORCH_FR_BUFFER_SIZE="${{TORCH_FR_BUFFER_SIZE:-2000}}"
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE='[rank${{rank}}] '
{begin}{_TIMEOUT}
{watch.BESIDE}
status=0
# A node that shuts down sends SIGTERM to all: what a workload has finished is shipped all the same.
trap '{notice}' TERM
work() {{ # work NAME SCOPE LIMIT_S THREADS COMMAND...
    local name=$1 scope=$2 limit=$3 threads=$4 began=$SECONDS code
    shift 4
    if [ -e "$run/notice" ]; then
        echo "not run: $(cat "$run/notice")" > "$run/logs/$name.log"
        code={NOT_RUN}
    elif [ "$scope" = cluster ] && [[ " $* " != *" --max-restarts "* ]] && [ -e "$run/lost" ]; then
        echo "not run: another node is lost" > "$run/logs/$name.log"
        code={NOT_RUN}
    elif [ "$scope" = cluster ] && [ -e "$run/unfit" ]; then
        echo "not run, for no time limit is worth its price: $(cat "$run/unfit")" > "$run/logs/$name.log"
        code={NOT_RUN}
    else
        watch "$name" "$scope"
        OMP_NUM_THREADS=$threads timeout --kill-after={_GRACE_S} "$limit" "$@" >> "$run/logs/$name.log" 2>&1 < /dev/null
        code=$?
        unwatch "$name"
        [ -e "$run/notice" ] && echo "told by SIGTERM to end: $(cat "$run/notice")" >> "$run/logs/$name.log"
    fi
    [ "$code" -eq 124 ] && echo "ended by fab after $limit s: its time limit" >> "$run/logs/$name.log"
{again}    [ "$code" -eq 0 ] || status=1
    echo "$name $code $((SECONDS - began))" >> "$run/codes"
    (trap '' TERM; python -m operate.ship "$run" >> "$run/ship.log" 2>&1)
}}
{end}"""


def _work(plan: Plan, seat: Seat, index: int) -> str:
    item = plan.jobs[index]
    threads = seat.cores if item.scope == "node" else max(1, seat.cores // seat.ranks(item))
    return f"work {quote(item.name)} {item.scope} {item.timeout_s} {threads} {job_command(plan, seat, index)}"


def job_command(plan: Plan, seat: Seat, index: int) -> str:
    """The command of job `index` on one node, as bash would read it; `$run` is the run's folder."""
    item = plan.jobs[index]
    if item.kind == "command":
        return join(item.command)
    target, *words = item.command
    if item.kind == "module":
        aim = f'-m {quote(target)} --out "$run/records"'
    else:  # a script that git does not track travels in the run's own folder
        aim = f'"$run"/{quote(target[len("$run/") :])}' if target.startswith("$run/") else quote(target)
    aim += "".join(f" {quote(word)}" for word in words)
    if item.scope == "node":
        return f"python {aim}"
    if plan.launcher == "slurm":  # starts again by itself what may be
        where = '--nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --master-addr "$head"'
        where += " --max-restarts 0" if item.restarts else ""
    else:
        where = f"--nnodes {len(plan.seats)} --node-rank {seat.index} --master-addr {quote(plan.head)}"
    if item.restarts and plan.launcher != "slurm":
        peers = ",".join(f"{one.node}={_roster_address(plan, one, index)}" for one in plan.seats)
        return (
            f"python -m operate.roster --job {quote(item.name)} --node {seat.node} --peers {quote(peers)}"
            f" torchrun --nproc-per-node {seat.ranks(item)} --max-restarts {item.restarts}"
            f" --rdzv-backend c10d --rdzv-id {plan.run}-{quote(item.name)}"
            f' --tee 3 --log-dir "$run/ranks" {aim}'
        )
    ranks = f'"$(ranks {item.cpu_ranks})"' if plan.login else seat.ranks(item)
    return (
        f"torchrun {where} --master-port {master_port(plan.run, index)} --nproc-per-node {ranks}"
        f' --tee 3 --log-dir "$run/ranks" {aim}'
    )


def _roster_address(plan: Plan, seat: Seat, index: int) -> str:
    """Where a node hears from the others in job `index`; all nodes may share one machine's ports."""
    return f"{seat.address or plan.head}:{master_port(plan.run, 1000 * (1 + index) + seat.index)}"


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive that `prepare_command` unpacks: `files` by their name in the run's folder."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            assert not PurePosixPath(name).is_absolute(), name
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o700
            tar.addfile(entry, io.BytesIO(content))
    return zlib.compress(raw.getvalue(), wbits=31)


def prepare_command(place: Place, run: str) -> str:
    """Make the run's folder from the archive on stdin; nothing starts yet."""
    return f"umask 077; mkdir -p {place.run(run)} && tar xzf - -C {place.run(run)}"


def start_command(place: Place, run: str) -> str:
    """Start the prepared run, detached. Secrets come on stdin: no argument and no file holds them."""
    folder = place.run(run)
    return (
        'set -a; eval "$(cat)"; set +a; detach=$(command -v setsid)\n'
        f"nohup $detach bash {folder}/run.sh > {folder}/run.log 2>&1 < /dev/null &"
    )


def secrets(environment: Mapping[str, str], names: Sequence[str] = ()) -> bytes:
    """What goes to `start_command` on stdin: the forwarded variables that `environment` has, and all of `names`.

    Raises:
        ValueError: one of `names` is not a variable's name, or is not set.
    """
    for name in names:
        if not name.isidentifier() or name not in environment:
            raise ValueError(
                f"env={name!r} is not set here: export it, then write --env NAME (its value is never shown)"
            )
    chosen = [name for name in FORWARDED if environment.get(name)] + [name for name in names if name not in FORWARDED]
    return "".join(f"{name}={quote(environment[name])}\n" for name in chosen).encode()


def lost_command(place: Place, run: str, names: Sequence[str]) -> str:
    """Tell a node who is lost: a cluster job that waits for it ends, and those to come are skipped.

    Jobs of this node alone go on, and so do those that `operate.roster` keeps going: they have a rendezvous's name.
    """
    return f"""\
run={place.run(run)}
printf '%s\\n' {join(names)} >> "$run/lost"
{_MARKED}
for pid in $(marked); do
    told "$pid" | grep -aq torchrun && ! told "$pid" | grep -aq rdzv-id && kill -TERM "$pid"
done 2>/dev/null
true"""


def stop_command(place: Place, run: str) -> str:
    """End the run and everything it started: politely, after 10 s by force. Mark it as over once nothing is left."""
    return f"""\
run={place.run(run)}
[ -d "$run" ] || {{ echo "there is no run $run here" >&2; exit 3; }}
[ -f "$run/exit" ] && {{ echo over; exit 0; }}
{_MARKED}
pid=$(cat "$run/pid" 2>/dev/null)
: > "$run/stopping"
[ -n "$pid" ] && told "$pid" | grep -aq "run\\.sh" && kill -KILL "$pid"
kill -TERM $(marked) 2>/dev/null
for _ in $(seq {_STOP_S * 5}); do [ -z "$(marked)" ] && break; sleep 0.2; done
for _ in $(seq {_DEAD_S * 5}); do kill -KILL $(marked) 2>/dev/null || break; sleep 0.2; done
echo 143 > "$run/exit"
echo stopped"""
