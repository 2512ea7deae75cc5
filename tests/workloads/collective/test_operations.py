"""What each rank must hold afterwards, on ranks that are one process: computed here as the collective is defined."""

from typing import Any

import pytest
import torch
from torch import Tensor

from labs.wire import COLLECTIVES
from workloads.collective.operations import Operation, operation
from workloads.collective.sweep import iterations_within
from workloads.device import Device
from workloads.group import Group


def of_all(collective: str, ranks: int, dtype: str, device: Device, size_bytes: int = 4096) -> list[Operation]:
    made = [
        operation(collective, size_bytes, dtype, Group(rank=rank, size=ranks, device=device)) for rank in range(ranks)
    ]
    for one in made:
        one.prepare()
    return made


def deliver(collective: str, made: list[Operation]) -> list[Tensor]:
    """What every rank gets of what all bring, by the definition of the collective."""
    ranks = len(made)
    brought = [one.brought[0].values_RC.flatten().double() if one.brought else torch.zeros(0) for one in made]
    summed = sum(brought) if collective in ("all-reduce", "reduce-scatter") else None
    if collective == "all-reduce":
        assert isinstance(summed, Tensor)
        return [summed] * ranks
    if collective == "reduce-scatter":
        assert isinstance(summed, Tensor)
        return list(summed.chunk(ranks))
    if collective == "all-gather":
        return [torch.cat(brought)] * ranks
    if collective == "all-to-all":
        return [torch.cat([one.chunk(ranks)[rank] for one in brought]) for rank in range(ranks)]
    if collective == "broadcast":
        return [brought[0]] * ranks
    return [brought[rank - 1] for rank in range(ranks)]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_what_is_due_is_what_the_collective_delivers(cpu: Device, collective: str, ranks: int, dtype: str) -> None:
    made = of_all(collective, ranks, dtype, cpu)
    for one, delivered in zip(made, deliver(collective, made), strict=True):
        due = one.due.values_RC
        due.copy_(delivered.reshape(due.shape))
        assert int(one.due.wrong()) == 0
        assert float(due.max()) <= 256, "beyond that bf16 skips integers"


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_call_that_does_nothing_is_seen(cpu: Device, collective: str) -> None:
    """What was left of the call before does not pass for a result. (A broadcast's root has it already.)"""
    for one in of_all(collective, 4, "fp32", cpu)[1:]:
        assert int(one.due.wrong()) > 0


@pytest.mark.parametrize("collective", ["all-gather", "all-to-all"])
def test_pieces_in_each_others_place_are_seen(cpu: Device, collective: str) -> None:
    made = of_all(collective, 8, "fp32", cpu)
    delivered = deliver(collective, made)[3]
    due = made[3].due.values_RC
    due.copy_(delivered.reshape(due.shape))
    due[[2, 6]] = due[[6, 2]]
    assert int(made[3].due.wrong()) > 0


def test_a_single_wrong_element_is_counted(cpu: Device) -> None:
    made = of_all("all-reduce", 3, "fp32", cpu)[0]
    made.due.fill()
    assert int(made.due.wrong()) == 0
    for place in (0, 500, -1):
        made.due.values_RC[0, place] += 1
    assert int(made.due.wrong()) == 3


@pytest.mark.parametrize(("ranks", "size_bytes"), [(3, 4092), (5, 4080), (1024, 4096), (2000, 8000)])
def test_a_size_is_what_the_ranks_divide(cpu: Device, ranks: int, size_bytes: int) -> None:
    given: dict[str, Any] = {"device": cpu, "size": ranks, "rank": ranks - 1}
    assert operation("all-gather", 4096, "fp32", Group(**given)).size_bytes == size_bytes


@pytest.mark.parametrize(
    ("left_s", "each_s", "most", "sizes", "count"),
    [(10, 0.1, 20, 1, 20), (1, 0.1, 20, 1, 10), (0.5, 0.1, 20, 1, 5), (0.4, 0.1, 20, 1, 0), (0.4, 0.1, 3, 1, 3),
     (-1, 0.1, 20, 1, 0), (float("inf"), 0.1, 20, 7, 20), (3, 0.1, 20, 3, 10), (3, 0.1, 20, 30, 5),
     (0.2, 0.1, 3, 1, 0)],
)  # fmt: skip
def test_as_many_iterations_as_the_budget_allows_for_all_sizes_but_enough_for_a_median(
    left_s: float, each_s: float, most: int, sizes: int, count: int
) -> None:
    assert iterations_within(left_s, each_s, most, sizes) == count
