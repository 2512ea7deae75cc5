"""Published numbers: each with a source, each beside the same measurement on the same device, and beside no other."""

from collections import Counter
from dataclasses import replace

import pytest

from labs.accelerators import ACCELERATORS
from labs.instances import instance_type
from labs.published import Reference, all_references, references
from labs.results import Machine, Measurement, Record, Roof

DEVICES = {accelerator.name: accelerator for accelerator in ACCELERATORS}


def row(value: float, **config: object) -> Measurement:
    return Measurement(name="bf16", value=value, unit="FLOP/s", estimator="from the median of 9", config=dict(config),
                       roof=Roof(value=989e12, source="datasheet"))  # fmt: skip


def record(*rows: Measurement, device: str = "NVIDIA H200", workload: str = "gemm") -> Record:
    return Record(workload=workload, measurements=rows, machine=Machine(hostname="one", device=device, devices=1))


@pytest.mark.parametrize("reference", all_references(), ids=lambda reference: f"{reference.device} {reference.what}")
def test_each_names_its_source_and_date_and_is_no_more_than_physics_allows(reference: Reference) -> None:
    assert reference.source
    assert any(digit in reference.date for digit in "0123456789")
    device = DEVICES[reference.device]
    if reference.unit == "FLOP/s":
        dtype = str(reference.rows["dtype"])
        most = device.flops_at(dtype, device.top_mhz or 0) or device.peak_flops(dtype)
        assert most
        assert 0.5 * most < reference.value <= most
    elif reference.workload == "bandwidth":
        assert device.bytes_per_s
        assert 0.8 * device.bytes_per_s < reference.value <= device.bytes_per_s
    elif reference.instance_type:
        assert instance_type(reference.instance_type).gpu == device.ec2_name
        assert reference.nodes


def test_none_stands_twice() -> None:
    seen = Counter((one.device, one.workload, one.what, one.source) for one in all_references())
    assert max(seen.values()) == 1


def test_the_h200s_best_bf16_shape_stands_beside_our_best_burst() -> None:
    made = record(
        row(700e12, dtype="bf16", regime="burst"),
        row(845e12, dtype="bf16", regime="burst"),
        row(741e12, dtype="bf16", regime="sustained"),
        row(1400e12, dtype="fp8", regime="burst"),
    )
    found = {one.what: one for one in references(made)}
    burst = found["bf16, best shape found, 1536x2816x40960"]
    assert (burst.value, burst.source) == (850e12, "stas00/ml-engineering@0359db8, compute/accelerator")
    beside = burst.beside(made)
    assert beside is not None
    assert beside.value == 845e12
    slower = found["bf16 sustained, 1536x2816x6144"].beside(made)
    assert slower is not None
    assert slower.value == 741e12


def test_a_measuring_error_stands_beside_nothing() -> None:
    made = record(row(1200e12, dtype="bf16", regime="burst"))
    assert [one.beside(made) for one in references(made) if one.rows.get("dtype") == "bf16"] == [None, None]


@pytest.mark.parametrize("device", ["AMD EPYC 9R45", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", ""])
def test_another_device_gets_none(device: str) -> None:
    assert references(record(device=device)) == ()


def test_a_networks_number_is_for_that_type_and_number_of_nodes_alone() -> None:
    made = record(device="NVIDIA H100 80GB HBM3", workload="collectives")
    assert references(made) == ()
    on_p5 = replace(made, machine=replace(made.machine, instance_type="p5.48xlarge"), nodes=2)
    assert {one.nodes for one in references(on_p5)} == {2}
    assert len(references(on_p5)) == 4
    assert references(replace(on_p5, nodes=3)) == ()


def test_a_reference_to_another_model_is_beside_no_row_of_ours() -> None:
    made = record(replace(row(1e4), unit="token/s"), workload="train-step")
    (reference,) = references(made)
    assert reference.beside(made) is None
    assert "another model" in reference.note
