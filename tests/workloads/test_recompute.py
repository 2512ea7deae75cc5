"""recompute: what is made again is what would have been kept, and both ends of the curve are the closed forms'."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from labs.memory import layer_saved_bytes
from labs.models import find_model
from labs.results import read
from workloads import recompute
from workloads.chain import draw
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.training.budget import Point, applied, points, predicted_bytes, predicted_slowdown
from workloads.training.kept import kept
from workloads.training.trainee import Trainee

NANO = find_model("mistral-nano")
SMALL = ["--device", "cpu", "--batch", "1", "--sequence", "16", "--steps", "2"]


def test_a_curve_from_keeping_everything_to_each_layers_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recompute.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "recompute.node0.json")
    times, memory = record.measurements[::2], record.measurements[1::2]
    assert [row.name for row in times] == [f"step, {count} of 4 layers again" for count in range(5)]
    found = [row.value for row in memory]
    assert found == sorted(found, reverse=True)
    for row in memory:
        assert row.expected is not None
        assert row.value == pytest.approx(row.expected.value, rel=0.02)
    steps = [before - after for before, after in pairwise(found)]
    saved = 16 * (layer_saved_bytes(NANO, "eager-cpu", 4) - layer_saved_bytes(NANO, "recomputed", 4))
    assert steps == pytest.approx([saved] * 4, rel=0.02)
    assert len({row.config["loss"] for row in times}) == 1
    assert all(sum(span.seconds for span in row.spans) == pytest.approx(row.value) for row in times)
    said = capsys.readouterr().out
    assert said.index("predicted 4 of 4 layers again") < said.index("measured  0 of 4 layers again")


def test_a_layer_is_run_again_only_while_the_choice_holds(cpu: Device) -> None:
    model, calls = Trainee(NANO, chunk=64), []
    model.decoder.model.layers[0].register_forward_pre_hook(lambda layer, given: calls.append(1))
    attention = model.decoder.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda layer, given: calls.append(2))
    with applied(model, points(NANO, cpu)[-1], cpu):
        model(draw(0, 0, 1, 9)).backward()
    assert calls == [1, 2, 2]
    calls.clear()
    model(draw(0, 0, 1, 9)).backward()
    assert calls == [1, 2]


def test_what_is_kept_is_counted_once_and_weights_are_not() -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    x = torch.randn(8, 4, requires_grad=True)
    with kept(model) as count:
        y = model(x)
        z = y * y  # keeps y twice
        z.sum().backward()
    assert count.bytes == x.nbytes + y.nbytes


def test_memory_by_closed_form_and_time_by_flops(cpu: Device) -> None:
    seven = find_model("mistral-7b")
    gpu = Device(torch=torch.device("cuda"), name="", accelerator=None)
    whole, none = (Point(name="", share=share, again=0) for share in (1.0, 0.0))
    assert predicted_bytes(seven, whole, "bf16", 1, gpu) == 32 * 94_336
    assert predicted_bytes(seven, none, "bf16", 1, gpu) == 32 * 2 * 4096
    half = Point(name="", share=0.5, again=2)
    assert predicted_bytes(NANO, half, "fp32", 3, cpu) == 3 * 2 * (
        layer_saved_bytes(NANO, "eager-cpu", 4) + layer_saved_bytes(NANO, "recomputed", 4)
    )
    assert predicted_slowdown(seven, whole, 4096) == 1
    assert predicted_slowdown(seven, none, 4096) == pytest.approx(60_935_897_088 / 45_903_249_408)


def test_wrong_gradients_end_the_run() -> None:
    everything, broken = (
        recompute.Taken(point=Point(name=name, share=1.0, again=0), gradients=[torch.full((3,), value)])
        for name, value in (("all", 1.0), ("none", 1.1))
    )
    with pytest.raises(CheckFailed, match=r"^none: gradients differ by 0\.1 from those of keeping everything, allowed"):
        recompute.check([everything, broken], "fp32")


def test_a_wrong_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        recompute.main(["--device", "cpu", "--dtype", "fp16"])
    assert "dtype='fp16' is not one that training runs in: write fp32 or bf16" in capsys.readouterr().err
