"""The machine around the GPUs: cores, memory, disks, and the limits that a process has."""

import json
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labs.findings import Finding, fail, note, ok, warn
from labs.placement import gib
from workloads.device import cache_bytes, find_device
from workloads.diagnosis.command import ask
from workloads.processor import cores, cpu_name

_GIB = 2**30
_INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the system tells; 0 or "" where it does not."""

    cpu: str
    cores: int
    """That this process may run on."""
    quota: float
    """Cores' worth of time that a container may take; 0 for no limit."""
    threads: int
    """That torch uses."""
    governor: str
    cache: int
    """Bytes of the last-level cache."""
    numa: int
    """Memory nodes."""
    clock: str
    """The kernel's clock source."""
    load: float
    """Mean processes that ran or wanted to, over the last minute."""
    memory: int
    available: int
    swapped: int
    """Bytes of memory, of what is free to be used, and of what lies in swap."""
    shared: int
    """Bytes of /dev/shm."""
    free: Mapping[str, int]
    """Bytes that are free, by the path of a folder that matters."""
    disks: str
    """`lsblk --json -b -o …`'s answer."""
    locked: int
    """Bytes that a process may lock in memory; -1 for no limit."""
    files: int
    """That a process may hold open."""
    fabrics: int
    """RDMA devices (EFA)."""


def look(out: Path) -> Host:
    """Ask this machine; `out` is where records go."""
    memory = _memory(_read("/proc/meminfo"))
    load, _, _ = os.getloadavg()
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK) if hasattr(resource, "RLIMIT_MEMLOCK") else (0, 0)
    scratch = os.environ.get("ROOFLAB_SCRATCH", "")
    existing = next(path for path in (out, *out.resolve().parents) if path.exists())
    places = {str(path): path for path in (Path("/tmp"), existing.resolve(), *([Path(scratch)] if scratch else []))}
    return Host(
        cpu=cpu_name(), cores=cores(),
        quota=quota(_read("/sys/fs/cgroup/cpu.max")), threads=torch.get_num_threads(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), cache=cache_bytes(find_device("cpu")),
        numa=len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
        clock=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"), load=load,
        memory=memory.get("MemTotal", 0), available=memory.get("MemAvailable", 0),
        swapped=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0), shared=_size(Path("/dev/shm")),
        free={name: _free(path) for name, path in places.items() if path.exists()},
        disks=ask("lsblk", "--json", "-b", "-o", "NAME,MODEL,SIZE,TYPE,FSTYPE,MOUNTPOINTS").text,
        locked=-1 if soft == resource.RLIM_INFINITY else soft, files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        fabrics=len(list(Path("/sys/class/infiniband").glob("*"))),
    )  # fmt: skip


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _memory(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3}


def quota(text: str) -> float:
    """Cores' worth of time of cgroup v2's cpu.max, "QUOTA PERIOD"; 0 for "max" or no answer."""
    given, _, period = text.partition(" ")
    return int(given) / int(period) if given.isdigit() and period.isdigit() and int(period) else 0.0


def _size(path: Path) -> int:
    try:
        told = os.statvfs(path)
    except OSError:
        return 0
    return told.f_frsize * told.f_blocks


def _free(path: Path) -> int:
    told = os.statvfs(path)
    return told.f_frsize * told.f_bavail


def judge(host: Host) -> Iterator[Finding]:
    """What holds of the machine."""
    nodes = "one NUMA node" if host.numa == 1 else f"{host.numa} NUMA nodes"
    yield ok("CPU", f"{host.cpu}, {host.cores} cores, {nodes}, last-level cache "
             f"{host.cache / 2**20:.0f} MiB, torch uses {host.threads} threads")  # fmt: skip
    yield from _processor(host)
    yield ok("memory", f"{gib(host.memory)}, {gib(host.available)} available")
    yield from _memory_of(host)
    yield from _disks(host)
    yield from _limits(host)


def _processor(host: Host) -> Iterator[Finding]:
    if host.governor and host.governor != "performance":
        yield note("CPU", f"its governor is {host.governor}", means="the clock rises only under load: warm up longer",
                   do="sudo cpupower frequency-set -g performance")  # fmt: skip
    if host.quota and host.quota < host.cores:
        yield warn(
            "CPU",
            f"a container may use {host.quota:g} of {host.cores} cores",
            means="threads beyond that are stopped all the time",
            do="set OMP_NUM_THREADS to that number",
        )
    if host.load > 1.5 * host.cores:
        yield warn("CPU", f"load {host.load:.1f} on {host.cores} cores", means="others compute here: times are wrong",
                   do="wait, or end what top shows")  # fmt: skip
    if host.clock and host.clock not in ("tsc", "kvm-clock", "arch_sys_counter"):
        yield note("CPU", f"the kernel's clock is {host.clock}", means="reading the time takes microseconds",
                   do="choose tsc as the clock source")  # fmt: skip


def _memory_of(host: Host) -> Iterator[Finding]:
    if host.memory and host.available < host.memory / 10:
        yield warn("memory", f"{gib(host.available)} of {gib(host.memory)} available", means="a workload may be killed",
                   do="end what top -o %MEM shows")  # fmt: skip
    if host.swapped > _GIB:
        yield warn("memory", f"{gib(host.swapped)} lie in swap", means="what comes back from there is a disk's speed",
                   do="end what took it, then swapoff -a && swapon -a")  # fmt: skip
    if 0 < host.shared < _GIB:
        yield warn("memory", f"/dev/shm has {gib(host.shared)}", means="NCCL and data loaders hand over through it and "
                   "fail", do="docker run --ipc=host, or --shm-size=16g")  # fmt: skip


def _disks(host: Host) -> Iterator[Finding]:
    for place, free in host.free.items():
        if free < 2 * _GIB:
            yield fail("disk", f"{gib(free)} free at {place}", means="records and checkpoints cannot be written",
                       do=f"make room: du -xh -d1 {place} | sort -h")  # fmt: skip
        elif free < 20 * _GIB:
            yield note("disk", f"{gib(free)} free at {place}", means="a 7B model's weights alone are 13.5 GiB")
        else:
            yield ok("disk", f"{gib(free)} free at {place}")
    idle = unmounted(host.disks)
    if idle:
        yield warn("disk", f"instance store not mounted: {', '.join(idle)}", means="scratch lies on the network's "
                   "volume", do="mkfs.ext4 and mount it, or start a fresh node, which does both")  # fmt: skip


def unmounted(lsblk: str) -> list[str]:
    """The instance's own NVMe disks that nothing is mounted from, by name and size."""
    try:
        disks: list[dict[str, Any]] = json.loads(lsblk)["blockdevices"]
    except (ValueError, KeyError, TypeError):
        return []
    own = [disk for disk in disks if (disk.get("model") or "").strip() == _INSTANCE_STORE]
    return [f"{disk['name']} ({int(disk['size']) / 1e9:.0f} GB)" for disk in own if not _mounted(disk)]


def _mounted(disk: Mapping[str, Any]) -> bool:
    """Whether the disk or anything made of it is mounted."""
    return any(disk.get("mountpoints") or ()) or any(_mounted(child) for child in disk.get("children") or ())


def _limits(host: Host) -> Iterator[Finding]:
    if host.fabrics and host.locked != -1:
        yield warn("limits", f"{gib(host.locked)} may be locked in memory, with {host.fabrics} EFA devices",
                   means="EFA registers its buffers there and fails",
                   do="ulimit -l unlimited, for good in /etc/security/limits.d")  # fmt: skip
    if host.files < 4096:
        yield note("limits", f"{host.files} open files a process", means="data loaders with many workers need more",
                   do="ulimit -n 65536")  # fmt: skip
    if not (host.fabrics and host.locked != -1) and host.files >= 4096:
        locked = "any amount" if host.locked == -1 else gib(host.locked)
        yield ok("limits", f"{host.files} open files, {locked} locked in memory, {host.fabrics} EFA devices")
