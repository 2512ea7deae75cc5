"""bandwidth: BabelStream's bytes, results that were checked, and a cache that passes for no memory."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from labs.results import Measurement, read
from workloads import bandwidth, stream
from workloads.command import CheckFailed
from workloads.device import Device, cache_bytes
from workloads.stream import COPY, DOT, MATRIX, MAX, SCALED, SUM, TRIAD, Arrays, Kernel

SMALL = ["--device", "cpu", "--largest-mib", "1", "--iterations", "2"]
KERNELS = (SUM, MAX, DOT, MATRIX, COPY, SCALED, TRIAD)


def test_bytes_are_babelstreams() -> None:
    assert {kernel.name: kernel.arrays for kernel in KERNELS} == {
        "sum": 1, "max": 1, "dot": 2, "matrix × vector": 1, "copy": 2, "scale": 2, "triad": 3,
    }  # fmt: skip


def test_a_run_writes_every_kernel_at_every_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bandwidth.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "bandwidth.node0.json")
    names = [row.name for row in record.measurements]
    assert names[:8] == [f"fp32 {kernel} {size}" for size in ("64 KiB", "256 KiB")
                         for kernel in ("read", "copy", "scale", "triad")]  # fmt: skip
    by = [f"read by {kernel}" for kernel in ("sum", "max", "dot", "matrix × vector")]
    assert names[8:] == [f"fp32 {kernel} 1 MiB" for kernel in ("read", *by, "copy", "scale", "triad")]
    triad = record.measurements[-1]
    assert triad.config["bytes"] == 3 * 2**20
    assert triad.value == pytest.approx(3 * 2**20 / (sum(triad.samples_s) / 2))
    assert all("against float64" in row.checked for row in record.measurements)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"roof: none, {record.machine.device} is not in labs/accelerators.py"
    assert out[-1].startswith("no size was past the cache; 16 rows, all checked: ")
    assert record.notes[0].startswith("no array was four times the cache of")


def test_the_read_row_names_the_kernel_that_was_chosen(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = made(cpu)
    paces = {"sum": 1.0, "max": 3.0, "dot": 2.0, "matrix × vector": 0.5}
    monkeypatch.setattr(bandwidth.Bench, "_pace", lambda _self, kernel: paces[kernel.name])
    assert bench.choose_read() is MAX


def made(device: Device, past_cache: bool = True) -> bandwidth.Bench:
    return bandwidth.Bench(device=device, dtype="fp32", arrays=Arrays(device, "fp32", 8192, 0), past_cache=past_cache)


CONFIG = bandwidth.Config(dtypes=("fp32",), sizes_bytes=(32768,), iterations=2, warmup=1, seed=0, threads=1)


def test_a_known_device_has_its_datasheets_rate_past_the_cache_and_none_below(l4: Device) -> None:
    past, below = (made(l4, held).measure(COPY, CONFIG, "copy") for held in (True, False))
    assert past.roof is not None
    assert past.roof.value == pytest.approx(300e9)
    assert below.roof is None
    assert below.no_roof_because == "arrays below four times the cache are served by it, faster than by the memory"
    assert bandwidth.roof_line(l4) == "roof: 300 GB/s (memory rate, NVIDIA L4 datasheet; tensor figures halved where " \
        "it states them with sparsity)"  # fmt: skip


def test_the_measured_ceiling_is_the_fastest_past_the_cache(l4: Device) -> None:
    slow = made(l4).measure(COPY, CONFIG, "copy")
    rows: list[Measurement] = [
        replace(slow, value=1.0), replace(slow, value=3.0),
        replace(slow, value=9.0, config={**slow.config, "past_cache": False}),
    ]  # fmt: skip
    assert bandwidth.ceilings(rows)["copy"].value == 3.0
    assert bandwidth.ceilings(rows[2:]) == {}


def test_sizes_grow_by_four_and_end_at_the_largest() -> None:
    mib = 2**20
    assert bandwidth.sizes(mib, 40 * mib) == (mib, 4 * mib, 16 * mib, 40 * mib)
    assert bandwidth.sizes(mib, mib) == (mib,)


def test_arrays_past_the_cache_are_four_times_it_where_they_may_grow_so_far(cpu: Device) -> None:
    whole = argparse.Namespace(dtypes=None, largest_mib=None, iterations=None, seed=0)
    largest = bandwidth.configure(whole, cpu).sizes_bytes[-1]
    assert largest == min(4 * cache_bytes(cpu), 256 * 2**20) >> 20 << 20
    assert largest >= bandwidth.past_bytes(cpu)


def test_a_data_type_that_the_device_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        bandwidth.main(["--device", "cpu", "--dtypes", "fp8"])
    assert ending.value.code == 2
    assert "dtype='fp8' is not in" in capsys.readouterr().err


def test_tf32_is_how_products_compute_and_not_how_memory_holds_numbers(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "dtypes", ("fp32", "tf32", "bf16"))
    flags = argparse.Namespace(dtypes=("bf16", "tf32"), largest_mib=1, iterations=1, seed=0)
    with pytest.raises(ValueError, match=r"^dtype='tf32' is not one that arrays have: write some of fp32,fp16,bf16$"):
        bandwidth.configure(flags, cpu)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_right_result_passes_and_one_wrong_entry_is_found(kernel: Kernel, dtype: str, cpu: Device) -> None:
    arrays = Arrays(cpu, dtype, 16384, 1)
    kernel.run(arrays)
    assert "against float64" in kernel.check(arrays, dtype)
    found = kernel.found(arrays).view(-1)
    for damage in (torch.nan, float(found[-1]) * 1.5 + 30):
        found[-1] = damage
        with pytest.raises(CheckFailed, match=rf"^{dtype} {kernel.name}: \|error\| .* against float64, allowed"):
            kernel.check(arrays, dtype)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_kernel_that_does_nothing_is_found(kernel: Kernel, cpu: Device) -> None:
    with pytest.raises(CheckFailed):
        replace(kernel, run=lambda _arrays: None).check(Arrays(cpu, "fp32", 8192, 2), "fp32")


def test_large_arrays_are_checked_piece_by_piece(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE", 8192)
    for kernel in KERNELS:
        arrays = Arrays(cpu, "fp32", 5 * 4096, 3)
        kernel.run(arrays)
        kernel.check(arrays, "fp32")
        kernel.found(arrays).view(-1)[0] = 40.0
        with pytest.raises(CheckFailed):
            kernel.check(arrays, "fp32")


def test_short_runs_are_repeated_within_a_sample(cpu: Device) -> None:
    calls: list[int] = []
    step: Callable[[], object] = stream.repeated(cpu, lambda: calls.append(1), 5)
    step()
    assert len(calls) == 5


def test_rows_that_one_accumulator_added_up_are_right_too() -> None:
    """As a library does it that has few registers for it: the worst of 2,000 rows, one term after another."""
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-1, 1, size).astype(np.float32) for size in ((2000, stream.WIDTH), stream.WIDTH))
    found = np.cumsum(a * b, axis=1, dtype=np.float32)[:, -1]
    exact = a.astype(float) @ b.astype(float)
    worst = float(np.abs(found - exact).max())
    assert worst < stream.tolerance(stream.MATRIX, "fp32", a.size) < 0.001, "a term left out is some 0.3"
    assert worst > stream.WIDTH / 8 * stream.ROUNDING["fp32"]
