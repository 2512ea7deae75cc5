"""data-loading: every form gives the same tokens, and waiting is told apart from training."""

# mypy follows no imports into torch, so that nn.Module is Any to it.
# mypy: allow-subclassing-any

from pathlib import Path

import pytest
import torch
from torch import Tensor

from labs.results import read
from workloads import data_loading
from workloads.chain import draw
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.training.feeding import WAITING, Bench, Taken, expected_s
from workloads.training.samples import Samples, in_memory, merge, one_file, small_files, text
from workloads.training.trainee import optimiser_of

SMALL = ["--device", "cpu", "--batch", "1", "--sequence", "8", "--steps", "2"]
FORMS = {"memory": lambda tokens, folder: in_memory(tokens), "one file": one_file, "small files": small_files,
         "text": text}  # fmt: skip


class Mean(torch.nn.Module):
    """The smallest thing that can be trained on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return (self.weight * tokens_BT).mean()


def bench(device: Device, tokens_NT: Tensor) -> Bench:
    model = Mean()
    return Bench(batch=2, device=device, model=model, optimiser=optimiser_of(model, 1e-3), tokens_NT=tokens_NT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_form_gives_the_same_tokens(form: str, workers: int, tmp_path: Path, cpu: Device) -> None:
    tokens_NT = draw(0, 0, 6, 9)
    taken = bench(cpu, tokens_NT).run(FORMS[form](tokens_NT, tmp_path), workers)
    assert (taken.form, taken.workers, len(taken.parts)) == (form, workers, 2)
    assert set(taken.parts[0]) == {WAITING, "forward", "backward", "optimiser"}


def test_a_wrong_batch_ends_the_run(cpu: Device) -> None:
    tokens_NT = draw(0, 0, 4, 9)
    shifted = Samples("shifted", 4, lambda index: tokens_NT[index].roll(1))
    with pytest.raises(CheckFailed, match=r"^batch 0 from shifted by 0 workers is not what was written$"):
        bench(cpu, tokens_NT).run(shifted, 0)


def test_byte_pairs_are_merged_by_rank_everywhere() -> None:
    assert merge(b"aiajbiai") == [256, 257, 264, 256]
    assert merge(b"") == []
    assert merge(b"zz") == [122, 122]


def test_a_step_takes_turns_without_workers_and_runs_side_by_side_with_them() -> None:
    assert expected_s(0.1, 0.06, 0) == pytest.approx(0.16)
    assert expected_s(0.1, 0.06, 1) == pytest.approx(0.1)
    assert expected_s(0.1, 0.6, 2) == pytest.approx(0.3)


def test_the_rate_is_all_tokens_over_all_time_and_the_starved_share_is_named(l4: Device) -> None:
    config = data_loading.Config(model="mistral-nano", dtype="bf16", path="", batch=4, sequence=4096, steps=2,
                                 workers=(0,), seed=0, threads=1)  # fmt: skip
    parts = ({WAITING: 0.0, "forward": 1.0}, {WAITING: 2.0, "forward": 1.0})  # a worker delivers in bursts
    fed = Taken(form="memory", workers=0, parts=({WAITING: 0.0, "forward": 1.0},), load_s=0.0)
    row = data_loading.summarise(config, l4, Taken(form="text", workers=1, parts=parts, load_s=1.5), fed, 3.6)
    assert row.value == pytest.approx(4 * 4096 / 2.0)
    assert row.config["starved_share"] == pytest.approx(0.5)
    assert row.expected is not None
    assert row.expected.value == pytest.approx(4 * 4096 / 1.5)
    assert row.roof is not None
    assert row.roof.value == pytest.approx(121e12 / 47_192_064)
    assert row.share_of(row.others[0]) == pytest.approx(0.5)
    assert row.usd_per_unit == pytest.approx(3.6 / 3600 / row.value * 1e6)


def test_a_run_tries_every_form_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_loading.main([*SMALL, "--workers", "0,1", "--path", str(tmp_path / "disk"), "--out", str(tmp_path)])
    record = read(tmp_path / "data-loading.node0.json")
    assert [row.name for row in record.measurements] == [
        "memory", "one file, 0 workers", "one file, 1 worker", "small files, 0 workers", "small files, 1 worker",
        "text, 0 workers", "text, 1 worker",
    ]  # fmt: skip
    assert list((tmp_path / "disk").iterdir()) == []
    assert "most starved: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "1"], "steps=1 shows no pace: write at least 2"),
        (["--workers", "0,x"], "argument --workers: 'x' is not a whole number of at least 1"),
        (["--path", "/dev/null/x"], "path='/dev/null/x' cannot be written"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        data_loading.main(["--device", "cpu", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
