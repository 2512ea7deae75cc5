"""generate: latencies apart, floors from the model's bytes, and a check that finds a wrong decode."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labs.models import find_model
from labs.results import read
from workloads import generate
from workloads.command import CheckFailed
from workloads.device import Device

SMALL = ["--device", "cpu", "--prompt", "8", "--new-tokens", "4", "--repeats", "2"]
NANO = find_model("mistral-nano")


def test_a_run_writes_prefill_and_decode_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    generate.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "generate.node0.json")
    first, prefill, gap, decode = record.measurements
    assert [row.name for row in record.measurements] == [
        "time to first token", "prefill", "time per output token", "decode",
    ]  # fmt: skip
    assert [row.unit for row in record.measurements] == ["s", "token/s", "s", "token/s"]
    assert (len(first.samples_s), len(gap.samples_s)) == (2, 2 * 3)
    assert prefill.value == pytest.approx(8 / first.value)
    assert decode.value == pytest.approx(1 / gap.value)
    assert decode.usd_per_unit == pytest.approx(1e-3 / decode.value * 1e6)
    assert decode.work_unit == "million tokens"
    assert gap.config == {"model": "mistral-nano", "dtype": "fp32", "batch": 1, "context": 10}
    assert gap.roof is None
    assert gap.no_roof_because
    assert "of a full forward's" in gap.checked
    assert "transformers" in record.machine.versions


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_incremental_decode_equals_a_full_forward(cpu: Device, dtype: str) -> None:
    model = generate.build(NANO, dtype, cpu, seed=0)
    made = generate.generate(model, torch.randint(NANO.vocabulary, (2, 20)), 6)
    assert made.tokens_BS.shape == (2, 26)
    assert made.logits_BNV.shape == (2, 6, NANO.vocabulary)
    assert len(made.gaps_s) == 5
    generate.check(model, made, dtype)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_decode_with_a_damaged_cache_is_found(cpu: Device, dtype: str) -> None:
    model = generate.build(NANO, dtype, cpu, seed=0)

    def forgetful(tokens_BS: torch.Tensor, **given: object) -> object:
        output = model(tokens_BS, **given)
        output.past_key_values.layers[0].values[:, :, 0] = 0
        return output

    made = generate.generate(forgetful, torch.randint(NANO.vocabulary, (1, 8)), 4)
    with pytest.raises(CheckFailed, match=rf"^incremental decode: logits differ .* allowed .* in {dtype}$"):
        generate.check(model, made, dtype)


def test_one_wrong_position_among_many_is_found(cpu: Device) -> None:
    model = generate.build(NANO, "bf16", cpu, seed=0)
    made = generate.generate(model, torch.randint(NANO.vocabulary, (1, 8)), 40)
    damaged_BNV = made.logits_BNV.clone()
    damaged_BNV[0, 20] = damaged_BNV[0, 20].roll(1)
    with pytest.raises(CheckFailed, match="incremental decode"):
        generate.check(model, replace(made, logits_BNV=damaged_BNV), "bf16")


def test_floors_of_7b_on_an_l4(l4: Device) -> None:
    config = generate.Config(
        model="mistral-7b", dtype="bf16", batch=1, prompt=1024, new_tokens=2, repeats=1, seed=0, threads=1
    )
    first, gap = generate.bounds(config, l4)
    assert first.roof is not None
    assert gap.roof is not None
    assert first.roof.value * 1e3 == pytest.approx(120.4, abs=0.05)
    assert gap.roof.value == pytest.approx(find_model("mistral-7b").decode_bytes(1025) / 300e9)
    lines = list(generate.roof_lines(config, l4))
    assert lines[0].startswith("roof first token: at least 120.4")
    assert lines[1].startswith("roof output token: at least 47.87")


def test_the_middle_of_the_decode_is_the_mean_context_of_its_steps() -> None:
    config = generate.Config(
        model="mistral-nano", dtype="fp32", batch=1, prompt=8, new_tokens=4, repeats=1, seed=0, threads=1
    )
    assert generate.middle(config) == sum((9, 10, 11)) / 3


def test_the_same_seed_builds_the_same_model(cpu: Device) -> None:
    first, again = (generate.build(NANO, "fp32", cpu, seed=7).lm_head.weight.detach() for _ in range(2))
    assert torch.equal(first, again)
    assert float(first.std()) == pytest.approx(0.02, rel=0.02)


def test_what_a_model_is_built_in_does_not_leak(cpu: Device) -> None:
    assert next(generate.build(NANO, "bf16", cpu, seed=0).parameters()).dtype is torch.bfloat16
    assert torch.get_default_dtype() is torch.float32
