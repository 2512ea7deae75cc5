"""gemm: right products, honest rows, and a check that finds a wrong one."""

from pathlib import Path

import pytest
import torch

from labs.results import read
from workloads import gemm, product
from workloads.command import CheckFailed
from workloads.device import TORCH_DTYPES, Device, cache_bytes

SMALL = ["--device", "cpu", "--shapes", "8x16x32,1x64x64", "--iterations", "3", "--warmup", "1", "--search-s", "0"]


def test_a_run_writes_every_row_with_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "7.2")
    monkeypatch.setenv("ROOFLAB_NODES", "2")
    gemm.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "gemm.node0.json")
    assert [row.name for row in record.measurements] == [
        f"{dtype} {shape} burst" for dtype in ("fp32", "bf16") for shape in ("8x16x32", "1x64x64")
    ]
    row = record.measurements[0]
    assert (row.config["m"], row.config["n"], row.config["k"], row.config["dtype"]) == (8, 16, 32, "fp32")
    assert row.config["intensity"] == pytest.approx(2 * 8 * 16 * 32 / (4 * (8 * 32 + 16 * 32 + 8 * 16)))
    assert len(row.samples_s) == 3
    assert row.value == pytest.approx(2 * 8 * 16 * 32 / sorted(row.samples_s)[1])
    assert row.usd_per_unit == pytest.approx(3.6 / 3600 / row.value * 1e15)
    assert "against float64" in row.checked
    assert record.config["iterations"] == 3
    assert (row.config["regime"], row.config["boost_verified"], row.config["clock_mhz"]) == ("burst", "not told", None)
    assert [note for note in record.notes if "fp8" in note] == [
        f"fp8: not applicable, {record.machine.device} has no instructions for it"
    ]


def test_the_winner_of_the_search_is_measured_afresh_in_both_regimes(tmp_path: Path) -> None:
    gemm.main(["--device", "cpu", "--shapes", "8x16x32", "--dtypes", "fp32", "--iterations", "5", "--warmup", "1",
               "--search-s", "0.05", "--sustain-s", "0.02", "--out", str(tmp_path)])  # fmt: skip
    record = read(tmp_path / "gemm.node0.json")
    _fixed, burst, sustained, zeros = record.measurements
    assert burst.name == "fp32 {m}x{n}x{k} burst".format(**burst.config)
    assert sustained.name == "fp32 {m}x{n}x{k} sustained".format(**burst.config)
    assert [row.config["regime"] for row in (burst, sustained)] == ["burst", "sustained"]
    assert burst.estimator == f"from the median of 5, found among {burst.config['searched']} shapes"
    assert len(sustained.samples_s) >= 2
    assert "against float64" in sustained.checked
    assert (zeros.name, zeros.unit) == (f"{sustained.name}, zeros over random data", "×")
    assert "waves: not applicable, a CPU does not deal its tiles out to SMs in rounds" in record.notes


def test_a_cpu_has_no_roof_and_the_row_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gemm.main([*SMALL, "--out", str(tmp_path)])
    row = read(tmp_path / "gemm.node0.json").measurements[0]
    assert row.roof is None
    assert row.fraction is None
    assert row.no_roof_because.endswith("is not in labs/accelerators.py")
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"roof fp32: none, {row.no_roof_because}"


def test_a_known_device_has_the_roof_of_each_shapes_intensity(l4: Device) -> None:
    config = gemm.Config(
        shapes=((1, 64, 64), (64, 64, 64)), dtypes=("bf16",), iterations=2, warmup=1, search_s=0, sustain_s=0, seed=0,
        threads=1,
    )  # fmt: skip
    vector, square = gemm.measure(config, l4, None)
    assert vector.roof is not None
    assert square.roof is not None
    assert vector.roof.value == pytest.approx(300e9 * vector.config["intensity"])
    assert square.roof.value == pytest.approx(300e9 * 64 / 3)
    assert square.limit is not None
    assert square.limit.value == pytest.approx(300e9 * 64 / 3), "a faster clock does not make memory faster"
    assert gemm.roof_line(l4, "bf16") == (
        "roof bf16: 121.0 TFLOP/s, 121.2 at the top clock of 2040 MHz, below 403 FLOP/B intensity × 300 GB/s"
    )
    assert "of roof" in gemm.row_line(square)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_true_product_passes_with_room_to_spare(dtype: str) -> None:
    torch.manual_seed(0)
    a_MK, w_NK = (torch.randn(48, 1024).to(TORCH_DTYPES[dtype]) for _ in range(2))
    c_MN = a_MK @ w_NK.t()
    product.check(dtype, a_MK, w_NK, c_MN)
    error = float((c_MN.double() - a_MK.double() @ w_NK.double().t()).abs().max())
    assert error < product.tolerance(dtype, 1024) / 2


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("damage", [0.0, float("nan"), float("inf"), 1e3])
def test_one_corrupted_entry_is_found(dtype: str, damage: float) -> None:
    torch.manual_seed(0)
    a_MK, w_NK = (torch.randn(16, 256).to(TORCH_DTYPES[dtype]) for _ in range(2))
    c_MN = a_MK @ w_NK.t()
    c_MN[7, c_MN[7].abs().argmax()] = damage
    with pytest.raises(CheckFailed, match=rf"^{dtype} 16x16x256: \|error\| .* against float64, allowed"):
        product.check(dtype, a_MK, w_NK, c_MN)


def test_a_product_in_a_coarser_type_does_not_pass_for_a_finer_one() -> None:
    torch.manual_seed(0)
    a_MK, w_NK = torch.randn(64, 256), torch.randn(64, 256)
    coarse_MN = (a_MK.bfloat16() @ w_NK.bfloat16().t()).float()
    with pytest.raises(CheckFailed, match=r"^fp32"):
        product.check("fp32", a_MK, w_NK, coarse_MN)


def test_the_run_checks_what_it_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "mm", lambda a_MK, b_KN: (a_MK @ b_KN).roll(1, 0))
    with pytest.raises(CheckFailed, match="8x16x32"):
        gemm.main([*SMALL, "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_operands_come_from_ever_new_windows_until_twice_the_cache_has_gone_by(cpu: Device) -> None:
    pool = product.Pool(cpu, "bf16", 2 * 256 * 1024, seed=1)
    windows = [pool.operands(256, 256, 1024)[0].data_ptr() for _ in range(1000)]
    period = windows[1:].index(windows[0]) + 1
    assert len(set(windows[:period])) == period
    moved = period * 2 * 256 * 1024 * 2
    assert moved >= min(2 * cache_bytes(cpu), product.POOL_LIMIT_BYTES) - 2 * 256 * 1024 * 2


def test_the_same_seed_gives_the_same_operands(cpu: Device) -> None:
    first, again, other = (product.Pool(cpu, "fp32", 512, seed).operands(4, 4, 4)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_precision_is_left_as_it_was(cpu: Device) -> None:
    before = torch.get_float32_matmul_precision()
    with product.multiplier(cpu, "tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_larger_product_than_expected_draws_a_larger_pool(cpu: Device) -> None:
    pool = product.Pool(cpu, "fp32", 512, seed=3)
    a_MK, w_NK = pool.operands(64, 300_000, 64)
    assert (a_MK.shape, w_NK.shape) == ((64, 64), (300_000, 64))
