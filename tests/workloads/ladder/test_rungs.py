"""Which rungs a device has, why it lacks the others, and on what each stands."""

import shutil

import pytest
import torch

from labs.accelerators import by_driver_name
from workloads.device import Device
from workloads.ladder import rungs as module
from workloads.ladder.rungs import Rung, rungs


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has compilers, Triton and torchao."""
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def gpu(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> dict[str, Rung]:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    device = Device(torch=torch.device("cuda"), name=name, accelerator=by_driver_name(name))
    return {rung.name: rung for rung in rungs(device)}


@pytest.mark.usefixtures("everything")
def test_a_cpu_climbs_to_int8_and_says_what_it_lacks(cpu: Device) -> None:
    found = {rung.name: rung for rung in rungs(cpu)}
    assert [name for name, rung in found.items() if not rung.absent] == [
        "eager fp32", "bf16", "fused attention", "static cache", "fused projections", "compile",
        "int8 weights, not compiled", "int8 weights",
    ]  # fmt: skip
    assert found["CUDA graph"].absent == found["dependent launch"].absent == "a CPU has no launches to save"
    assert found["int4 weights"].absent == "torchao packs no int4 that a CPU has a kernel for"
    assert found["fp8 weights"].absent == f"{cpu.name} has no fp8"
    assert found["int8 weights"].on == "compile"
    assert found["int8 weights, not compiled"].on == "fused projections"


@pytest.mark.usefixtures("everything")
def test_a_hopper_has_every_rung_and_packs_weights_on_top_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu(monkeypatch, "NVIDIA H200", (9, 0))
    assert not any(rung.absent for rung in found.values())
    assert {found[f"{weights} weights"].on for weights in ("int8", "int4", "fp8")} == {"CUDA graph"}
    assert found["int4 weights"].graph
    assert [rung.name for rung in found.values() if rung.exact] == ["CUDA graph", "dependent launch"]


@pytest.mark.usefixtures("everything")
def test_older_gpus_lack_what_their_capability_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = gpu(monkeypatch, "NVIDIA L4", (8, 9))
    assert [name for name, rung in ada.items() if rung.absent] == ["dependent launch"]
    ampere = gpu(monkeypatch, "NVIDIA A10G", (8, 6))
    assert [name for name, rung in ampere.items() if rung.absent] == ["dependent launch", "fp8 weights"]
    turing = gpu(monkeypatch, "Tesla T4", (7, 5))
    assert "fp16" in turing
    assert turing["int4 weights"].absent == "the int4 kernel takes bf16 only"


def test_without_compilers_or_torchao_the_rungs_say_so(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    found = {rung.name: rung for rung in rungs(cpu)}
    assert found["compile"].absent == found["int8 weights"].absent == "no C++ compiler"
    assert found["int8 weights, not compiled"].absent == "torchao is not installed"
    assert found["int8 weights"].on == "fused projections"
    assert gpu(monkeypatch, "NVIDIA L4", (8, 9))["CUDA graph"].absent == "Triton is not installed"


@pytest.mark.usefixtures("everything")
def test_each_rung_changes_one_thing_of_the_rung_it_stands_on(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ({rung.name: rung for rung in rungs(cpu)}, gpu(monkeypatch, "NVIDIA H200", (9, 0))):
        for rung in found.values():
            base = found.get(rung.on)
            fields = ("dtype", "grouped", "static", "fused", "compiled", "graph", "early", "weights")
            changed = [name for name in fields if base and getattr(rung, name) != getattr(base, name)]
            assert len(changed) == (1 if base else 0), rung.name
