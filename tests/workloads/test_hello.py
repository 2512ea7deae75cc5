"""hello: who a node says that it is, and what that does not cost."""

import subprocess
import sys
from pathlib import Path

import pytest

from labs.catalog import EXTRA, LABS
from labs.results import read
from operate.choice import choose_workloads
from tests.workloads.launching import ROOT
from workloads import hello
from workloads.diagnosis.command import Answer

LAUNCHED = {"ROOFLAB_RUN": "20261121-093000-lab3", "ROOFLAB_LAB": "3", "ROOFLAB_NODE": "node12", "ROOFLAB_NODES": "64",
            "ROOFLAB_INSTANCE_TYPE": "g6.12xlarge", "ROOFLAB_USD_PER_HOUR": "294.4"}  # fmt: skip


def test_a_node_tells_its_host_its_rank_and_its_devices() -> None:
    record = hello.greet("ip-10-0-0-12", ["NVIDIA L4"] * 4, LAUNCHED, began=0.0)
    assert (record.filename, record.node, record.nodes, record.config) == ("hello.node12.json", "node12", 64,
                                                                           {"rank": 12})  # fmt: skip
    assert record.notes == ("rank 12 of 64 on ip-10-0-0-12: 4 × NVIDIA L4",)
    assert (record.lab, record.run, record.usd_per_hour) == (3, "20261121-093000-lab3", 294.4)
    assert record.started == "1970-01-01T00:00:00.000+00:00"


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Answer(0, "NVIDIA L4\nNVIDIA L4\n"), ("NVIDIA L4", "NVIDIA L4")),
        (Answer(127, "nvidia-smi cannot be run: No such file or directory"), ("a CPU",)),
        (Answer(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."), ("a CPU",)),
    ],
)
def test_devices_are_the_drivers_or_else_the_cpu(
    answer: Answer, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hello, "ask", lambda *_words: answer)
    monkeypatch.setattr(hello, "cpu_name", lambda: "a CPU")
    assert hello.devices() == names


def test_it_runs_alone_and_loads_no_torch(tmp_path: Path) -> None:
    code = (f"import sys; from workloads import hello; hello.main(['--out', {str(tmp_path)!r}]); "
            "sys.exit('torch' in sys.modules)")  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    record = read(tmp_path / "hello.node0.json")
    assert ran.stdout == f"hello from {record.notes[0]}\n"
    assert record.notes[0].startswith("rank 0 of 1 on ")


def test_a_wrong_environment_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOFLAB_NODES", "many")
    with pytest.raises(SystemExit) as ending:
        hello.main(["--out", str(tmp_path)])
    assert ending.value.code == 2
    assert capsys.readouterr().err.startswith("hello: ROOFLAB_NODES ends in 'many', which is no number: set it as")
    assert list(tmp_path.iterdir()) == []


def test_every_lab_runs_it_where_it_is_named_and_no_lab_else() -> None:
    for lab in LABS.values():
        assert choose_workloads(lab, "hello") == EXTRA
        assert choose_workloads(lab, "") == lab.workloads
    assert [item.name for item in choose_workloads(LABS[3], "hello,ddp")] == ["ddp", "hello"]
    with pytest.raises(ValueError, match=r"only='hallo' is no workload of Lab 3: write some of .*, hello$"):
        choose_workloads(LABS[3], "hallo")
