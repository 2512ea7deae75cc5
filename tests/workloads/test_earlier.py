"""Ceilings of the same run are found, and no other machine's."""

from pathlib import Path
from typing import Any

import pytest

from labs.results import Machine, Measurement, Record
from workloads.device import Device
from workloads.earlier import memory_ceiling, product_ceiling


def row(name: str, value: float, unit: str, **config: Any) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, estimator="", config=config, no_roof_because="made up")


@pytest.fixture
def folder(tmp_path: Path, cpu: Device) -> Path:
    machine = Machine(hostname="here", device=cpu.name, devices=1)
    rows = {
        "bandwidth": (
            row("fp32 read 1 MiB", 9e11, "B/s", kernel="read", by="sum", dtype="fp32", past_cache=False),
            row("fp32 read 1 GiB", 5e10, "B/s", kernel="read", by="dot", dtype="fp32", past_cache=True),
            row("fp32 copy 1 GiB", 6e10, "B/s", kernel="copy", by="copy", dtype="fp32", past_cache=True),
        ),
        "gemm": (row("fp32 512x512x512 burst", 2e11, "FLOP/s", dtype="fp32", regime="burst"),),
        "roofline": (
            row("ceiling: memory", 4e10, "B/s", kind="ceiling", by="sum", dtype="fp32"),
            row("ceiling: fp32 products", 3e11, "FLOP/s", kind="ceiling", by="512x512x512", dtype="fp32"),
            row("chain of 8, fused", 7e11, "FLOP/s", kind="fused", dtype="fp32"),
        ),
    }
    for name, measured in rows.items():
        Record(workload=name, machine=machine, measurements=measured, node="node0").write(tmp_path)
    return tmp_path


def test_the_fastest_read_past_the_cache_is_the_memorys_ceiling(folder: Path, cpu: Device) -> None:
    found = memory_ceiling(folder, "node0", cpu)
    assert found is not None
    assert (found.value, found.source) == (5e10, "measured before in this run, memory by dot")


def test_the_fastest_product_of_the_data_type_is_its_ceiling(folder: Path, cpu: Device) -> None:
    found = product_ceiling(folder, "node0", cpu, "fp32")
    assert found is not None
    assert (found.value, found.source) == (3e11, "measured before in this run, ceiling: fp32 products")
    assert product_ceiling(folder, "node0", cpu, "bf16") is None


def test_another_nodes_or_devices_records_say_nothing(folder: Path, cpu: Device, l4: Device) -> None:
    assert memory_ceiling(folder, "node1", cpu) is None
    assert memory_ceiling(folder, "node0", l4) is None
