"""fits: the verdicts of the labs, and a count of real tensors that the formulas meet to the byte."""

from pathlib import Path

import pytest
import torch
from torch import nn

from labs.memory import Recipe, layer_saved_bytes, serve, train
from labs.models import find_model
from labs.results import read
from workloads import fits
from workloads.command import CheckFailed
from workloads.decoder import Decoder, loss_of
from workloads.device import Device
from workloads.footprint import Counted, Saved, Tally, count_serving, count_training, verdict_here

NANO = find_model("mistral-nano")


@pytest.mark.parametrize(("dtype", "states", "size"), [("fp32", "fp32", 4), ("bf16", "bf16", 2)])
def test_a_training_step_takes_what_the_formulas_say(cpu: Device, dtype: str, states, size) -> None:
    counted = count_training(NANO, dtype, cpu, batch=2, context=96, seed=0)
    predicted = train(NANO, Recipe(states=states, saving="eager-cpu", compute_size=size), batch=2, context=96)
    for name in ("weights", "gradients", "optimiser"):
        assert counted.parts[name] == predicted.of(name)
    tables = 2 * 96 * NANO.head_size * 4  # of the rotary angles, made once
    assert counted.parts["activations"] == predicted.of("activations") + tables
    assert counted.saved["layer 1"] == 2 * 96 * layer_saved_bytes(NANO, "eager-cpu", size)
    assert counted.peak == pytest.approx(predicted.bytes, rel=0.01)


def test_a_prefill_takes_what_the_formulas_say(cpu: Device) -> None:
    counted = count_serving(NANO, "fp32", cpu, batch=2, context=96, seed=0)
    predicted = serve(NANO, batch=2, context=96, weight_size=4, kv_size=4)
    assert counted.parts == {"weights": predicted.of("weights"), "KV cache": predicted.of("KV cache")}
    assert counted.peak == pytest.approx(predicted.bytes, rel=0.01)


def test_the_tally_counts_what_lives_and_the_most_that_lived() -> None:
    standing = torch.ones(1000)
    with Tally([standing]) as tally:
        grown = standing + 1
        view = grown[10:]
        assert tally.live == 8000
        both = grown.double()
        assert tally.live == 16_000
        del both
        assert (tally.live, tally.most) == (8000, 16_000)
        del grown
        assert tally.live == 8000, "a view keeps the whole alive"
        view.add_(1)
        assert tally.most == 16_000


def test_recomputing_a_layer_saves_only_its_input(cpu: Device) -> None:
    model = Decoder(NANO)
    for layer in model.model.layers:
        whole = layer.forward
        layer.forward = lambda *given, whole=whole: torch.utils.checkpoint.checkpoint(whole, *given, use_reentrant=True)
    model.model.embed_tokens.weight.requires_grad_(True)
    saved = Saved(model, model.model.layers, model.model.norm)
    with saved:
        loss_of(model, torch.randint(NANO.vocabulary, (1, 33)))
    assert saved.bytes["layer 1"] == 32 * layer_saved_bytes(NANO, "recomputed", 4)


def test_weights_do_not_count_as_saved() -> None:
    layer, head = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    saved = Saved(nn.Sequential(layer, head), [layer], head)
    with saved:
        head(layer(torch.ones(4, 8)).relu())
    assert saved.bytes == {"layer 0": 2 * 4 * 8 * 4}, "the input, and what relu made"


def test_lab_2_decides_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("ROOFLAB_INSTANCE_TYPE", "g6.12xlarge")
    monkeypatch.setenv("ROOFLAB_LAB", "2")
    fits.main(["--device", "cpu", "--measure", "none", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "on 4 × L4 of a g6.12xlarge: 22.4 GiB each, 89.4 GiB in all" in shown
    assert "AdamW in fp32 keeps 16 B × 7,248,023,552 parameters = 108.0 GiB in all" in shown
    assert "mistral-7b trains on 4 × L4 of a g6.12xlarge: fsdp over 4, bf16 states, recomputed, 18.5 GiB" in shown
    record = read(tmp_path / "fits.node0.json")
    answers = {row.config["way"]: row.config["answer"] for row in record.measurements}
    assert answers["fsdp over 4, fp32 states, recomputed"] == "no"
    assert answers["one device, 16 bits a weight"] == "fits"
    for row in record.measurements:
        assert row.value == sum(row.config["parts"].values())
        assert (row.roof is None) == (row.config["answer"] == "no"), "what does not fit stands above its roof"
        assert not row.suspect
    assert record.notes[-2].startswith("mistral-7b trains on 4 × L4")


def test_where_nothing_fits_the_cheapest_type_that_does_is_named(tmp_path: Path, capsys) -> None:
    fits.main(["--device", "cpu", "--train", "--measure", "none", "--instance-type", "g6.xlarge", "--out",
               str(tmp_path)])  # fmt: skip
    last = capsys.readouterr().out.splitlines()[-2]
    assert last.startswith("mistral-7b does not train on 1 × L4 of a g6.xlarge; the cheapest single instance that does")
    assert "serve" not in last


def test_what_is_measured_stands_beside_its_prediction(tmp_path: Path, capsys) -> None:
    fits.main(["--device", "cpu", "--out", str(tmp_path)])
    rows = [row for row in read(tmp_path / "fits.node0.json").measurements if row.expected]
    assert [row.config["part"] for row in rows] == [
        "weights", "gradients", "optimiser", "activations", "peak", "weights", "KV cache", "peak",
    ]  # fmt: skip
    assert all(abs(row.config["error"]) < 0.01 for row in rows)
    assert [row.config["part"] for row in rows if row.roof] == ["peak", "peak"]
    assert "exact to the byte" in capsys.readouterr().out


def test_a_wrong_prediction_is_a_failed_check() -> None:
    predicted = serve(NANO, batch=1, context=8)
    counted = Counted(parts={"weights": predicted.of("weights") - 2}, peak=1, how="")
    with pytest.raises(CheckFailed, match=r"^weights: 7,868,926 bytes counted, 7,868,928 predicted \(3,934,464 "):
        list(fits.compared(counted, predicted))


def test_a_machine_is_judged_by_the_memory_it_has(cpu: Device) -> None:
    assert verdict_here(NANO, cpu, 128).answer == "fits"
    assert verdict_here(find_model("mistral-7b"), cpu, 10**8).answer == "no"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b"),
        (["--measure", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b"),
        (["--instance-type", "g6"], "instance_type='g6' is not an EC2 type: write FAMILY.SIZE"),
        (["--context", "0"], "argument --context: '0' is not a whole number of at least 1"),
    ],
)
def test_a_wrong_flag_is_one_line(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        fits.main(["--device", "cpu", *arguments])
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1
