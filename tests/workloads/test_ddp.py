"""ddp: two real ranks train one model, and every check can fail."""

from pathlib import Path

import pytest
import torch

from labs.models import find_model
from labs.results import read
from tests.workloads.launching import torchrun
from workloads import ddp
from workloads.chain import ALPHABET, draw
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.group import Group
from workloads.parallel.bench import Bench
from workloads.parallel.compression import allowed
from workloads.parallel.settings import Settings
from workloads.parity import digest, digest_failure, gradient_failure

NANO = find_model("mistral-nano")
SMALL = ["--device", "cpu", "--batch", "1", "--sequence", "16", "--steps", "8", "--buckets", "25"]


@pytest.mark.timeout(650)
def test_two_ranks_train_one_model(tmp_path: Path) -> None:
    outcome = torchrun(2, "-m", "workloads.ddp", "--device", "cpu", "--sequence", "16", "--steps", "8", "--buckets",
                       "25,4", "--compress", "bf16", "--out", str(tmp_path), limit_s=600, ROOFLAB_NODES="2",
                       ROOFLAB_USD_PER_HOUR="7.2")  # fmt: skip
    assert outcome.stderr == ""
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("roof training: none, ")
    assert "predicted: buckets of 25 MB: each of 2 ranks sends 15.74 MB a step" in outcome.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["ddp.json"]
    record = read(tmp_path / "ddp.json")
    names = [row.name for row in record.measurements]
    assert names[:3] == ["training", "step", "sent"]
    ways = ("buckets of 4 MB", "buckets of 25 MB in bf16")
    assert names[3:] == [*(f"{name}, {way}" for way in ways for name in names[:3]), "weak scaling"]
    training, step, sent = record.measurements[:3]
    scaling = record.measurements[-1]
    assert (record.ranks, record.nodes, record.machine.devices) == (2, 2, 2)
    assert training.config["tokens_per_step"] == 2 * 2 * 16
    assert training.value == pytest.approx(64 / step.value)
    assert training.usd_per_unit == pytest.approx(7.2 / 3600 / training.value * 1e6)
    assert training.config["predicted_bytes_per_rank"] == sent.value == 4 * NANO.parameters
    assert training.config["flops_per_token"] == NANO.train_flops(16)
    assert len(step.samples_s) == 8 - 2
    assert sum(span.seconds for span in step.spans) == pytest.approx(step.value)
    assert scaling.value == pytest.approx(2 * scaling.config["alone_s"] / step.value)
    assert scaling.config["efficiency"] == pytest.approx(scaling.value / 2)
    losses = step.config["losses"]
    assert len(losses) == 8
    assert losses[-1] < 0.9 * losses[0]
    assert "parameters bitwise equal" in training.checked
    assert step.config["parity_losses"] == pytest.approx(step.config["parity_alone"], rel=1e-5)
    _, half_step, half_sent = record.measurements[6:9]
    assert half_sent.value == sent.value / 2 == 2 * NANO.parameters
    assert half_sent.config["gradient_bytes"] == 2
    assert half_step.config["parity_losses"] == pytest.approx(half_step.config["parity_alone"], rel=allowed(2))
    assert half_step.config["parity_gradients"] > step.config["parity_gradients"]
    assert half_step.config["losses"] == pytest.approx(losses, rel=0.05)
    assert "allowed 1e-02" in half_step.checked


def test_what_bf16_rounds_off_grows_with_the_root_of_the_ranks() -> None:
    assert allowed(2) == allowed(4) == pytest.approx(0.0098, rel=1e-2)
    assert allowed(64) == 8 * 2**-8


def test_the_roof_of_training_is_the_ranks_peak_over_the_models_flops(l4: Device) -> None:
    settings = Settings(
        model="mistral-nano", dtype="bf16", batch=1, sequence=4096, steps=8, learning_rate=1e-3, seed=0, threads=1
    )
    bound = Bench(settings=settings, group=Group(rank=0, size=4, device=l4)).bound()
    assert bound.roof is not None
    assert bound.roof.value == pytest.approx(4 * 121e12 / 47_192_064)


def test_a_model_that_does_not_learn_ends_the_run(tmp_path: Path) -> None:
    words = r"^loss of buckets of 25 MB falls: rank 0: from \d\.\d+ only to \d\.\d+, must be below 90%"
    with pytest.raises(CheckFailed, match=words):
        ddp.main([*SMALL, "--learning-rate", "1e-9", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def gradients() -> dict[str, torch.Tensor]:
    return {"a": torch.ones(4), "b": torch.full((2,), 3.0)}


def test_equal_gradients_pass() -> None:
    assert gradient_failure(gradients(), gradients(), 1e-3) == (0.0, "")


@pytest.mark.parametrize("factor", [2.0, 0.5, 0.0, float("nan")])
def test_one_parameters_wrong_gradient_is_found_among_right_ones(factor: float) -> None:
    found = {**gradients(), "a": factor * torch.ones(4)}
    difference, failure = gradient_failure(found, gradients(), 1e-3)
    assert not difference <= 1e-3
    assert failure.startswith("a differs by ")


def test_a_missing_gradient_is_found() -> None:
    assert gradient_failure({"a": torch.ones(4)}, gradients(), 1.0)[1] == "gradients of ['b'] are missing"


def test_one_flipped_bit_in_one_ranks_parameters_is_found() -> None:
    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    other.load_state_dict(model.state_dict())
    assert digest(model) == digest(other)
    bits = other.weight.data.view(torch.int32)
    bits[0, 0] ^= 1
    assert digest(model) != digest(other)
    assert digest_failure(["x", "x", "y"]) == "parameters of ranks [2] are not rank 0's"
    assert digest_failure(["x", "x"]) == ""


def test_data_is_the_same_wherever_it_is_drawn_and_differs_by_step() -> None:
    assert torch.equal(draw(0, 3, 4, 17), draw(0, 3, 4, 17))
    assert not torch.equal(draw(0, 3, 4, 17), draw(0, 4, 4, 17))


def test_nine_tokens_in_ten_follow_the_chain() -> None:
    tokens_GT = draw(1, 0, 64, 257)
    follows = (tokens_GT[:, 1:] == (5 * tokens_GT[:, :-1] + 7) % ALPHABET).float().mean()
    assert float(follows) == pytest.approx(0.9 + 0.1 / 64, abs=0.01)
    assert int(tokens_GT.max()) < ALPHABET


def test_ranks_take_disjoint_shares_that_cover_the_batch(cpu: Device) -> None:
    tokens_GT = draw(0, 0, 6, 17)
    strategies = [ddp.strategy(25, Group(rank=rank, size=3, device=cpu)) for rank in range(3)]
    shares = [strategy.share_of(tokens_GT, cpu) for strategy in strategies]
    assert torch.equal(torch.cat(shares), tokens_GT)
