"""One run as a Slurm job: the batch script, its submission, and what differs in run.sh where Slurm starts it.

The whole run is one job, each of its workloads one step: a task on every node that runs that node's run.sh for this
workload alone. So codes, logs, records, shipping and following are what they are without Slurm. Slurm ends a step on
all nodes where a cluster workload fails on one, ends the job at its time limit, and where a node is lost puts the job
into the queue again; it then starts on what is left, passes over the workloads that had ended, and those that may be
started again resume. What needs all nodes and may not is not run. The loss of node0, whose controller decides all that,
ends the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from operate.hang import HUNG
from operate.slurm import AGAIN_S, SILENT_S, use

_OVER_S = 600
"""Time that a job may need beside its workloads: to ship what they left."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One workload of the run, as the batch script starts it."""

    name: str
    scope: str
    timeout_s: int
    restarts: int


def minutes(seconds: int) -> int:
    """A limit as Slurm takes it, rounded up."""
    return -(-seconds // 60)


def script(run: str, folder: str, steps: Sequence[Step], *, login: bool = False) -> str:
    """The batch script of `run`, which lies in `folder` on each node.

    `login`: as in `operate.cluster.Cluster`; a task's number then is its seat's.
    """
    mine, task = ("export seat=node0\n", "export seat=node$SLURM_NODEID; ") if login else ("", "")
    calls = "\n".join(
        f"step {quote(one.name)} {1 if one.scope == 'cluster' else 0} {minutes(one.timeout_s + 60)} {one.restarts}"
        for one in steps
    )
    return f"""\
#!/usr/bin/env bash
# {run}, written by fab: each workload is a step of this job, on all nodes that it has.
{mine}run={folder}
exec >> "$run/run.log" 2>&1
echo "Slurm job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${{SLURM_RESTART_COUNT:-0}} + 1))"
on_all() {{ # on_all NAME KILL MINUTES: run.sh for one workload on every node; KILL 1: one that fails ends the others
    srun --job-name="$1" --nodes="$SLURM_NNODES" --ntasks-per-node=1 --kill-on-bad-exit="$2" --time="$3" \\
        bash -c '{task}exec bash {folder}/run.sh "$0"' "$1" < /dev/null
}}
step() {{ # step NAME KILL MINUTES RESTARTS
    local left=$4
    grep -qsx "$1" "$run/steps" && return
    while :; do
        export ROOFLAB_AGAIN=$left
        on_all "$1" "$2" "$3" && break
        [ "$left" -gt 0 ] && ! [ -e "$run/hang/$1/hung" ] || break # one that hung would only hang again
        # By then Slurm knows whether a node is lost, and has put this job into the queue again.
        sleep {SILENT_S + AGAIN_S}
        left=$((left - 1))
    done
    echo "$1" >> "$run/steps"
}}
{calls}
on_all end 0 {minutes(_OVER_S)}
"""


def submit_command(run: str, folder: str, *, nodes: int, gpus: int, steps: Sequence[Step], login: bool = False) -> str:
    """Put the run into the queue; prints the job's number. Secrets come on stdin and travel in the job's environment.

    slurmctld keeps that below its folder, which nobody else may read, for as long as the job is there. A lab's job is
    content with fewer nodes after a loss; another's cluster (`login`) has more, and its partition, GPUs and account are
    its user's to say.
    """
    limit = minutes(_OVER_S + sum((one.timeout_s + 60) * (1 + one.restarts) for one in steps))
    devices = f" --gres=gpu:{gpus}" if gpus and not login else ""
    least = f"1-{nodes}" if nodes > 1 and not login else str(nodes)
    return (
        f'set -a; eval "$(cat)"; set +a\n{use(login)}\n'
        f"sbatch --parsable --job-name={run} --nodes={least} --ntasks-per-node=1 --exclusive --requeue"
        f" --time={limit} --chdir=/ --output=/dev/null{devices} {folder}/batch.sh"
    )


def ticket_command(folder: str, job: int) -> str:
    """Let a node know the run's job: whether the run goes on is then Slurm's to say."""
    return f"echo {job} > {folder}/job"


def preamble(nodes: int, *, login: bool = False) -> str:
    """What run.sh does first where Slurm starts it: who takes part is Slurm's to say, and where ranks meet follows."""
    return f"""\
peers= index=0
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    peers="$peers node$index=$(scontrol show node "$host" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')"
    index=$((index + 1))
done
head=${{peers#*=}} head=${{head%% *}}
{_SEATS if login else ""}\
[ "$SLURM_NNODES" -lt {nodes} ] && touch "$run/lost"
export ROOFLAB_GENERATION=${{SLURM_RESTART_COUNT:-0}}
"""


_SEATS = """\
export ROOFLAB_PEERS="${peers# }"
ranks() { # ranks CPU_RANKS: one a GPU that this node has for us, that many where it has none
    local gpus
    gpus=$(nvidia-smi -L 2> /dev/null | grep -c ^GPU)
    if [ "$gpus" -gt 0 ]; then echo "$gpus"; else echo "$1"; fi
}
"""
"""What is known of another's cluster only on its nodes."""
AGAIN = f"""\
    [ ! -e "$run/stopping" ] || exit 1 # by fab stop: there is no exit code to tell
    [ "$code" -eq 0 ] || [ "$code" -eq {HUNG} ] || [ "${{ROOFLAB_AGAIN:-0}}" -eq 0 ] || {{ status=1; return; }}
"""
"""In `work`: a failure after which the batch script tries again is no end yet."""


def choice(names: Sequence[str], works: Sequence[str]) -> str:
    """The end of run.sh: the workload that the step names, or the end of the run."""
    cases = "\n".join(f"{quote(name)}) {work} ;;" for name, work in zip(names, works, strict=True))
    return f"""\
over() {{ # what Slurm ended has left no exit code
    for name in {" ".join(map(quote, names))}; do
        grep -qs "^$name " "$run/codes" && continue
        echo "ended by Slurm, for it failed on another node: see run.log of the head" >> "$run/logs/$name.log"
        echo "$name 1 0" >> "$run/codes"
    done
    grep -qv '^[^ ]* 0 ' "$run/codes" && status=1
    python -m operate.ship "$run" >> "$run/ship.log" 2>&1
    echo "$status" > "$run/exit.partial" && mv "$run/exit.partial" "$run/exit"
    status=0
}}
case $1 in
{cases}
end) over ;;
esac
exit "$status"
"""
