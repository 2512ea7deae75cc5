"""Whether driver, CUDA and torch fit together, and what the kernel has logged of the GPUs.

Forms: `nvidia-smi`'s banner; /proc/driver/nvidia/version; Xid messages of the kernel log,
https://docs.nvidia.com/deploy/xid-errors/index.html; CUDA's compatibility,
https://docs.nvidia.com/deploy/cuda-compatibility/
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.findings import Finding, fail, note, ok, warn
from labs.instances import instance_types
from workloads.diagnosis.command import Answer, ask

_BANNER = re.compile(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)")
_MODULE = re.compile(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s")
_XID = re.compile(r"NVRM: Xid \(PCI:([^)]+)\): (\d+)")
_HARDWARE = {
    48: "an uncorrected memory error", 63: "a memory row was replaced", 64: "a memory row could not be replaced",
    74: "an NVLink error", 79: "the GPU fell off the bus", 92: "many corrected memory errors",
    94: "a memory error that hit one process", 95: "a memory error that hit all processes",
    119: "the GPU's own processor does not answer", 120: "the GPU's own processor failed",
}  # fmt: skip
"""Xids that speak of hardware; others are mostly a program's own fault."""
_FATAL = (64, 79, 95, 119, 120)
_MOVE = "stop and start the instance: it moves to other hardware"
_DRIVER = "reinstall the driver (on AWS: a Deep Learning Base AMI brings it), or start a fresh node"


@dataclass(frozen=True, kw_only=True)
class Software:
    """What is installed, and what each piece says of the others."""

    smi: Answer
    """nvidia-smi without arguments."""
    module: str
    """Text of /proc/driver/nvidia/version; "" where there is none."""
    kernel_log: Answer
    torch_version: str
    torch_cuda: str | None
    """CUDA that torch was built for; None for a build without."""
    torch_sees: int
    """GPUs that torch can use."""
    hidden: bool
    """Whether CUDA_VISIBLE_DEVICES chooses among them."""
    on_the_bus: int
    """NVIDIA's display and 3D controllers on the PCI bus."""
    machine: str
    """The instance type that the hardware claims to be; "" off EC2."""
    promised: str
    """The instance type that the launcher names; "" without one."""

    @property
    def driver(self) -> str:
        """Version of the kernel's module, or ""."""
        match = _MODULE.search(self.module)
        return match[1] if match else ""

    @property
    def driver_cuda(self) -> tuple[int, int] | None:
        """Newest CUDA that the driver speaks."""
        match = _BANNER.search(self.smi.text)
        return (int(match[1]), int(match[2])) if match else None


def look() -> Software:
    """Ask this machine."""
    module = Path("/proc/driver/nvidia/version")
    vendor, product = (_text(Path("/sys/class/dmi/id") / name) for name in ("sys_vendor", "product_name"))
    return Software(
        smi=ask("nvidia-smi"), module=_text(module), kernel_log=ask("dmesg"), torch_version=str(torch.__version__),
        torch_cuda=torch.version.cuda, torch_sees=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        hidden="CUDA_VISIBLE_DEVICES" in os.environ, on_the_bus=on_the_bus(Path("/sys/bus/pci/devices")),
        machine=product if vendor == "Amazon EC2" else "",
        promised=os.environ.get("ROOFLAB_INSTANCE_TYPE", "").partition(",")[0],
    )  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def on_the_bus(devices: Path) -> int:
    """NVIDIA's (0x10de) display controllers (class 0x03) below /sys/bus/pci/devices."""
    found = [path.parent for path in devices.glob("*/vendor") if _text(path) == "0x10de"]
    return sum(_text(path / "class").startswith("0x03") for path in found)


def judge(software: Software, cards: int) -> Iterator[Finding]:
    """What holds of driver, CUDA and torch; `cards` GPUs answered nvidia-smi."""
    yield from _presence(software, cards)
    if cards or software.on_the_bus:
        yield from _match(software, cards)
        yield from xids(software.kernel_log)


def _presence(software: Software, cards: int) -> Iterator[Finding]:
    if cards:
        return
    if software.on_the_bus:
        said = software.smi.text.strip().splitlines()
        words = f"{software.on_the_bus} NVIDIA GPUs on the bus, and nvidia-smi says: {said[0] if said else 'nothing'}"
        yield fail("driver", words, means="no GPU can be used", do=_remedy(software.smi))
        return
    for name, claimed in ((software.machine, True), (software.promised, False)):
        kind = instance_types().get(name)
        if kind is not None and kind.gpus and claimed:
            yield fail("driver", f"a {name} has {kind.gpus} × {kind.gpu}, and none is on the bus",
                       means="the GPU has failed", do=_MOVE)  # fmt: skip
            return
        if kind is not None and kind.gpus:
            yield warn("driver", f"this machine has none of the GPUs of a {name}", means="every number is a CPU's",
                       do="nothing in a rehearsal; on EC2 see lspci")  # fmt: skip
            return
    yield ok("driver", "no GPU on this machine, and none was promised")


def _remedy(smi: Answer) -> str:
    if "version mismatch" in smi.text:
        return "reboot: the library was updated and the old kernel module is still loaded"
    if smi.code == 127:
        return "nvidia-smi is not installed: " + _DRIVER
    if smi.code == 124:
        return "the driver hangs: reboot; where it hangs again, stop and start the instance"
    if "lost" in smi.text or "fallen off" in smi.text:
        return _MOVE
    return "sudo modprobe nvidia, then dmesg tells why not; else " + _DRIVER


def _match(software: Software, cards: int) -> Iterator[Finding]:
    torch_said = f"torch {software.torch_version}"
    if software.torch_cuda is None:
        yield fail("torch", f"{torch_said} was built without CUDA", means="workloads run on the CPU",
                   do="pip install torch from the index for CUDA: requirements.txt names the version")  # fmt: skip
        return
    needed = tuple(int(part) for part in software.torch_cuda.split(".")[:2])
    have = software.driver_cuda
    words = f"{torch_said} for CUDA {software.torch_cuda}, driver {software.driver or 'unknown'}"
    words += f" for CUDA {have[0]}.{have[1]}" if have else ""
    if have and have[0] < needed[0] and not software.torch_sees:
        yield fail("torch", words, means="a driver runs programs of its own CUDA's major version and older ones",
                   do=f"install a driver for CUDA {needed[0]}, or torch for CUDA {have[0]}")  # fmt: skip
    elif have and have < needed:
        yield note("torch", words, means="it runs; what needs the newer driver (new PTX, for one) fails by name")
    elif software.torch_sees:
        yield ok("torch", words)
    if have and have[0] >= needed[0] and not software.torch_sees and not software.hidden:
        yield fail("torch", f"{torch_said} can use none of {cards} GPUs", means="CUDA does not start",
                   do="python -c 'import torch; torch.cuda.init()' tells why; a reboot mends most of it")  # fmt: skip
    elif 0 < software.torch_sees < cards:
        why = "CUDA_VISIBLE_DEVICES chooses them" if software.hidden else "nobody hides the others"
        yield warn("torch", f"it sees {software.torch_sees} of {cards} GPUs: {why}", means="the others stand idle",
                   do="unset CUDA_VISIBLE_DEVICES" if software.hidden else "nvidia-smi -L, then reboot")  # fmt: skip


def xids(log: Answer) -> Iterator[Finding]:
    """What the kernel logged of GPU errors since it booted, each kind once."""
    if log.code != 0:
        reason = log.text.strip().splitlines()[-1] if log.text.strip() else f"exit code {log.code}"
        yield note("kernel log", f"not readable: {reason}", means="GPU errors (Xid) may stand in it", do="sudo dmesg")
        return
    seen: dict[tuple[str, int], int] = {}
    for bus, number in _XID.findall(log.text):
        seen[bus, int(number)] = seen.get((bus, int(number)), 0) + 1
    if not seen:
        yield ok("kernel log", "no GPU error (Xid) since it booted")
    for (bus, number), times in seen.items():
        words = f"Xid {number} on {bus}, {times} times" if times > 1 else f"Xid {number} on {bus}"
        if number not in _HARDWARE:
            yield note("kernel log", words, means="mostly a program's own fault (an illegal address, an abort)")
        elif number in _FATAL:
            yield fail("kernel log", f"{words}: {_HARDWARE[number]}", means="the GPU cannot be relied on",
                       do=_MOVE)  # fmt: skip
        else:
            yield warn("kernel log", f"{words}: {_HARDWARE[number]}", means="results since then are in doubt",
                       do="reboot; where it comes back, stop and start the instance")  # fmt: skip
