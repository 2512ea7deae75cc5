"""roofline: every operation predicted, measured and checked; steps that add up; ceilings that hold."""

from pathlib import Path

import pytest
import torch

from labs.accelerators import by_driver_name
from labs.models import find_model
from labs.results import Roof, read
from workloads import ceilings, roofline
from workloads.attention import Attention
from workloads.ceilings import Ceilings
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.dots import chain_dots, model_dots, row_dots
from workloads.elementwise import PIECE, Chain
from workloads.nvml import Gauge

CEILINGS = Ceilings(
    memory=Roof(value=100e9, source="measured here, memory by dot"),
    peaks={"fp32": Roof(value=1e12, source="measured here, fp32 512x512x512")},
)
CONFIG = roofline.Config(model="mistral-nano", dtype="fp32", rows=(1, 4), chains=(1, 2), context=32, prompt=16,
                         iterations=2, search_s=0.01, seed=0, threads=1)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that a test has time for; past_bytes then calls them past the cache."""
    monkeypatch.setattr("workloads.bandwidth.past_bytes", lambda _device: 2**20)
    monkeypatch.setattr("workloads.elementwise.LIMIT_BYTES", 4 * PIECE * 4)
    monkeypatch.setattr("workloads.product.POOL_LIMIT_BYTES", 2**20)
    monkeypatch.setattr("workloads.attention.POOL_LIMIT_BYTES", 2**20)


@pytest.mark.usefixtures("small")
def test_a_run_predicts_before_it_measures_and_writes_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roofline.main(["--device", "cpu", "--model", "mistral-nano", "--rows", "4", "--context", "32", "--prompt", "16",
                   "--iterations", "2", "--search-s", "0.01", "--out", str(tmp_path)])  # fmt: skip
    rows = {row.name: row for row in read(tmp_path / "roofline.node0.json").measurements}
    kinds = [row.config["kind"] for row in rows.values()]
    assert kinds == ["ceiling"] * 2 + ["ridge"] + ["rows"] * 3 + ["unfused", "fused"] * 3 + ["decode"] * 6 + [
        "prefill"] * 6 + ["step"] * 2  # fmt: skip
    memory, peak, ridge = (rows[name] for name in ("ceiling: memory", "ceiling: fp32 products", "ridge: fp32"))
    assert ridge.value == pytest.approx(peak.value / memory.value)
    assert peak.estimator.startswith("from the fastest of ")
    assert memory.value == pytest.approx(memory.config["bytes"] / min(memory.samples_s))
    gate_up = rows["decode gate-up"]
    assert gate_up.config["flops"] == 2 * 2 * 896 * 256
    assert gate_up.config["predicted_s"] == pytest.approx(
        max(gate_up.config["flops"] / peak.value, gate_up.config["bytes"] / memory.value)
    )
    assert all("against float64" in row.checked for name, row in rows.items() if "step," not in name
               and "ridge" not in name)  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("measured "))
    assert sum(line.startswith("predicted ") for line in lines[:first]) == 21
    assert lines[0].startswith("memory ")
    assert "ridge at" in lines[1]
    assert lines[1].endswith("the datasheet's is unknown")


@pytest.mark.usefixtures("small")
def test_a_step_is_the_sum_of_its_products_each_as_often_as_it_runs(cpu: Device) -> None:
    rows = list(roofline.measure(CONFIG, cpu, Gauge(cpu), CEILINGS, Chain(cpu, 0)))
    decode = next(row for row in rows if row.name == "mistral-nano decode step, 32 tokens")
    parts = [row for row in rows if row.config["kind"] == "decode"]
    assert [row.config["times"] for row in parts] == [4, 4, 4, 4, 4, 1]
    assert decode.value == pytest.approx(sum(row.config["times"] * row.config["flops"] / row.value for row in parts))
    assert decode.others[0].value == pytest.approx(
        sum(row.config["times"] * row.config["predicted_s"] for row in parts)
    )


@pytest.mark.usefixtures("small")
def test_a_known_device_has_both_roofs_and_both_ridges() -> None:
    l4 = Device(torch=torch.device("cpu"), name="NVIDIA L4", accelerator=by_driver_name("NVIDIA L4"))
    row = next(iter(roofline.measure(CONFIG, l4, Gauge(l4), CEILINGS, Chain(l4, 0))))
    assert row.roof is not None
    assert row.limit is not None
    assert row.roof.value == pytest.approx(300e9 * row.config["intensity"])
    assert row.others[0].value == pytest.approx(100e9 * row.config["intensity"])
    assert row.others[0].source == "measured here, memory by dot × intensity"
    ridge = roofline.ridge_row(l4, CEILINGS, "fp32")
    assert (ridge.value, ridge.config["datasheet"]) == (10.0, pytest.approx(101))
    assert list(roofline.ceiling_lines(l4, CEILINGS))[1] == (
        "fp32 1000.0 GFLOP/s (measured here, fp32 512x512x512), ridge at 10.0 FLOP/B, by the datasheet at 101.0"
    )


def test_the_intensity_of_a_row_is_half_a_flop_per_byte_and_grows_with_the_rows() -> None:
    one, many = row_dots(find_model("mistral-7b"), "fp32", (1, 64))
    assert one.flops / one.moved == pytest.approx(0.5, rel=1e-3)
    assert many.flops / many.moved == pytest.approx(32, rel=0.05)
    assert one.name == "1 × gate-up"
    assert many.shape == (64, 28672, 4096)


def test_fusing_raises_the_intensity_by_the_bytes_it_saves_and_unfused_chains_stay(cpu: Device) -> None:
    dots = list(chain_dots(Chain(cpu, 0, PIECE), (1, 8)))
    assert [(dot.name, dot.flops / dot.moved) for dot in dots] == [
        ("chain of 1, unfused", 0.125), ("chain of 1, fused", 0.25),
        ("chain of 8, unfused", 0.125), ("chain of 8, fused", 2.0),
    ]  # fmt: skip


def test_a_models_dots_are_its_products_of_both_steps() -> None:
    dots = list(model_dots(find_model("mistral-mini"), "bf16", 1024, 128))
    assert [dot.name for dot in dots[:2]] == ["decode qkv", "decode attention"]
    assert len(dots) == 12
    assert dots[1].shape is None
    assert dots[6].shape == (128, 1024 + 2 * 256, 1024)


@pytest.mark.parametrize("steps", [1, 3, 64])
def test_fused_and_unfused_chains_come_to_the_same(steps: int, cpu: Device) -> None:
    chain = Chain(cpu, 0, 3 * PIECE)
    chain.unfused(steps)()
    chain.check(steps)
    unfused = chain.y.clone()
    chain.y.fill_(torch.nan)
    chain.fused(steps)()
    assert torch.equal(chain.y, unfused)
    with pytest.raises(CheckFailed, match=rf"^chain of {steps + 1}: \|error\| .* against float64, allowed"):
        chain.check(steps + 1)
    chain.y[5] = torch.nan
    with pytest.raises(CheckFailed, match=r"\|error\| inf against"):
        chain.check(steps)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("queries", "tokens"), [(1, 64), (48, 48)])
def test_attention_is_checked_against_float64_head_by_head(
    dtype: str, queries: int, tokens: int, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.attention.POOL_LIMIT_BYTES", 2**16)
    made = Attention(find_model("mistral-nano"), dtype, cpu, 0, queries=queries, tokens=tokens)
    made.run()
    assert "against float64" in made.check()
    made._out_BHQd = made._out_BHQd.roll(1, 1)
    with pytest.raises(CheckFailed, match=rf"^attention in {dtype}: \|error\| "):
        made.check()


def test_the_measured_roof_is_the_lower_of_memory_and_products() -> None:
    assert CEILINGS.over("fp32", 1, 1).value == 100e9
    assert CEILINGS.over("fp32", 1e6, 1).value == 1e12


def test_dots_well_above_the_ceiling_are_called_what_they_are() -> None:
    low = ceilings.Ceilings(memory=Roof(value=1.0, source="m"), peaks={"fp32": Roof(value=1.0, source="p")})
    cpu = Device(torch=torch.device("cpu"), name="CPU", accelerator=None)
    row = next(iter(roofline.measure(CONFIG, cpu, Gauge(cpu), low, Chain(cpu, 0, PIECE))))
    assert next(roofline.notes([row])).startswith(
        "above the measured roof: 1 × gate-up. The ceilings were measured too"
    )


def test_fp8_is_refused_where_attention_has_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "dtypes", ("fp32", "fp8"))
    with pytest.raises(SystemExit):
        roofline.main(["--device", "cpu", "--dtype", "fp8"])
    assert "dtype='fp8' has no attention here: write bf16, fp16, tf32 or fp32" in capsys.readouterr().err
