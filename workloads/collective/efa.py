"""Gathers the evidence that a run goes over EFA: devices, counters, libfabric's list and NCCL's own word, on each node.

What follows from it stands in `labs.efa`. Nothing is asked for on a machine that is not to have EFA.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from labs.efa import PROOF_BYTES, Exercise, Seen, judge
from labs.findings import Finding
from labs.instances import InstanceType
from workloads.collective.nccl import heard
from workloads.collective.sizes import room_bytes
from workloads.collective.sweep import measure
from workloads.group import Group

_DEVICES = Path("/sys/class/infiniband")
_FI_INFO = Path("/opt/amazon/efa/bin/fi_info")
_LIMIT_S = 20
_SETTLE_S = 0.1
"""The kernel reads the counters of a device anew after some ten milliseconds."""
_WARMUP, _TIMED = 2, 8
_SENT = ("send_bytes", "rdma_write_bytes", "rdma_read_resp_bytes")
"""Payload that a device sent, by the way it was sent; tx_bytes is what left it, headers and all."""


def wanted(kind: InstanceType | None, nodes: int, environment: Mapping[str, str] = os.environ,
           devices: Path = _DEVICES) -> int:  # fmt: skip
    """EFAs that each node must have: as many as the lab made (ROOFLAB_EFAS, set where EFA was set up), and on machines
    of which no lab tells, the type's where the kernel has any. 0: not an EFA lab, or nothing leaves the node.

    Raises:
        ValueError: ROOFLAB_EFAS is not a number.
    """
    told = environment.get("ROOFLAB_EFAS", "")
    if told and not told.isdigit():
        raise ValueError(f"ROOFLAB_EFAS={told!r} is not a number: set it as userdata/efa.sh does, or unset it")
    if nodes < 2:
        return 0
    if told:
        return int(told)
    return kind.efas if kind is not None and count_devices(devices) else 0


def count_devices(devices: Path = _DEVICES) -> int:
    """EFA devices that the kernel has."""
    return len(list(devices.iterdir())) if devices.exists() else 0


def read_counters(devices: Path = _DEVICES) -> dict[str, dict[str, int]]:
    """The hardware counters of each device's port; a file that is no number is left out."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(devices.glob("*/ports/1/hw_counters/*")):
        try:
            found.setdefault(path.parents[3].name, {})[path.name] = int(path.read_text())
        except (OSError, ValueError):
            continue
    return found


def sent_bytes(before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]) -> float | None:
    """What all devices sent between two readings; None where a reading does not tell.

    Older drivers count some ways of sending apart and not in tx_bytes, so it is the larger of both.
    """
    whole = 0
    for device, counters in after.items():
        grown = {name: value - before.get(device, {}).get(name, value) for name, value in counters.items()}
        if "tx_bytes" not in grown:
            return None
        whole += max(grown["tx_bytes"], sum(grown.get(name, 0) for name in _SENT))
    return float(whole) if after else None


def read_fi_info(text: str) -> tuple[str, ...]:
    """The provider of each device that fi_info lists with an endpoint of type RDM.

    A device is listed more than once (fabrics efa and efa-direct, and layers upon it such as "efa;ofi_rxd").
    """
    by_device: dict[str, str] = {}
    for entry in re.split(r"^\s*provider:", text, flags=re.MULTILINE)[1:]:
        provider = entry.splitlines()[0].strip()
        values = dict(re.findall(r"^\s*(\w+): *(.*?)\s*$", entry, flags=re.MULTILINE))
        if values.get("type") != "FI_EP_RDM":
            continue
        device = re.sub(r"-(rdm|dgrm)$", "", values.get("domain", ""))
        if by_device.get(device) != "efa":
            by_device[device] = provider
    return tuple(by_device.values())


def ask_fi_info(program: Path | None = None) -> tuple[tuple[str, ...], str]:
    """What libfabric opens, and what fi_info said where that is nothing."""
    found = program or (_FI_INFO if _FI_INFO.exists() else shutil.which("fi_info"))
    if found is None:
        return (), f"there is no fi_info, neither {_FI_INFO} nor in PATH"
    try:
        ran = subprocess.run([str(found), "-p", "efa", "-t", "FI_EP_RDM"], capture_output=True, text=True,
                             timeout=_LIMIT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"fi_info did not answer: {error}"
    providers = read_fi_info(ran.stdout)
    said = (ran.stderr or ran.stdout).strip().splitlines()
    return providers, "" if providers else f"fi_info said {said[0] if said else 'nothing'!r}"


def prove(group: Group, *, nodes: int, local_rank: int, kind: InstanceType | None, efas: int, log: Path
          ) -> tuple[Finding, ...]:  # fmt: skip
    """All-reduce 1 GiB, or what memory allows, between two readings of the counters; what `labs.efa` makes of them.

    Raises:
        CheckFailed: on every rank, if a sum is wrong.
    """
    speaks = local_rank == 0
    room = min(group.gather(room_bytes(group.device, group.size) or PROOF_BYTES))
    providers, said = ask_fi_info() if speaks else ((), "")
    before = _settled(group)
    timed = measure("all-reduce", min(PROOF_BYTES, room), "fp32", group, iterations=_TIMED, warmup=_WARMUP)
    after = _settled(group)
    spoken = heard(log)
    mine = Seen(
        node=os.environ.get("ROOFLAB_NODE") or socket.gethostname(), providers=providers, fi_info=said,
        devices=count_devices(), network=spoken.network, provider=spoken.provider, complaint=spoken.complaint,
        sent_bytes=sent_bytes(before, after),
    )  # fmt: skip
    choice = spoken.choice("all-reduce", timed.size_bytes)
    told = group.gather((mine if speaks else None, choice.algorithm if choice else ""))
    exercise = Exercise(
        size_bytes=timed.size_bytes, operations=_WARMUP + _TIMED, time_s=median(timed.samples_s), ranks=group.size,
        nodes=nodes, algorithm=next((algorithm for _, algorithm in told if algorithm), ""),
    )  # fmt: skip
    return judge([one for one, _ in told if one is not None], exercise, kind, efas)


def _settled(group: Group) -> dict[str, dict[str, int]]:
    """The counters while no rank sends."""
    group.gather(None)
    time.sleep(_SETTLE_S)
    counters = read_counters()
    group.gather(None)
    return counters
