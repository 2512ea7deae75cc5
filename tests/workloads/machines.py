"""What nvidia-smi and the system say on machines that are well and on some that are not.

Not recorded from hardware: written after nvidia-smi's documented formats (`nvidia-smi --help-query-gpu`, csv, noheader,
nounits; `nvidia-smi topo -m`) and the datasheets' figures.
"""

from dataclasses import replace
from typing import Any

from workloads.diagnosis.command import Answer
from workloads.diagnosis.gpus import FIELDS
from workloads.diagnosis.host import Host
from workloads.diagnosis.software import Software

GIB = 2**30

L4 = {
    "index": "0", "name": "NVIDIA L4", "uuid": "GPU-11111111-2222-3333-4444-555555555555",
    "driver_version": "580.95.05", "memory.total": "23034", "memory.used": "1", "clocks.sm": "210",
    "clocks.max.sm": "2040", "power.draw": "16.45", "power.limit": "72.00", "power.default_limit": "72.00",
    "temperature.gpu": "38", "persistence_mode": "Enabled", "compute_mode": "Default", "mig.mode.current": "[N/A]",
    "ecc.mode.current": "Enabled", "ecc.errors.uncorrected.volatile.total": "0",
    "ecc.errors.uncorrected.aggregate.total": "0", "retired_pages.pending": "[N/A]",
    "clocks_event_reasons.active": "0x0000000000000001", "clocks_throttle_reasons.active": "0x0000000000000001",
    "pcie.link.gen.current": "1", "pcie.link.gen.max": "4", "pcie.link.gen.gpumax": "4",
    "pcie.link.width.current": "16", "pcie.link.width.max": "16",
}  # fmt: skip
H200 = L4 | {
    "name": "NVIDIA H200", "memory.total": "143771", "clocks.sm": "345", "clocks.max.sm": "1980",
    "power.draw": "76.82", "power.limit": "700.00", "power.default_limit": "700.00", "mig.mode.current": "Disabled",
    "pcie.link.gen.current": "5", "pcie.link.gen.max": "5", "pcie.link.gen.gpumax": "5",
}  # fmt: skip
A100 = L4 | {
    "name": "NVIDIA A100-SXM4-40GB", "memory.total": "40960", "clocks.max.sm": "1410", "power.limit": "400.00",
    "power.default_limit": "400.00", "mig.mode.current": "Disabled",
}  # fmt: skip


def table(*cards: dict[str, str], fields=FIELDS) -> str:
    """nvidia-smi's table of those GPUs."""
    return "".join(", ".join(card[field] for field in fields) + "\n" for card in cards)


FOUR_L4 = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNODE\tNODE\tNODE\t0-47\t0\t\tN/A
GPU1\tNODE\t X \tNODE\tNODE\t0-47\t0\t\tN/A
GPU2\tNODE\tNODE\t X \tNODE\t0-47\t0\t\tN/A
GPU3\tNODE\tNODE\tNODE\t X \t0-47\t0\t\tN/A

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
"""
"""A g6.12xlarge."""


def nvlinked(*, gpus: int = 8, links: int = 18, down: int = 0) -> str:
    """`topo -m` of a node whose GPUs are all linked; `down`: the links of the last pair that are down."""
    head = "".join(f"\tGPU{index}" for index in range(gpus)) + "\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"

    def cell(row: int, column: int) -> str:
        lame = {row, column} == {gpus - 2, gpus - 1}
        return " X " if row == column else f"NV{links - down if lame else links}"

    rows = "".join(
        f"GPU{row}\t" + "\t".join(cell(row, column) for column in range(gpus)) + "\tSYS\t0-95\t0\tN/A\n"
        for row in range(gpus)
    )
    nic = "NIC0\t" + "\t".join(["SYS"] * gpus) + "\t X \n"
    return f"{head}{rows}{nic}\nLegend:\n\n  NV#  = Connection traversing a bonded set of # NVLinks\n"


BANNER = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""
MODULE = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-AF03-23-1)
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04.2)"""
INSTALLED = Software(
    smi=Answer(0, BANNER), module=MODULE, kernel_log=Answer(0, "[    0.000000] Linux version 6.8.0-1040-aws\n"),
    torch_version="2.13.0+cu130", torch_cuda="13.0", torch_sees=1, hidden=False, on_the_bus=1, machine="g6.xlarge",
    promised="g6.xlarge",
)  # fmt: skip
WELL = Host(
    cpu="AMD EPYC 7R13 Processor", cores=4, quota=0.0, threads=4, governor="", cache=16 * 2**20, numa=1, clock="tsc",
    load=0.3, memory=16 * GIB, available=14 * GIB, swapped=0, shared=8 * GIB, free={"/tmp": 100 * GIB}, disks="",
    locked=-1, files=1048576, fabrics=0,
)  # fmt: skip
DISKS = """{"blockdevices": [
 {"name": "nvme0n1", "model": "Amazon Elastic Block Store", "size": 161061273600, "type": "disk", "fstype": null,
  "mountpoints": [null], "children": [
   {"name": "nvme0n1p1", "model": null, "size": 160059850240, "type": "part", "fstype": "ext4", "mountpoints": ["/"]}]},
 {"name": "nvme1n1", "model": "Amazon EC2 NVMe Instance Storage", "size": 250000000000, "type": "disk",
  "fstype": null, "mountpoints": [null]}]}"""
"""A g6.xlarge whose own disk nobody mounted, as `lsblk --json -b` says it."""


def installed(**changed: Any) -> Software:
    """A node that is well but for this."""
    return replace(INSTALLED, **changed)


def well(**changed: Any) -> Host:
    """A machine that is well but for this."""
    return replace(WELL, **changed)
