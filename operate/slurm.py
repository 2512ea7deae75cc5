"""Slurm on a lab's nodes, as text: its configuration, and the commands that start its daemons and ask them.

User data has installed Slurm and munge asleep. Here they run as the login user, below ~/.rooflab/slurm on each node:
no root is asked for, nothing of the system's is changed, and what the rehearsal runs is what AWS runs. node0 holds the
controller. The munge key is made anew on the laptop, in memory, whenever the daemons are set up; it travels to the
nodes on stdin and lies there with mode 0400. Pure functions, no machine needed.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

HERE = "~/.rooflab/slurm"
"""Folder of all that Slurm has on a node, as a bash word."""
PARTITION = "rooflab"
SILENT_S = 20
"""A node whose slurmd says nothing for so long is down: its job is put into the queue again."""
AGAIN_S = 10
"""How long such a job waits there at least: until its old credentials are void. Slurm's own choice is 120 s."""
_KILL_S = 5
"""Between SIGTERM and SIGKILL. What a notice of the node's end leaves to save is longer: its SIGTERM is not Slurm's."""
TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
USE = f'export SLURM_CONF={HERE}/slurm.conf PATH="$PATH:/usr/sbin:/sbin"'
"""What a shell on a node does before it asks the lab's Slurm."""


def use(login: bool) -> str:
    """What a shell does before it asks Slurm: the lab's, or the one that its login node has."""
    return "[ -f ~/.rooflab/env.sh ] && . ~/.rooflab/env.sh" if login else USE


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What Slurm must know of a node."""

    node: str
    address: str
    """Where the other nodes reach it."""
    hostname: str
    """`hostname -s` there."""
    cores: int
    gpus: int


def survey_command() -> str:
    """What to ask a node: "hostname NAME", "gpus COUNT" and a line "missing TOOL" for each tool that it has not."""
    return f"""\
PATH="$PATH:/usr/sbin:/sbin"
echo "hostname $(hostname -s)"
echo "gpus $(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)"
for tool in {" ".join(TOOLS)}; do command -v "$tool" > /dev/null || echo "missing $tool"; done"""


def read_survey(text: str) -> tuple[str, int, tuple[str, ...]]:
    """Host name, GPUs and missing tools, from what `survey_command` printed."""
    rows = [line.partition(" ")[::2] for line in text.splitlines()]
    told = dict(rows)
    return told["hostname"], int(told["gpus"]), tuple(tool for what, tool in rows if what == "missing")


def port(machines: Sequence[Machine]) -> int:
    """The controller's port, 11000 to 18999, and before those of the nodes; clusters of one machine have others."""
    return 11000 + zlib.crc32(" ".join(one.address for one in machines).encode()) % 8000


def config(machines: Sequence[Machine]) -> str:
    """slurm.conf of every node, where @HERE@, @USER@ and @SOCKETS@ stand for what differs from node to node."""
    head, first = machines[0], port(machines)
    nodes = "\n".join(
        f"NodeName={one.node} NodeHostname={one.hostname} NodeAddr={one.address} Port={first + 1 + index}"
        f" CPUs={one.cores}{f' Gres=gpu:{one.gpus}' if one.gpus else ''} State=UNKNOWN"
        for index, one in enumerate(machines)
    )
    return f"""\
ClusterName=rooflab
SlurmctldHost={head.hostname}({head.address})
SlurmctldPort={first}
SlurmUser=@USER@
SlurmdUser=@USER@
AuthType=auth/munge
AuthInfo=socket=@SOCKETS@/munge.socket,cred_expire={AGAIN_S}
StateSaveLocation=@HERE@/state
SlurmdSpoolDir=@SOCKETS@/spool
SlurmctldPidFile=@HERE@/slurmctld.pid
SlurmdPidFile=@HERE@/slurmd.pid
SlurmctldLogFile=@HERE@/slurmctld.log
SlurmdLogFile=@HERE@/slurmd.log
TaskProlog=@HERE@/prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
GresTypes=gpu
ReturnToService=2
JobRequeue=1
SlurmdTimeout={SILENT_S}
KillWait={_KILL_S}
MessageTimeout=10
SchedulerParameters=bf_interval=5
{nodes}
PartitionName={PARTITION} Nodes={",".join(one.node for one in machines)} Default=YES MaxTime=INFINITE State=UP
"""


def gres(machines: Sequence[Machine]) -> str:
    """gres.conf: the GPUs' device files, by which Slurm sets CUDA_VISIBLE_DEVICES."""
    return "".join(
        f"NodeName={one.node} Name=gpu File=/dev/nvidia{'0' if one.gpus == 1 else f'[0-{one.gpus - 1}]'}\n"
        for one in machines
        if one.gpus
    )


def stamp(machines: Sequence[Machine]) -> str:
    """Names one configuration."""
    return hashlib.sha256((config(machines) + gres(machines)).encode()).hexdigest()[:16]


def check_command(machines: Sequence[Machine], node: str) -> str:
    """Exit code 0 where the daemons of this configuration run on `node`."""
    daemons = " ".join(_daemons(machines, node))
    return f"""\
cd {HERE} 2> /dev/null && [ "$(cat stamp 2> /dev/null)" = {stamp(machines)} ] || exit 1
for daemon in {daemons}; do kill -0 "$(cat $daemon.pid 2> /dev/null)" 2> /dev/null || exit 1; done"""


def start_command(machines: Sequence[Machine], node: str) -> str:
    """Start the daemons on `node`, whatever ran before; the key comes on stdin, and the files of `files` lie there.

    A task has the environment of whoever submitted it, on another node: its prolog gives it this node's own.
    """
    controller = "\nslurmctld -i -f slurm.conf" if node == machines[0].node else ""
    return f"""\
set -e
umask 077
{USE}
mkdir -p {HERE}
cd {HERE}
here=$PWD
sockets=${{TMPDIR:-/tmp}}/rooflab-$(id -u)-$(printf %s "$HOME" | cksum | cut -d' ' -f1)
for daemon in slurmd slurmctld munged; do
    pid=$(cat $daemon.pid 2> /dev/null) && kill "$pid" 2> /dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
done
rm -rf stamp state munge.key "$sockets"
mkdir state
mkdir -m 0711 "$sockets"  # a socket's path has room for 108 letters, and the home's may be long
mkdir "$sockets/spool"
cat > munge.key
chmod 0400 munge.key
cat > slurm.conf.new << 'END'
{config(machines)}END
sed "s|@HERE@|$here|g; s|@USER@|$(id -un)|g; s|@SOCKETS@|$sockets|g" slurm.conf.new > slurm.conf
cat > gres.conf << 'END'
{gres(machines)}END
env | grep -E '^[A-Za-z_][A-Za-z0-9_]*=' | grep -vE '^(SSH_|XDG_|SLURM_|PWD=|OLDPWD=|SHLVL=|_=)' \\
    | sed 's/^/export /' > environment
echo "export SLURM_CONF=$here/slurm.conf" >> environment
printf '#!/bin/sh\\ncat "%s/environment"\\n' "$here" > prolog
chmod 0700 prolog
munged --key-file="$here/munge.key" --socket="$sockets/munge.socket" --pid-file="$here/munged.pid" \\
    --log-file="$here/munged.log" --seed-file="$here/munge.seed"{controller}
slurmd -N {node} -f "$here/slurm.conf"
echo {stamp(machines)} > stamp"""


def _daemons(machines: Sequence[Machine], node: str) -> tuple[str, ...]:
    return ("munged", "slurmctld", "slurmd") if node == machines[0].node else ("munged", "slurmd")


def ready_command(count: int, limit_s: int = 60) -> str:
    """Wait on the controller's node until `count` nodes take jobs; says which do not."""
    return f"""\
{USE}
for _ in $(seq {limit_s * 2}); do
    [ "$(sinfo -h -N -t idle,mixed,allocated -o %N 2> /dev/null | sort -u | wc -l)" -eq {count} ] && exit 0
    sleep 0.5
done
sinfo -h -N -o '%N %T %E' >&2
tail -n 3 {HERE}/slurmctld.log >&2
exit 1"""


def down_command(names: Sequence[str]) -> str:
    """Tell the controller of nodes that are lost, before it finds out."""
    listed = quote(",".join(names))
    return f"{USE}; scontrol update NodeName={listed} State=DOWN Reason=lost"


def scancel(job: int, *, login: bool = False) -> str:
    """End a job, waiting or running, and wait until it is over."""
    return f"""\
{use(login)}
scancel {job}
for _ in $(seq {_KILL_S * 24}); do [ -n "$(squeue -h -j {job} -o %T 2> /dev/null)" ] || break; sleep 0.25; done"""


def stopping_command(folder: str) -> str:
    """Let a node's part of the run know that it is Slurm's SIGTERM on behalf of the user that comes."""
    return f"[ -d {folder} ] && : > {folder}/stopping"


def queue_command(job: int, *, login: bool = False) -> str:
    """One line about a job as the queue has it; none where it is over."""
    return f"{use(login)}; squeue -h -j {job} -o 'Slurm job %i (%P): %T on %N, %M of %l %r' 2> /dev/null || true"
