"""A burst counts at boost clock only; sustained keeps the second half, and says when it did not settle."""

from typing import Any

import pytest
import torch

from workloads import regimes
from workloads.device import Device
from workloads.nvml import Gauge
from workloads.regimes import burst, sustained


class Library:
    """Stands in for libnvidia-ml: answers that a test sets, error codes where it sets none."""

    def __init__(self, **answers: list[int]) -> None:
        self.answers = answers

    def nvmlInit_v2(self) -> int:
        return 0

    def __getattr__(self, function: str) -> Any:
        def ask(*arguments: Any) -> int:
            if function == "nvmlDeviceGetHandleByUUID":
                assert arguments[0] == b"GPU-a-b-c"
                return 0
            if function not in self.answers:
                return 3
            found = self.answers[function]
            arguments[-1]._obj.value = found.pop(0) if len(found) > 1 else found[0]
            return 0

        return ask


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    properties = type("Properties", (), {"uuid": "a-b-c"})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    return Device(torch=torch.device("cuda", 0), name="NVIDIA L4", accelerator=None)


def gauge(gpu: Device, **answers: list[int]) -> Gauge:
    return Gauge(gpu, Library(**answers))


def test_what_nvml_tells_comes_in_units_of_ours(gpu: Device) -> None:
    told = gauge(
        gpu,
        nvmlDeviceGetClockInfo=[1860],
        nvmlDeviceGetMaxClockInfo=[1980],
        nvmlDeviceGetPowerUsage=[685_500],
        nvmlDeviceGetTotalEnergyConsumption=[2_500],
        nvmlDeviceGetCurrentClocksThrottleReasons=[0x24],
    )
    assert (told.clock_mhz, told.top_mhz, told.power_w, told.energy_j) == (1860, 1980, 685.5, 2.5)
    assert told.held_by == ("the power cap", "temperature (software)")


def test_what_nvml_refuses_is_none_with_the_reason(gpu: Device, cpu: Device) -> None:
    refused = gauge(gpu)
    assert (refused.clock_mhz, refused.energy_j, refused.held_by) == (None, None, ())
    assert refused.why == "nvmlDeviceGetCurrentClocksThrottleReasons answers with code 3"
    assert (Gauge(cpu).clock_mhz, Gauge(cpu).why) == (None, "a CPU does not tell its clock here")


def test_a_burst_throws_away_samples_below_boost_clock(cpu: Device, gpu: Device) -> None:
    clocks = [1980, 1500, 1975, 1980]
    taken = burst(cpu, gauge(gpu, nvmlDeviceGetClockInfo=clocks, nvmlDeviceGetMaxClockInfo=[1980]), lambda: None, 15)
    assert (len(taken.samples_s), taken.discarded, taken.verified) == (15, 5, "yes")
    assert taken.told == {"regime": "burst", "clock_mhz": 1980, "boost_verified": "yes", "discarded": 5}


def test_a_device_that_never_boosts_is_measured_and_said_so(cpu: Device, gpu: Device) -> None:
    slow = gauge(gpu, nvmlDeviceGetClockInfo=[1500], nvmlDeviceGetMaxClockInfo=[1980])
    taken = burst(cpu, slow, lambda: None, 5)
    assert (len(taken.samples_s), taken.clock_mhz, taken.verified) == (15, 1500, "no")


def test_a_clock_that_is_not_told_verifies_nothing(cpu: Device) -> None:
    taken = burst(cpu, Gauge(cpu), lambda: None, 7)
    assert (len(taken.samples_s), taken.clock_mhz, taken.verified, taken.discarded) == (10, None, "not told", 0)


def test_sustained_keeps_the_second_half_and_tells_the_energy_of_one_product(
    cpu: Device, gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances by a millisecond whenever it is read, and a counter that advances by a joule."""
    ticks = iter(range(10**9))
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks) / 1000)
    told = gauge(
        gpu,
        nvmlDeviceGetClockInfo=[1980, 1860],
        nvmlDeviceGetMaxClockInfo=[1980],
        nvmlDeviceGetPowerUsage=[710_500, 698_250],
        nvmlDeviceGetEnforcedPowerLimit=[700_000],
        nvmlDeviceGetTotalEnergyConsumption=[1000, 2000],
        nvmlDeviceGetCurrentClocksThrottleReasons=[4],
    )
    monkeypatch.setattr(regimes, "CHUNK_S", 0.01)
    taken = sustained(cpu, told, lambda: None, 1.0)
    assert taken.samples_s == pytest.approx([0.001] * len(taken.samples_s))
    assert 200 <= len(taken.samples_s) <= 300, "a sample reads the clock twice, and the first half is not kept"
    assert taken.joules is not None
    assert taken.joules == pytest.approx(1 / len(taken.samples_s))
    assert taken.told["held_by"] == ("the power cap",)
    assert taken.told["power_w"] == pytest.approx(taken.joules / 0.001)
    assert (taken.told["top_mhz"], taken.told["cap_w"]) == (1980, 700)
    first, *_, last = taken.told["trace"]
    assert first == (0.0, 1980, 710.5), "the trace begins with the half that no sample is kept of"
    assert last[1:] == (1860, 698.25)
    assert 0.9 < last[0] < 1.0
    assert taken.settled


def test_sustained_says_when_the_pace_still_fell(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slower_and_slower() -> None:
        now[0] += 0.01 + now[0] * 0.01

    taken = sustained(cpu, Gauge(cpu), slower_and_slower, 5.0)
    assert not taken.settled
    assert "trace" not in taken.told, "a CPU tells neither clock nor power: there is nothing to draw"


def test_a_product_longer_than_the_whole_stretch_gives_two_samples(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def long() -> None:
        now[0] += 10

    assert sustained(cpu, Gauge(cpu), long, 1.0).samples_s == (10.0, 10.0)
