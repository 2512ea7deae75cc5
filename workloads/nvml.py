"""A GPU's clock, power and energy at this moment, from NVML, the library that the driver brings along.

`workloads.sensors` watches a whole measurement from outside, five times a second; a sample of a millisecond needs its
clock read while it runs. Whatever NVML refuses is None, and `why` says what it refused with.
API: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import ctypes
from typing import Any

import torch

from workloads.device import Device

_SM = 1
"""NVML_CLOCK_SM."""
_REASONS = {
    0x4: "the power cap", 0x8: "a hardware slowdown", 0x20: "temperature (software)", 0x40: "temperature (hardware)",
    0x80: "the power brake",
}  # fmt: skip
"""nvmlClocksThrottleReasons that cost speed (https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html)."""


class Gauge:
    """Reads one device; everything is None on a CPU."""

    def __init__(self, device: Device, library: Any = None) -> None:
        """Open the device; `library` is what stands in for NVML in a test."""
        self._handle: Any = None
        self.why = "" if device.cuda else "a CPU does not tell its clock here"
        if not device.cuda:
            return
        try:
            self._nvml = library or ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            self.why = f"NVML cannot be loaded: {error}"
            return
        handle = ctypes.c_void_p()
        name = f"GPU-{torch.cuda.get_device_properties(device.torch).uuid}".encode()
        for call in (lambda: self._nvml.nvmlInit_v2(),
                     lambda: self._nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle))):  # fmt: skip
            code = call()
            if code:
                self.why = f"NVML refuses this device with code {code}"
                return
        self._handle = handle

    @property
    def clock_mhz(self) -> float | None:
        """The SM clock now."""
        return self._ask(ctypes.c_uint(), "nvmlDeviceGetClockInfo", _SM)

    @property
    def top_mhz(self) -> float | None:
        """The highest SM clock that the device may take."""
        return self._ask(ctypes.c_uint(), "nvmlDeviceGetMaxClockInfo", _SM)

    @property
    def power_w(self) -> float | None:
        """Power now; an average over up to a second on some devices."""
        milliwatts = self._ask(ctypes.c_uint(), "nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    @property
    def cap_w(self) -> float | None:
        """The power that the driver holds the device to."""
        milliwatts = self._ask(ctypes.c_uint(), "nvmlDeviceGetEnforcedPowerLimit")
        return None if milliwatts is None else milliwatts / 1e3

    @property
    def energy_j(self) -> float | None:
        """Energy since the driver was loaded."""
        millijoules = self._ask(ctypes.c_ulonglong(), "nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    @property
    def held_by(self) -> tuple[str, ...]:
        """What keeps the clock down now; empty where nothing does, or where the device does not tell."""
        bits = int(self._ask(ctypes.c_ulonglong(), "nvmlDeviceGetCurrentClocksThrottleReasons") or 0)
        return tuple(reason for bit, reason in _REASONS.items() if bits & bit)

    def _ask(self, answer: Any, function: str, *arguments: int) -> float | None:
        if self._handle is None:
            return None
        code = getattr(self._nvml, function)(self._handle, *arguments, ctypes.byref(answer))
        if code:
            self.why = f"{function} answers with code {code}"
            return None
        return float(answer.value)
