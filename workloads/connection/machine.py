"""What a node can say of itself without asking a peer: versions, interfaces, EFA, and what its GPUs' driver reports."""

import ctypes
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from labs.findings import Finding, fail, warn
from workloads.connection.interfaces import Choice
from workloads.diagnosis import gpus
from workloads.diagnosis.command import ask, query, rows

ASK_S = 8.0
"""Longest wait for a program: a driver that hangs does so for ever."""
_LIBFABRIC = re.compile(r"libfabric: *(\S+)")
_EFA_PATH = "/opt/amazon/efa/bin"


def facts(environment: Mapping[str, str], mtu: str) -> dict[str, str]:
    """What should be the same on all nodes; the devices' own versions come from the ranks."""
    found = {"python": platform.python_version(), "mtu": mtu, "commit": environment.get("ROOFLAB_COMMIT", "")}
    try:
        found["torch"] = version("torch")
    except PackageNotFoundError:
        found["torch"] = "none"
    if smi := shutil.which("nvidia-smi", path=environment.get("PATH")):
        answer = ask(smi, "--query-gpu=driver_version", "--format=csv,noheader", limit_s=ASK_S)
        found["driver"] = answer.text.split("\n")[0].strip() if answer.code == 0 else ""
    if program := fi_info(environment):
        told = _LIBFABRIC.search(ask(program, "--version", limit_s=ASK_S).text)
        found["libfabric"] = told[1] if told else ""
    found["clock"] = clock_state()
    return {name: value for name, value in found.items() if value}


def fi_info(environment: Mapping[str, str]) -> str | None:
    """libfabric's own program, on the PATH or where EFA's installer puts it."""
    return shutil.which("fi_info", path=f"{environment.get('PATH', '')}:{_EFA_PATH}")


def clock_state() -> str:
    """ "kept" where the kernel's clock follows a time server, "free" where it does not, "" where it is not told."""
    if sys.platform != "linux":
        return ""
    # adjtimex(2) with no mode set only reads; 5 is TIME_ERROR: not synchronised
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    return "" if state < 0 else "free" if state == 5 else "kept"


def count_gpus(environment: Mapping[str, str]) -> tuple[int, str]:
    """GPUs that the driver lists, as fab counts them for a run's ranks; and why none are told, where it is broken."""
    smi = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if smi is None:
        return 0, ""
    answer = ask(smi, "-L", limit_s=ASK_S)
    count = sum(line.startswith("GPU ") for line in answer.text.splitlines())
    said = answer.text.strip().splitlines()
    return count, "" if count or answer.code == 0 else (said[-1] if said else f"exit code {answer.code}")


def interfaces(node: str, choices: Sequence[Choice]) -> Iterator[Finding]:
    """What the collectives' variables name that this node has not."""
    for choice in choices:
        if choice.problem:
            yield fail(node, f"wrong interface: {choice.problem}", "its ranks find no interface and end, or hang",
                       "unset the variable, or name the interface that `ip route` shows")  # fmt: skip


def fabric(node: str, environment: Mapping[str, str], devices: Path = Path("/sys/class/infiniband")
           ) -> Iterator[Finding]:  # fmt: skip
    """Whether EFA is there as this node was set up for; nothing where it was not."""
    wanted = environment.get("ROOFLAB_EFAS", "") or ("1" if environment.get("FI_PROVIDER") == "efa" else "0")
    count = int(wanted) if wanted.isdigit() else 0
    if not count:
        return
    means, do = "NCCL falls back to TCP or does not start", "sudo modprobe efa and dmesg there; else start a fresh node"
    found = len(list(devices.glob("*"))) if devices.exists() else 0
    program = fi_info(environment)
    if program is None:
        yield fail(node, f"missing EFA: {count} EFAs expected, and fi_info is not installed", means,
                   "a Deep Learning Base AMI brings it; else install aws-efa-installer")  # fmt: skip
        return
    answer = ask(program, "-p", "efa", "-t", "FI_EP_RDM", limit_s=ASK_S)
    if answer.code != 0 or "provider: efa" not in answer.text:
        said = answer.text.strip().splitlines()
        words = f"missing EFA: fi_info -p efa finds no provider ({said[-1] if said else f'exit code {answer.code}'})"
        yield fail(node, f"{words}; {count} EFAs expected", means, do)
    elif found < count:
        yield fail(node, f"missing EFA: {found} of {count} EFA devices are there", means, do)


def cards(node: str, ranks: int) -> Iterator[Finding]:
    """GPUs whose driver reports a fault of the hardware."""
    if not ranks:
        return
    answer, known = query(gpus.FIELDS)
    for row in rows(answer.text, known) if answer.code == 0 else ():
        card = gpus.Card(told=row)
        for one in gpus.judge(card, {}):
            if one.level == "fail":
                local = card.told.get("index", "?")
                yield fail(f"{node} rank {local}", f"GPU fault: {one.subject}: {one.seen}", one.means, one.do)


def driver(node: str, why: str) -> Iterator[Finding]:
    """A driver that is there and lists no GPU."""
    if why:
        yield fail(node, f"GPU fault: nvidia-smi lists no GPU: {why}", "its ranks would run on the CPU",
                   "fab doctor there tells more; reboot, or stop and start the instance")  # fmt: skip


def address(node: str, told: str, failure: OSError | None, port: int) -> Iterator[Finding]:
    """Whether this node can listen where its peers look for it."""
    if failure is None:
        return
    if isinstance(failure, OSError) and failure.errno in (98, 48):
        yield fail(node, f"not running: port {port} of {told} is taken by another program", "peers cannot reach it",
                   f"ss -ltnp | grep {port} there tells by which; fab stop ends a run")  # fmt: skip
    else:
        why = os.strerror(failure.errno or 0).lower()
        yield warn(node, f"wrong interface: peers are told {told}, which none of its interfaces has ({why})",
                   "collectives announce another address than peers know",
                   "give addresses that the machines themselves have")  # fmt: skip
