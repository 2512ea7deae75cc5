"""Peaks by device: exact names only, no default for anything unknown."""

import pytest

from labs.accelerators import ACCELERATORS, by_driver_name, by_instance
from labs.instances import instance_type, instance_types


@pytest.mark.parametrize(
    ("name", "bf16", "bytes_per_s", "sms"),
    [
        ("NVIDIA A10G", 70e12, 600e9, 80),
        ("NVIDIA L4", 121e12, 300e9, 58),
        ("NVIDIA A100-SXM4-40GB", 312e12, 1555e9, 108),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2039e9, 108),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 3350e9, 132),
        ("NVIDIA H200", 989.4e12, 4800e9, 132),
        ("NVIDIA B200", 2250e12, 8000e9, 148),
    ],
)
def test_datasheet_figures(name: str, bf16: float, bytes_per_s: float, sms: int) -> None:
    device = by_driver_name(name)
    assert device is not None
    assert device.peak_flops("bf16") == pytest.approx(bf16)
    assert device.bytes_per_s == pytest.approx(bytes_per_s)
    assert device.sms == sms


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "NVIDIA H200"])
def test_hopper_peak_is_its_tensor_cores_at_1830_mhz(name: str) -> None:
    """132 SMs × 4 tensor cores × 512 multiply-adds × 2 × 1.83 GHz."""
    device = by_driver_name(name)
    assert device is not None
    assert device.sms is not None
    assert device.peak_flops("bf16") == pytest.approx(device.sms * 4 * 512 * 2 * 1.830e9, rel=1e-3)
    assert device.peak_flops("fp8") == pytest.approx(2 * 989.43e12, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    ["AMD EPYC 9R14", "NVIDIA GeForce RTX 4090", "NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "L4", ""],
)
def test_a_name_that_is_not_exactly_listed_has_no_figures(name: str) -> None:
    assert by_driver_name(name) is None


def test_a_type_without_hardware_or_datasheet_has_no_peak() -> None:
    turing, volta, blackwell = (by_driver_name(name) for name in (
        "Tesla T4", "Tesla V100-SXM2-32GB", "NVIDIA RTX PRO 6000 Blackwell Server Edition"))  # fmt: skip
    assert turing is not None
    assert volta is not None
    assert blackwell is not None
    assert turing.peak_flops("bf16") is None
    assert volta.peak_flops("fp8") is None
    assert blackwell.peak_flops("bf16") is None
    assert blackwell.bytes_per_s == 1597e9


def test_every_whole_gpu_of_ec2_is_known_and_fractions_and_cpus_are_not() -> None:
    for kind in instance_types().values():
        known = by_instance(kind)
        if kind.gpus and not kind.name.startswith("g6f."):
            assert known is not None, kind.name
            assert known.ec2_name == kind.gpu
        else:
            assert known is None, kind.name


@pytest.mark.parametrize(("kind", "name"), [("p4d.24xlarge", "A100-40"), ("p4de.24xlarge", "A100-80")])
def test_devices_of_one_ec2_name_are_told_apart_by_memory(kind: str, name: str) -> None:
    device = by_instance(instance_type(kind))
    assert device is not None
    assert device.name == name


def test_every_device_names_its_source_and_no_two_share_a_name() -> None:
    names = [name for device in ACCELERATORS for name in (device.name, *device.driver_names)]
    assert len(names) == len(set(names))
    assert all(device.source and device.driver_names for device in ACCELERATORS)


def test_narrower_types_are_never_slower() -> None:
    for device in ACCELERATORS:
        order = [device.peak_flops(dtype) for dtype in ("tf32", "bf16", "fp8")]
        known = [peak for peak in order if peak is not None]
        assert known == sorted(known), device.name


def test_the_top_clock_allows_every_peak_of_the_datasheet_and_little_more() -> None:
    """Datasheets state tensor peaks at the boost clock or a little below it, never above."""
    known = [device for device in ACCELERATORS if device.flop_per_clock]
    assert {device.name for device in known} == {
        "T4", "V100-16", "V100-32", "A10G", "L4", "L40S", "A100-40", "A100-80", "H100", "H200",
    }  # fmt: skip
    for device in known:
        assert device.top_mhz is not None
        assert device.flop_per_clock.keys() == device.peak_tflops.keys(), device.name
        for dtype, tflops in device.peak_tflops.items():
            most = device.flops_at(dtype, device.top_mhz)
            assert most is not None
            assert 0.99 <= most / (tflops * 1e12) < 1.1, (device.name, dtype)


def test_an_h200_at_its_top_clock_does_more_than_its_datasheet_says() -> None:
    device = by_driver_name("NVIDIA H200")
    assert device is not None
    assert device.flops_at("bf16", 1980) == pytest.approx(1070.53e12, rel=1e-4)
    assert device.flops_at("fp8", 1980) == pytest.approx(2141e12, rel=1e-3)
    assert device.flops_at("fp64", 1980) is None


def test_without_work_per_clock_no_peak_is_derived_from_a_clock() -> None:
    device = by_driver_name("NVIDIA B200")
    assert device is not None
    assert device.flops_at("bf16", 1965) is None
