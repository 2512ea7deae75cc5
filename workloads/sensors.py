"""What the machine tells about itself: driver, versions, and clock, power and temperature while it works.

The readings come from `nvidia-smi`, which the driver brings along; where it is absent or refuses, they are None.
"""

import platform
import shutil
import socket
import statistics
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Self

import torch

from labs.results import Machine
from workloads.device import Device

_QUERY = ("driver_version", "clocks.sm", "power.draw", "temperature.gpu")
_PERIOD_MS = 200


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Medians over a measurement; None where the device does not tell."""

    driver: str | None = None
    clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None


class Sensors:
    """Reads a GPU's sensors in the background between `__enter__` and `__exit__`; `reading` holds the medians."""

    def __init__(self, device: Device) -> None:
        """Prepare for `device`; a CPU has no sensors."""
        self.reading = Reading()
        self._device = device
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, name="sensors", daemon=True)

    def __enter__(self) -> Self:
        """Start reading."""
        if self._device.cuda and shutil.which("nvidia-smi"):
            uuid = torch.cuda.get_device_properties(self._device.torch).uuid
            self._process = subprocess.Popen(
                ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits",
                 f"--loop-ms={_PERIOD_MS}"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading and keep the medians."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()
            self.reading = parse(self._lines)

    def _read(self) -> None:
        # A pipe and not a file: should this process die, the next write into the pipe ends nvidia-smi as well.
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self._lines.extend(lines)


def parse(lines: Sequence[str]) -> Reading:
    """Medians of `nvidia-smi`'s lines "driver, MHz, W, °C"; a column that is never a number is None."""
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    whole = [row for row in rows if len(row) == len(_QUERY)]  # the last line may be cut by the end of the process
    if not whole:
        return Reading()
    clock, power, temperature = (_median([row[column] for row in whole]) for column in (1, 2, 3))
    return Reading(driver=whole[0][0], clock_mhz=clock, power_w=power, temperature_c=temperature)


def _median(cells: list[str]) -> float | None:
    numbers = [float(cell) for cell in cells if cell.replace(".", "", 1).isdigit()]
    return statistics.median(numbers) if numbers else None


def describe(device: Device, *, devices: int, reading: Reading, instance_type: str | None, libraries: tuple[str, ...]
             ) -> Machine:  # fmt: skip
    """The machine for a record; `libraries` are the packages whose versions matter beside torch and CUDA's."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {library: version(library) for library in libraries}
    if device.cuda:
        versions["cuda"] = str(torch.version.cuda)
        versions["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    return Machine(
        hostname=socket.gethostname(), device=device.name, devices=devices, instance_type=instance_type,
        driver=reading.driver, clock_mhz=reading.clock_mhz, power_w=reading.power_w,
        temperature_c=reading.temperature_c, versions=versions,
    )  # fmt: skip
