"""The record of a run: what the launcher said, what the machine says."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from labs.results import Machine, read
from workloads.command import CheckFailed
from workloads.device import Device, find_device, time_each
from workloads.gemm import Config
from workloads.group import Group, Place, joined, place
from workloads.processor import cpu_name
from workloads.record import surroundings, write
from workloads.sensors import Reading, Sensors, describe, parse

CONFIG = Config(
    shapes=((1, 2, 3),), dtypes=("fp32",), iterations=1, warmup=1, search_s=0, sustain_s=0, seed=0, threads=1
)
MACHINE = Machine(hostname="host", device="CPU", devices=1)


def test_alone_a_workload_is_node0_of_one() -> None:
    within = surroundings({})
    assert (within.run, within.lab, within.node, within.nodes) == ("", None, "node0", 1)
    assert (within.usd_per_hour, within.node_price, within.instance_type) == (None, None, None)


def test_without_a_commit_from_the_launcher_git_is_asked() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                          check=True).stdout.strip()  # fmt: skip
    assert surroundings({}).commit == head
    assert surroundings({"ROOFLAB_COMMIT": "abc"}).commit == "abc"


def test_where_there_is_no_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert surroundings({}).commit is None


def test_the_launchers_words_reach_the_record(tmp_path: Path) -> None:
    within = surroundings({
        "ROOFLAB_RUN": "20260101-000000-lab3", "ROOFLAB_LAB": "3", "ROOFLAB_NODE": "node1", "ROOFLAB_NODES": "2",
        "ROOFLAB_INSTANCE_TYPE": "c7i.large", "ROOFLAB_USD_PER_HOUR": "9.2", "ROOFLAB_COMMIT": "abc",
    })  # fmt: skip
    record = read(write(tmp_path, "gemm", (), within=within, machine=MACHINE, config=CONFIG, notes=("hot",)))
    assert (record.run, record.lab, record.node, record.nodes) == ("20260101-000000-lab3", 3, "node1", 2)
    assert (record.usd_per_hour, within.node_price, record.git_commit) == (9.2, 4.6, "abc")
    assert record.started.endswith("+00:00")
    assert record.config["iterations"] == 1
    assert record.notes == ("hot",)


def test_a_machine_without_its_types_gpus_prices_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    within = surroundings({"ROOFLAB_INSTANCE_TYPE": "g6.12xlarge", "ROOFLAB_USD_PER_HOUR": "9.2"})
    record = read(write(tmp_path, "gemm", (), within=within, machine=MACHINE, config=CONFIG, notes=("hot",)))
    assert (within.price, within.node_price, record.usd_per_hour) == (None, None, 9.2)
    assert record.notes == ("no price per unit of work: this machine has none of the GPUs of a g6.12xlarge", "hot")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert surroundings({"ROOFLAB_INSTANCE_TYPE": "g6.12xlarge", "ROOFLAB_USD_PER_HOUR": "9.2"}).price == 9.2


def test_a_cluster_writes_one_record_without_a_node(tmp_path: Path) -> None:
    path = write(tmp_path, "ddp", (), within=surroundings({"ROOFLAB_NODE": "node1"}), machine=MACHINE, config=CONFIG,
                 cluster=True, ranks=8)  # fmt: skip
    assert path.name == "ddp.json"
    assert read(path).ranks == 8


@pytest.mark.parametrize("name", ["ROOFLAB_LAB", "ROOFLAB_NODES", "ROOFLAB_USD_PER_HOUR"])
def test_a_variable_that_is_not_a_number_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}='many' is not a number: set it as the launcher does"):
        surroundings({name: "many"})


LINES = ["570.86.15, 2040, 71.50, 61\n", "570.86.15, 1980, 72.50, [N/A]\n", "570.86.15, 2010, 70"]


def test_sensors_report_medians_and_none_for_what_a_device_does_not_tell() -> None:
    assert parse(LINES) == Reading(driver="570.86.15", clock_mhz=2010, power_w=72, temperature_c=61)
    assert parse(["570, [N/A], [Not Supported], 55"]) == Reading(driver="570", temperature_c=55)
    assert parse([]) == Reading()


def test_sensors_are_read_while_a_gpu_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for nvidia-smi that prints two lines and goes on until it is ended."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho \"$@\" > \"$0.args\"\necho '570.1, 1000, 50, 40'\n"
                    "echo '570.1, 2000, 70, 60'\necho done > \"$0.lines\"\nexec sleep 60\n")  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    properties = type("Properties", (), {"uuid": "a-b-c"})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    with Sensors(Device(torch=torch.device("cuda", 0), name="NVIDIA L4", accelerator=None)) as read_here:
        while not (tmp_path / "nvidia-smi.lines").exists():
            pass
    assert read_here.reading == Reading(driver="570.1", clock_mhz=1500, power_w=60, temperature_c=50)
    assert (tmp_path / "nvidia-smi.args").read_text().split()[0] == "--id=GPU-a-b-c"


def test_a_cpu_tells_its_name_and_no_sensor(cpu: Device) -> None:
    with Sensors(cpu) as nothing:
        pass
    machine = describe(cpu, devices=4, reading=nothing.reading, instance_type="c7i.large", libraries=("numpy",))
    assert (machine.device, machine.devices, machine.instance_type) == (cpu_name(), 4, "c7i.large")
    assert (machine.driver, machine.clock_mhz, machine.power_w, machine.temperature_c) == (None, None, None, None)
    assert machine.versions.keys() == {"python", "torch", "numpy"}
    assert cpu.name


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^device='cuda' is not there: write --device cpu"):
        find_device("cuda")
    assert find_device("auto").torch.type == "cpu"


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match=r"^local rank 4 has no GPU: start at most 4 on this node$"):
        find_device("auto", 4)


def test_every_iteration_is_timed_between_what_surrounds_it(cpu: Device) -> None:
    calls: list[str] = []
    samples_s = time_each(cpu, lambda: calls.append("step"), 2, before=lambda: calls.append("before"),
                          after=lambda: calls.append("after"))  # fmt: skip
    assert calls == ["before", "step", "after"] * 2
    assert len(samples_s) == 2
    assert all(sample >= 0 for sample in samples_s)


def test_a_group_of_one_gathers_itself_and_fails_by_name(cpu: Device) -> None:
    with joined(place({}), cpu) as group:
        assert group.gather({"rank": 0}) == [{"rank": 0}]
        group.require("sums", "")
        with pytest.raises(CheckFailed, match=r"^sums: rank 0: off by one$"):
            group.require("sums", "off by one")


def test_torchrun_says_which_rank_this_is() -> None:
    assert place({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Place(rank=5, size=8, local_rank=1)
    assert place({}) == Place(rank=0, size=1, local_rank=0)


def test_only_the_first_rank_speaks(cpu: Device, capsys: pytest.CaptureFixture[str]) -> None:
    Group(rank=0, size=2, device=cpu).say("heard")
    Group(rank=1, size=2, device=cpu).say("unheard")
    assert capsys.readouterr().out == "heard\n"
