"""What is chosen before anything runs: states by memory, shapes, grids; and the words where nothing can be chosen."""

import argparse
from dataclasses import replace
from typing import Any

import pytest
import torch

from labs.accelerators import by_driver_name
from labs.models import find_model
from labs.results import Machine, Measurement, Record
from labs.traffic import data_parallel, fully_sharded
from workloads import ddp, fsdp, mesh, scaling, split_gemm, tensor_parallel
from workloads.device import Device
from workloads.group import Place
from workloads.parallel import recipe
from workloads.parallel.links import Link, link_of
from workloads.parallel.nodes import Layout
from workloads.parallel.settings import default_model

GIB = 2**30
SHARED = {
    "model": None,
    "dtype": None,
    "batch": None,
    "sequence": None,
    "steps": None,
    "learning_rate": None,
    "seed": 0,
}


def flags(**given: Any) -> argparse.Namespace:
    more = {"buckets": None, "states": None, "tensor": None, "answering": None, "prompt": None, "new_tokens": None,
            "shape": None, "pieces": None, "iterations": None, "compress": "", "nodes_as": None}  # fmt: skip
    return argparse.Namespace(**{**SHARED, **more, **given})


def gpu(monkeypatch: pytest.MonkeyPatch, name: str, free_gib: float) -> Device:
    """Looks like a GPU with so much free memory; nothing may run on it."""
    monkeypatch.setattr(Device, "memory_bytes", property(lambda _self: int(free_gib * GIB)))
    monkeypatch.setattr(Device, "dtypes", property(lambda _self: ("fp32", "tf32", "fp16", "bf16")))
    return Device(torch=torch.device("cuda"), name=name, accelerator=by_driver_name(name))


@pytest.mark.parametrize(
    ("free_gib", "ranks", "states"),
    [(22.3, 4, "bf16"), (44.5, 4, "fp32"), (139.0, 1, "fp32"), (15.0, 4, "8-bit"), (22.3, 8, "fp32")],
    ids=["4 L4", "4 L40S", "1 H200", "4 T4 with bf16", "8 L4"],
)
def test_states_of_7b_are_chosen_by_memory(
    free_gib: float, ranks: int, states: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = gpu(monkeypatch, "NVIDIA L4", free_gib)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    chosen = recipe.choose_states(find_model("mistral-7b"), device, batch=1, sequence=1024, ranks=ranks, nodes=1)
    assert chosen.states == states


def test_states_that_need_a_library_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    device = gpu(monkeypatch, "NVIDIA L4", 22.3)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"^states='bf16' need torchao, which is not installed: pip install torchao"):
        recipe.choose_states(find_model("mistral-7b"), device, batch=1, sequence=1024, ranks=4, nodes=1)


def test_a_model_that_fits_in_no_way_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    device = gpu(monkeypatch, "NVIDIA L4", 4.0)
    words = (
        r"^model='mistral-7b' does not fit 4 × NVIDIA L4 with 1 × 1024 tokens a rank \(at best .*\): write a smaller"
    )
    with pytest.raises(ValueError, match=words):
        recipe.choose_states(find_model("mistral-7b"), device, batch=1, sequence=1024, ranks=4, nodes=1,
                             states="bf16")  # fmt: skip


def test_defaults_on_four_l4(monkeypatch: pytest.MonkeyPatch) -> None:
    device = gpu(monkeypatch, "NVIDIA L4", 22.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    here = Place(rank=0, size=4, local_rank=0)
    assert default_model(device) == "mistral-tiny"
    assert ddp.configure(flags(), device, here).model == "mistral-tiny"
    assert mesh.configure(flags(), device, here).tensors == (2, 1, 4)
    sharded = fsdp.configure(flags(), device, here)
    assert (sharded.model, sharded.states, sharded.batch, sharded.dtype) == ("mistral-7b", "bf16", 1, "bf16")
    split = tensor_parallel.configure(flags(), device, here)
    assert (split.model, split.answering) == ("mistral-tiny", "mistral-7b")
    grown = scaling.configure(flags(), device, here)
    assert (grown.model, grown.sizes, grown.sequences) == ("mistral-tiny", (1, 2, 3, 4), 12)
    assert 12 * grown.sequence <= 4096, "one rank alone holds the whole batch"


def test_defaults_on_two_cpu_ranks(cpu: Device) -> None:
    here = Place(rank=0, size=2, local_rank=0)
    config = fsdp.configure(flags(), cpu, here)
    assert (config.model, config.states, config.dtype, config.batch) == ("mistral-nano", "fp32", "fp32", 2)
    assert config.learning_rate == pytest.approx(3e-3)
    assert mesh.configure(flags(), cpu, here).tensors == (1, 2)
    assert mesh.impossible(mesh.configure(flags(), cpu, here), 2).endswith("not applicable to 2 ranks, it takes at "
                                                                          "least 4")  # fmt: skip


def test_states_shared_by_a_nodes_ranks_alone_take_as_many_times_the_memory_as_there_are_nodes(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Place(rank=0, size=8, local_rank=0)
    config = fsdp.configure(flags(nodes_as=4), cpu, here)
    one = fsdp.configure(flags(), cpu, here)
    states = 16 * find_model("mistral-nano").parameters
    assert (config.nodes, one.nodes, one.hybrid_bytes) == (4, 1, 0)
    assert config.hybrid_bytes - config.predicted_bytes == states // 2 - states // 8
    four = Layout(ranks=((0, 1), (2, 3), (4, 5), (6, 7)))
    assert fsdp.without_hybrid(config, cpu, four) == ""
    uneven = Layout(ranks=((0, 1, 2), (3,)))
    assert fsdp.without_hybrid(config, cpu, uneven) == "nodes have 3, 1 ranks: it takes 2 or more, as many each"
    small = gpu(monkeypatch, "NVIDIA L4", 0.01)
    assert fsdp.without_hybrid(config, small, four).startswith("mistral-nano would take 0.1 GiB a rank, 4 times")


@pytest.mark.parametrize(
    ("module", "given", "words"),
    [
        (fsdp, {"nodes_as": 3}, "nodes-as=3 does not divide 4 ranks: write 1, 2, 4"),
        (fsdp, {"states": "8-bit"}, "states='8-bit' need a GPU: write --states fp32, or leave it out"),
        (mesh, {"tensor": (3,)}, "tensor=3 does not divide 4 ranks: write some of 1,2,4"),
        (mesh, {"model": "gpt-2"}, "model='gpt-2' does not exist: write one of mistral-7b"),
        (tensor_parallel, {"sequence": 30}, "sequence=30 does not split over 4 ranks: write a multiple of it"),
        (split_gemm, {"shape": (24, 32, 32)}, "m=24 does not split into 16 parts: write a multiple of 16"),
        (split_gemm, {"shape": (16, 32, 32768), "dtype": "bf16"}, "k=32768 has sums that bf16 does not hold exactly"),
        (scaling, {"steps": 4}, "steps=4 cannot show a falling loss: write at least 8"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(module, given: dict[str, Any], words: str, cpu: Device) -> None:
    with pytest.raises(ValueError, match="=") as refused:
        module.configure(flags(**given), cpu, Place(rank=0, size=4, local_rank=0))
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (
            ddp,
            ["--buckets", "25,none"],
            "argument --buckets: 'none' is not a whole number of at least 1: write",
        ),
        (mesh, ["--tensor", "0"], "argument --tensor: '0' is not a whole number of at least 1: write them with commas"),
        (
            split_gemm,
            ["--shape", "4x4"],
            "argument --shape: '4x4' is not a shape: write M, N and K as in 512x1024x4096",
        ),
        (
            fsdp,
            ["--learning-rate", "2"],
            "argument --learning-rate: '2' is not a learning rate between 0 and 1: write",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(module, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        module.main(["--device", "cpu", *arguments])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("module", [ddp, fsdp, tensor_parallel, mesh, split_gemm, scaling])
def test_help_gives_the_physics_and_two_commands_that_the_parser_takes(module, capsys) -> None:
    lines = [line.strip() for line in str(module.__doc__).splitlines() if line.startswith("    ")]
    assert all(word in module.__doc__ for word in ("Method:", "Output:"))
    assert lines[0] == f"python -m {module.__name__}"
    given = lines[1].split(f"-m {module.__name__}")[1].split()
    with pytest.raises(SystemExit, match="0"):
        module.main([*given, "--help"])
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ranks", "nodes", "sizes"),
    [(1, 1, (1,)), (2, 1, (1, 2)), (4, 1, (1, 2, 3, 4)), (8, 1, (1, 2, 4, 8)), (8, 2, (1, 2, 3, 4, 8)),
     (16, 2, (1, 2, 4, 8, 16)), (12, 3, (1, 2, 3, 4, 8, 12))],
)  # fmt: skip
def test_scaling_goes_rank_by_rank_and_then_node_by_node(ranks: int, nodes: int, sizes: tuple[int, ...]) -> None:
    assert scaling.sizes_of(ranks, nodes) == sizes


LINK = Link(ranks=4, sizes_bytes=(1000, 100_000), times_s=(1e-4, 1e-3))


def test_a_link_is_latency_below_bandwidth_above_and_logarithms_between() -> None:
    assert LINK.all_reduce_s(10) == 1e-4
    assert LINK.all_reduce_s(1_000_000) == pytest.approx(1e-2)
    assert LINK.all_reduce_s(10_000) == pytest.approx(1e-3 * 10**-0.5)


def test_traffic_takes_its_calls_one_after_the_other() -> None:
    nano = find_model("mistral-nano")
    assert LINK.seconds(data_parallel(nano, 4)) == pytest.approx(1e-8 * 4 * nano.parameters)
    gathered = LINK.seconds(fully_sharded(nano, 4, size=4, root_gathers=2))
    assert gathered == pytest.approx(1e-8 * (2 * 4 + 4) * nano.parameters / 2)
    assert LINK.seconds(data_parallel(nano, 2)) is None, "another number of ranks was not measured"
    assert LINK.seconds(data_parallel(nano, 1)) == 0


def test_only_this_devices_record_of_as_many_ranks_is_read(tmp_path, cpu: Device) -> None:
    assert link_of(tmp_path, 4, cpu) is None
    row = Measurement(name="all-reduce 1 KiB", value=1.0, unit="B/s", estimator="made up", no_roof_because="made up",
                      config={"collective": "all-reduce", "bytes": 1024, "time_s": 2e-4})  # fmt: skip
    machine = Machine(hostname="here", device=cpu.name, devices=4)
    Record(workload="collectives", machine=machine, measurements=(row,), ranks=4).write(tmp_path)
    assert link_of(tmp_path, 4, cpu) == Link(ranks=4, sizes_bytes=(1024,), times_s=(2e-4,))
    assert link_of(tmp_path, 2, cpu) is None
    halves = replace(row, name="all-reduce 1 KiB, bf16", config={**row.config, "dtype": "bf16", "time_s": 1e-4})
    wholes = replace(row, config={**row.config, "dtype": "fp32"})
    Record(workload="collectives", machine=machine, measurements=(wholes, halves), ranks=4).write(tmp_path)
    assert link_of(tmp_path, 4, cpu) == Link(ranks=4, sizes_bytes=(1024,), times_s=(2e-4,)), "fp32's, of two data types"
    Record(workload="collectives", machine=Machine(hostname="here", device="another", devices=4), measurements=(row,),
           ranks=4).write(tmp_path)  # fmt: skip
    assert link_of(tmp_path, 4, cpu) is None
