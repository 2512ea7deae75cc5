"""Every check of a parallel workload can fail, and says what it found."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from labs.models import find_model
from labs.traffic import Call, Traffic, data_parallel
from tests.workloads.parallel.pretended import single
from workloads.command import CheckFailed
from workloads.parallel import decoding, points
from workloads.parallel.bench import Bench
from workloads.parallel.oneprocess import check_parity
from workloads.parallel.plan import split_inference
from workloads.parallel.products import WAYS, Matrices
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Steps, Strategy, alone, settle

pytestmark = pytest.mark.usefixtures("small")
SETTINGS = Settings(model="mistral-nano", dtype="fp32", batch=1, sequence=16, steps=8, learning_rate=3e-3, seed=0,
                    threads=1)  # fmt: skip


def plain(**given: Any) -> Strategy:
    return replace(alone(), name="mine", **given)


def doubling(model: nn.Module) -> nn.Module:
    model.lm_head.weight.register_hook(lambda gradient: 2 * gradient)
    return model


class Late(torch.optim.AdamW):  # type: ignore[misc]  # mypy follows no imports into torch
    """Takes only every second step."""

    def step(self, closure: Any = None) -> None:
        self.taken = not getattr(self, "taken", False)
        if not self.taken:
            super().step(closure)


def test_what_is_one_process_passes() -> None:
    with single() as group:
        parity = check_parity(plain(), SETTINGS, group)
    assert parity.losses == parity.alone
    assert parity.gradients == 0
    assert parity.text.startswith(
        "mistral-nano in fp32 like one process: 3 losses within 0e+00, gradients within 0e+00"
    )


def test_a_doubled_gradient_is_found() -> None:
    words = r"^mine like one process: rank 0: lm_head.weight differs by 1 from one process's, allowed 1e-05$"
    with single() as group, pytest.raises(CheckFailed, match=words):
        check_parity(plain(wrap=doubling), SETTINGS, group)


def test_a_step_that_was_not_taken_is_found_in_the_losses() -> None:
    def late(groups: Any, rate: float) -> torch.optim.Optimizer:
        return Late(groups, lr=rate)

    with single() as group, pytest.raises(CheckFailed, match=r"^mine like one process: rank 0: losses \(.*\) are not "):
        check_parity(plain(optimiser=late), SETTINGS, group)


def test_bytes_that_nobody_predicted_end_the_run() -> None:
    wrong = Traffic(calls=(Call(collective="all-reduce", ranks=2, buffer_bytes=8),))
    words = r"^bytes of mine: rank 0: all-reduce over 2 ranks: 0 B counted, 8 B predicted$"
    with single() as group, pytest.raises(CheckFailed, match=words):
        Bench(settings=SETTINGS, group=group).measure(plain(traffic=lambda _shape, _tokens: wrong), plain())


def test_a_model_that_does_not_learn_ends_the_run() -> None:
    idle = replace(SETTINGS, learning_rate=1e-9)
    with single() as group, pytest.raises(CheckFailed, match=r"^loss of mine falls: rank 0: from \d\.\d+ only to "):
        Bench(settings=idle, group=group).measure(plain(), plain())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_one_wrong_entry_of_a_product_is_found(way) -> None:
    with single() as group:
        matrices = Matrices((8, 6, 16), "fp32", group, 0, pieces=2)
        matrices.fill_integers()
        matrices.both(way)
        assert matrices.wrong(way) == ""
        for result in (matrices._gathered_RMn, matrices._scattered_mN, matrices._summand_MN):
            result.view(-1)[5] += 1
        assert matrices.wrong(way) == "1 of 48 entries differ from float64's"


def test_losses_that_depend_on_the_number_of_ranks_are_found() -> None:
    config = points.Config(**vars(SETTINGS), sizes=(1, 2), sequences=2)

    def point(ranks: int, *losses: float) -> points.Point:
        steps = Steps(samples_s=(1.0,), losses=losses)
        return points.Point(kind="strong", ranks=ranks, every=(steps,), breakdowns=())

    assert points.loss_failure([point(1, 4.0, 3.0), point(2, 4.0, 3.00001)], config) == ""
    found = points.loss_failure([point(1, 4.0, 3.0), point(2, 4.0, 3.1)], config)
    assert found == "step 2 on 2 ranks has 3.100000, on one 3.000000, allowed 1e-05 apart"


def test_a_decode_that_is_not_one_processs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, mesh: Any) -> nn.Module:
        with torch.no_grad():
            model.lm_head.weight[0] *= 2
        return split_inference(model, mesh)

    monkeypatch.setattr(decoding, "split_inference", wrong)
    with single() as group:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,), mesh_dim_names=("tensor",))
        with pytest.raises(
            CheckFailed, match=r"^decode of a split model: rank 0: logits differ from one process's by "
        ):
            decoding.check_tokens(group, mesh, 0)


def test_speed_ups_count_the_work_that_grew() -> None:
    def point(kind: points.Kind, ranks: int, seconds: float) -> points.Point:
        return points.Point(kind=kind, ranks=ranks, every=(Steps(samples_s=(seconds,), losses=()),), breakdowns=())

    found = [point("strong", 1, 4.0), point("strong", 4, 1.25), point("weak", 1, 1.0), point("weak", 4, 1.25)]
    assert points.speedups(found, "strong") == {1: 1.0, 4: 3.2}
    assert points.speedups(found, "weak") == {1: 1.0, 4: 3.2}


def test_a_gradient_that_is_whole_is_left_alone() -> None:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad
    settle(layer)
    assert layer.weight.grad is before
    assert data_parallel(find_model("mistral-nano"), 1).sent_bytes == 0
