"""generate: latencies apart, floors from the model's bytes, and a check that finds a wrong decode."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from labs.accelerators import by_driver_name
from labs.models import find_model
from labs.results import Machine, Measurement, Record, Roof, read
from workloads import bandwidth, generate
from workloads.answer import energy_row, roof_lines
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.request import Ceilings, Request, ceilings, twin

SMALL = ["--device", "cpu", "--model", "mistral-nano", "--prompt", "8", "--new-tokens", "4", "--repeats", "2",
         "--prompts", "4,16"]  # fmt: skip
NANO = find_model("mistral-nano")


@pytest.fixture
def gpu() -> Device:
    """An L4 to the formulas; nothing runs on it."""
    return Device(torch=torch.device("cuda"), name="NVIDIA L4", accelerator=by_driver_name("NVIDIA L4"))


def asked(device: Device, model: str = "mistral-7b", **given: Any) -> Request:
    """A request whose ceilings and overhead are known without measuring."""
    can = Ceilings(memory=Roof(value=250e9, source="measured here, memory by sum"),
                   peak=Roof(value=100e12, source="measured here, bf16 512x14336x4096"))  # fmt: skip
    settings = {"dtype": "bf16", "batch": 1, "prompt": 1024, "new_tokens": 2, "overhead_s": 0.016, **given}
    return Request(shape=find_model(model), device=device, ceilings=can, **settings)


def test_a_run_writes_prefill_decode_and_the_whole_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    monkeypatch.setattr(bandwidth, "CPU_LARGEST_BYTES", 2**22)
    generate.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "generate.node0.json")
    first, prefill, gap, decode, whole, *swept = record.measurements
    assert [row.name for row in record.measurements] == [
        "time to first token", "prefill", "time per output token", "decode", "one request",
        "time to first token, prompt of 4", "time to first token, prompt of 16",
    ]  # fmt: skip
    assert [row.unit for row in record.measurements] == ["s", "token/s", "s", "token/s", "s", "s", "s"]
    assert (len(first.samples_s), len(gap.samples_s), len(whole.samples_s)) == (2, 2 * 3, 2)
    assert prefill.value == pytest.approx(8 / first.value)
    assert decode.value == pytest.approx(1 / gap.value)
    assert decode.usd_per_unit == pytest.approx(1e-3 / decode.value * 1e6)
    assert decode.work_unit == "million tokens"
    assert gap.config == {"model": "mistral-nano", "dtype": "fp32", "batch": 1, "context": 10,
                          "bytes": NANO.decode_bytes(10, weight_size=4, kv_size=4)}  # fmt: skip
    assert gap.roof is None
    assert gap.no_roof_because
    assert gap.others[0].source.startswith("measured here, memory by ")
    assert gap.expected is not None
    assert gap.expected.value > gap.others[0].value, "overhead comes on top"
    assert sum(span.seconds for span in gap.spans) == pytest.approx(gap.value)
    assert sum(span.seconds for span in whole.spans) == pytest.approx(whole.value)
    assert [row.config["prompt"] for row in swept] == [4, 16]
    assert "of a full forward's" in gap.checked
    assert "transformers" in record.machine.versions
    assert "no energy per token: a CPU does not tell its clock here" in record.notes


def test_ceilings_of_the_run_are_taken_before_new_ones_are_measured(cpu: Device, tmp_path: Path) -> None:
    row = Measurement(name="fp32 read 256 MiB", value=123e9, unit="B/s", estimator="", no_roof_because="none",
                      config={"kernel": "read", "by": "amax", "past_cache": True, "bytes": 1})  # fmt: skip
    product = Measurement(name="fp32 8x8x8", value=4e11, unit="FLOP/s", estimator="", no_roof_because="none",
                          config={"dtype": "fp32"})  # fmt: skip
    machine = Machine(hostname="h", device=cpu.name, devices=1)
    for name, of in (("bandwidth", row), ("gemm", product)):
        Record(workload=name, machine=machine, measurements=(of,), node="node0").write(tmp_path)
    can = ceilings(tmp_path, "node0", cpu, NANO, "fp32", seed=0)
    assert (can.memory.value, can.peak.value) == (123e9, 4e11)
    assert can.memory.source == "measured before in this run, memory by amax"


def test_a_run_with_weights_of_its_own_reads_them(
    cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bandwidth, "CPU_LARGEST_BYTES", 2**22)
    generate.build(NANO, "fp32", cpu, seed=3).save_pretrained(tmp_path / "weights")
    generate.main([*SMALL, "--weights", str(tmp_path / "weights"), "--out", str(tmp_path)])
    assert f"reading mistral-nano from {tmp_path / 'weights'} as fp32" in capsys.readouterr().out
    assert read(tmp_path / "generate.node0.json").config["weights"] == str(tmp_path / "weights")


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
    request = asked(l4)
    first, gap = request.first(1024), request.token
    assert first.roof is not None
    assert gap.roof is not None
    assert first.roof.value * 1e3 == pytest.approx(120.4, abs=0.05)
    assert gap.roof.value == pytest.approx(find_model("mistral-7b").decode_bytes(1025) / 300e9)
    assert request.step_bytes == 14_361_837_568 + 131_072
    lines = list(roof_lines(request))
    assert lines[0].startswith("roof first token: at least 120.4")
    assert lines[3].startswith("roof output token: at least 47.87")
    assert lines[-1] == "attention takes as many FLOPs as the weights from a prompt of 53,248 tokens on"


def test_the_middle_of_the_decode_is_the_mean_context_of_its_steps(cpu: Device) -> None:
    assert asked(cpu, "mistral-nano", prompt=8, new_tokens=4).middle == sum((9, 10, 11)) / 3


def test_what_is_expected_adds_overhead_on_a_cpu_and_hides_it_on_a_gpu(cpu: Device, gpu: Device) -> None:
    moved_s = asked(cpu).step_bytes / 250e9
    assert asked(cpu).token_expected.value == pytest.approx(moved_s + 0.016)
    assert asked(gpu).token_expected.value == pytest.approx(moved_s), "57 ms of bytes hide 16 ms of launches"
    assert asked(gpu, overhead_s=0.1).token_expected.value == pytest.approx(0.1), "an H200 waits for its host"


def test_a_steps_time_in_parts_by_hand(cpu: Device, gpu: Device) -> None:
    """14,227,619,840 bytes of weights with a row of the input table, 1025 × 131,072 of KV cache, at 250 GB/s."""
    weights_s, cache_s = 14_227_619_840 / 250e9, 1025 * 131_072 / 250e9
    parts = {span.name: span.seconds for span in asked(cpu).token_spans(0.1)}
    assert parts == pytest.approx({
        "weights at the measured bandwidth": weights_s, "KV cache at the measured bandwidth": cache_s,
        "overhead of a step": 0.016, "the rest": 0.1 - weights_s - cache_s - 0.016,
    })  # fmt: skip
    waits = {span.name: span.seconds for span in asked(gpu, overhead_s=0.08).token_spans(0.1)}
    assert waits["launches beyond it"] == pytest.approx(0.08 - weights_s - cache_s)
    assert "launches beyond it" not in {span.name for span in asked(gpu).token_spans(0.1)}


def test_parts_never_exceed_the_time_that_was_taken(cpu: Device) -> None:
    for taken_s in (0.01, 0.057, 0.06, 1.0):
        spans = asked(cpu).token_spans(taken_s)
        assert sum(span.seconds for span in spans) == pytest.approx(taken_s)
        assert all(span.seconds > 0 for span in spans)


def test_energy_is_divided_among_the_tokens_that_were_made() -> None:
    row = energy_row(joules=300.0, tokens=600)
    assert (row.value, row.unit) == (0.5, "J")


def test_a_twin_has_the_layers_and_next_to_nothing_in_them() -> None:
    narrow = twin(find_model("mistral-7b"))
    assert narrow.layers == 32
    assert narrow.decode_bytes(16) < find_model("mistral-7b").decode_bytes(16) / 5000


def test_the_same_seed_builds_the_same_model(cpu: Device) -> None:
    first, again = (generate.build(NANO, "fp32", cpu, seed=7).lm_head.weight.detach() for _ in range(2))
    assert torch.equal(first, again)
    assert float(first.std()) == pytest.approx(0.02, rel=0.02)


def test_what_a_model_is_built_in_does_not_leak(cpu: Device) -> None:
    assert next(generate.build(NANO, "bf16", cpu, seed=0).parameters()).dtype is torch.bfloat16
    assert torch.get_default_dtype() is torch.float32
