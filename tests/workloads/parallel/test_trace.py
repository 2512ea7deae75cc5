"""Stretches of time, and a profiler's events folded into a step's parts."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from workloads.parallel.intervals import both, clip, coarse, length, union, without
from workloads.parallel.trace import Breakdown, fold, shares, spans


def test_stretches_by_hand() -> None:
    one = union([(4.0, 6.0), (0.0, 2.0), (1.0, 3.0), (7.0, 7.0)])
    assert one == [(0.0, 3.0), (4.0, 6.0)]
    assert length(one) == 5.0
    other = union([(2.0, 5.0), (5.5, 9.0)])
    assert both(one, other) == [(2.0, 3.0), (4.0, 5.0), (5.5, 6.0)]
    assert without(one, other) == [(0.0, 2.0), (5.0, 5.5)]
    assert length(both(one, other)) + length(without(one, other)) == length(one)
    assert clip(one, 1.0, 5.0) == [(1.0, 3.0), (4.0, 5.0)]
    assert without(one, []) == one
    assert both(one, []) == []


def test_a_drawing_closes_small_gaps_and_drops_what_stays_small() -> None:
    assert coarse([(0.0, 1.0), (1.05, 2.0), (5.0, 5.05)], 0.1) == [(0.0, 2.0)]


def event(name: str, begin_us: float, end_us: float, *, thread: int = 1, cuda: bool = False, note: bool = False) -> Any:
    return SimpleNamespace(
        name=name, thread=thread, device_type=DeviceType.CUDA if cuda else DeviceType.CPU, is_user_annotation=note,
        time_range=SimpleNamespace(start=begin_us, end=end_us),
    )  # fmt: skip


def test_on_a_cpu_gloo_under_an_operator_is_hidden_and_beside_it_exposed() -> None:
    found = fold([
        event("rooflab step", 0, 100, note=True),
        event("aten::mm", 10, 50), event("aten::copy_", 20, 30), event("aten::mm", 200, 300),
        event("gloo:all_reduce", 40, 70, thread=2), event("aten::add_", 60, 90, thread=2),
    ], cuda=False)  # fmt: skip
    assert found.step_s == pytest.approx(100e-6)
    assert found.compute_s == pytest.approx(40e-6)
    assert found.hidden_s == pytest.approx(10e-6)
    assert found.exposed_s == pytest.approx(20e-6)
    assert found.idle_s == pytest.approx(40e-6)
    assert found.overlap == pytest.approx(1 / 3)
    (drawn,) = found.strip["compute"]
    assert drawn == pytest.approx((10e-6, 50e-6))


def test_an_operator_that_waits_for_a_collective_does_not_compute_meanwhile() -> None:
    found = fold([
        event("rooflab step", 0, 100, note=True),
        event("aten::add", 0, 60), event("_c10d_functional::wait_tensor", 20, 50),
        event("gloo:all_reduce", 15, 50, thread=2),
    ], cuda=False)  # fmt: skip
    assert found.compute_s == pytest.approx(30e-6)
    assert found.exposed_s == pytest.approx(30e-6)
    assert found.hidden_s == pytest.approx(5e-6)


def test_on_a_gpu_the_kernels_tell() -> None:
    found = fold([
        event("rooflab step", 0, 100, note=True), event("rooflab step", 5, 95, cuda=True, note=True),
        event("aten::mm", 0, 90), event("ampere_bf16_gemm", 10, 40, cuda=True),
        event("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 30, 60, cuda=True), event("Memcpy DtoD", 60, 70, cuda=True),
    ], cuda=True)  # fmt: skip
    parts = (found.compute_s, found.hidden_s, found.exposed_s, found.idle_s)
    assert parts == pytest.approx((40e-6, 10e-6, 20e-6, 40e-6))


def test_several_steps_are_a_mean_and_spans_add_up_to_the_median() -> None:
    one = Breakdown(step_s=1.0, compute_s=0.5, hidden_s=0.1, exposed_s=0.3, strip={})
    other = Breakdown(step_s=3.0, compute_s=2.5, hidden_s=0.0, exposed_s=0.1, strip={})
    told = shares([one, other])
    assert told == pytest.approx({"compute": 0.75, "exposed": 0.1, "idle": 0.15, "overlap": 0.2})
    found = spans([one, other], 0.2, cuda=False)
    assert [span.name for span in found] == ["arithmetic", "idle: Python and waiting", "exposed communication"]
    assert sum(span.seconds for span in found) == pytest.approx(0.2)
    assert "(2000.0 ms a step under it)" in found[0].how


def test_without_communication_nothing_is_hidden() -> None:
    quiet = Breakdown(step_s=1.0, compute_s=0.9, hidden_s=0.0, exposed_s=0.0, strip={})
    assert quiet.overlap is None
    assert shares([quiet])["overlap"] == 0
