"""One column past a full wave costs a wave; and what zeros are measured beside."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labs.results import Measurement
from labs.roofs import gemm_flops
from workloads import gemm, product, waves, zeros
from workloads.device import Device
from workloads.nvml import Gauge
from workloads.product import Pool
from workloads.regimes import Regime, Taken
from workloads.search import Shape, Space

CONFIG = gemm.Config(shapes=((8, 8, 8),), dtypes=("fp32",), iterations=2, warmup=1, search_s=1, sustain_s=0.01, seed=0,
                     threads=1)  # fmt: skip
H200 = Space(units=132)
WAVE_S = 1e-3


@pytest.fixture(autouse=True)
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what the cache holds."""
    monkeypatch.setattr(product, "POOL_LIMIT_BYTES", 2**20)


def taking(seconds: Callable[[gemm.Bench, Shape], float]) -> Callable[..., tuple[Taken, str]]:
    """Stands in for `Bench.take`: every sample takes what `seconds` says."""

    def take(bench: gemm.Bench, _config: Any, shape: Shape, regime: Regime) -> tuple[Taken, str]:
        blank = not bench.pool.operands(1, 1, 1)[0].any()
        watts = 400.0 if blank else 700.0
        pace = seconds(bench, shape)
        joules = watts * pace if regime == "sustained" else None
        return Taken(regime=regime, samples_s=(pace,) * 3, clock_mhz=1900.0, top_mhz=1980.0, joules=joules), "right"

    return take


def test_an_h200s_wave_ends_at_132_tiles_and_the_next_column_is_among_the_shapes() -> None:
    assert (H200.tiles(1536, 2816), H200.waves(1536, 2816)) == (132, 1)
    assert (H200.tiles(1536, 2817), H200.waves(1536, 2817)) == (144, 2)
    shapes = waves.sawtooth(H200)
    assert {m for m, _, _ in shapes} == {1536}
    columns = [n for _, n, _ in shapes]
    assert columns == sorted(set(columns))
    assert {2816, 2832, 5632, 5648} <= set(columns)
    assert (columns[0], columns[-1] <= 2.5 * 2816) == (1408, True)
    assert 30 <= len(columns) <= waves.POINTS + 8


@pytest.mark.parametrize("units", [1, 7, 58, 72, 107, 108, 142])
def test_every_device_has_full_waves_in_the_sweep(units: int) -> None:
    space = Space(units=units)
    full = {space.waves(m, n) for m, n, _ in waves.sawtooth(space)
            if n % 256 == 0 and space.tiles(m, n) == units * space.waves(m, n)}  # fmt: skip
    assert {1, 2} <= full


def test_the_model_falls_with_the_measurement_where_a_wave_begins(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that behaves as the model says, but for a library that is a tenth quicker in waves not full."""

    def pace(_bench: gemm.Bench, shape: Shape) -> float:
        count = H200.waves(*shape[:2])
        return WAVE_S * count * (1.0 if H200.tiles(*shape[:2]) == 132 * count else 0.9)

    monkeypatch.setattr(gemm.Bench, "take", taking(pace))
    with gemm.opened(cpu, "fp32", Gauge(cpu), CONFIG) as bench:
        rows = {row.config["n"]: row for row in waves.sweep(CONFIG, bench, H200)}
    full, past = rows[2816], rows[2832]
    assert full.name == "fp32 1536x2816x4096 burst, 132 tiles in 1 wave"
    assert past.name == "fp32 1536x2832x4096 burst, 144 tiles in 2 waves"
    assert full.config["model_flops"] == pytest.approx(full.value) == gemm_flops(1536, 2816, 4096) / WAVE_S
    assert past.config["model_flops"] == pytest.approx(gemm_flops(1536, 2832, 4096) / (2 * WAVE_S))
    assert past.value == pytest.approx(past.config["model_flops"] / 0.9)
    assert (past.config["kind"], past.config["units"], past.config["waves"]) == ("wave", 132, 2)


def test_a_sweep_measures_and_checks_real_products(cpu: Device) -> None:
    space = Space(units=4, tile=(4, 8), step=4)
    with gemm.opened(cpu, "fp32", Gauge(cpu), CONFIG) as bench:
        rows = list(waves.sweep(CONFIG, bench, space, inner=16))
    assert [row.config["n"] for row in rows] == [n for _, n, _ in waves.sawtooth(space, 16)]
    assert all("against float64" in row.checked and len(row.samples_s) == waves.SAMPLES for row in rows)


def test_zeros_are_told_as_a_ratio_with_what_both_sides_drew(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    def pace(bench: gemm.Bench, _shape: Shape) -> float:
        turns.append(bool(bench.pool.operands(1, 1, 1)[0].any()))
        return 1.1e-3 if turns[-1] else 1e-3

    monkeypatch.setattr(gemm.Bench, "take", taking(pace))
    with gemm.opened(cpu, "fp32", Gauge(cpu), CONFIG) as bench:
        row = zeros.contrast(CONFIG, bench, (8, 16, 32))
    assert turns == [True, False, False, True]
    assert (row.unit, row.roof, row.name) == ("×", None, "fp32 8x16x32 sustained, zeros over random data")
    assert row.value == pytest.approx(1.1)
    assert (row.config["zeros_w"], row.config["data_w"]) == (pytest.approx(400), pytest.approx(700))
    assert gemm.row_line(row) == f"{row.name} 1.100 ×  400 W beside 700 W"


def test_a_device_that_tells_no_power_still_has_the_ratio(cpu: Device) -> None:
    with gemm.opened(cpu, "fp32", Gauge(cpu), CONFIG) as bench:
        row = zeros.contrast(CONFIG, bench, (128, 256, 512))
    assert (row.config["zeros_w"], row.config["data_mhz"]) == (None, None)
    assert gemm.row_line(row) == f"{row.name} {row.value:.3f} ×"


def test_a_pool_without_a_seed_holds_nothing_but_zeros(cpu: Device) -> None:
    pool = Pool(cpu, "bf16", 512, None)
    assert not any(operand.any() for _ in range(3) for operand in pool.operands(16, 16, 16))
    assert pool.operands(4, 4, 4)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtypes", "cuda", "expected"),
    [
        (("fp32", "bf16", "fp8"), True, [("bf16", "zeros", (1536, 2816, 6144)), ("bf16", "waves", H200)]),
        (("fp16",), True, [("fp16", "zeros", (1536, 2816, 6144)), ("fp16", "waves", H200)]),
        (("fp32", "bf16"), False, [("bf16", "zeros", (1536, 2816, 6144))]),
    ],
)
def test_one_data_type_shows_zeros_and_on_a_gpu_waves(
    monkeypatch: pytest.MonkeyPatch, dtypes: tuple[str, ...], cuda: bool, expected: list[Any]
) -> None:
    """The shape with zeros is the one that was sustained last."""
    called: list[Any] = []

    def made(k: int) -> Measurement:
        config = {"m": 1536, "n": 2816, "k": k}
        return Measurement(name="", value=1, unit="FLOP/s", estimator="", config=config, no_roof_because="none")

    def contrast(_config: Any, bench: Any, shape: Shape) -> Measurement:
        called.append((bench.dtype, "zeros", shape))
        return made(0)

    def sweep(_config: Any, bench: Any, space: Space) -> Iterator[Measurement]:
        called.append((bench.dtype, "waves", space))
        yield made(0)

    monkeypatch.setattr(gemm, "Gauge", lambda _device: None)
    monkeypatch.setattr(gemm, "opened", lambda _device, dtype, *_more: nullcontext(SimpleNamespace(dtype=dtype)))
    monkeypatch.setattr(gemm, "best", lambda _config, _bench: iter((made(40960), made(6144))))
    monkeypatch.setattr(gemm, "contrast", contrast)
    monkeypatch.setattr(gemm, "sweep", sweep)
    monkeypatch.setattr(gemm, "units", lambda _device: 132)
    config: Any = replace(CONFIG, dtypes=dtypes, shapes=())
    device: Any = SimpleNamespace(cuda=cuda)
    rows = list(gemm.measure(config, device, None))
    assert called == expected
    assert len(rows) == 2 * len(dtypes) + len(expected)
    called.clear()
    assert list(gemm.measure(replace(config, search_s=0.0), device, None)) == []
    assert called == []
