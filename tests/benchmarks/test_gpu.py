"""The GPU benchmarks, on a machine without a GPU: the plan, the flags, what becomes of a stage, and the goals."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmarks import gpu
from benchmarks.goals import GOALS, outcomes
from benchmarks.gpu import STAGES, Done, Stage, figure_of, main, plan, run
from labs.results import Machine, Measurement, Record, Roof
from workloads.command import Parser

PEAK = Roof(value=989.4e12, source="dense bf16 peak, NVIDIA H200 datasheet")
OURS = [stage for stage in STAGES if not stage.peer]


class Parsed(Exception):
    """The flags were read."""


@pytest.mark.parametrize("stage", OURS, ids=lambda stage: stage.name)
def test_every_stage_of_ours_is_a_workload_that_takes_its_flags(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Parser.parse_args

    def stop(self: Parser, given: Any = None) -> NoReturn:
        read(self, given)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    minus_m, module, *arguments = stage.command
    assert minus_m == "-m"
    with pytest.raises(Parsed):
        importlib.import_module(module).main([*arguments, "--out", "records"])


def test_every_goal_is_of_a_stage_and_the_worthiest_stages_come_first() -> None:
    order = [stage.name for stage in STAGES]
    assert {goal.stage for goal in GOALS} <= set(order)
    assert [name for name in order if not name.startswith("stream")][:2] == ["bandwidth", "gemm"]
    assert sum(stage.budget_s for stage in STAGES) <= gpu.TOTAL_S


def test_the_dry_plan_tells_budgets_and_missing_peers_and_needs_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "cuda_device", lambda: pytest.fail("asked for a GPU"))
    assert main(["--dry", "--peers", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(stage.name in told for stage in STAGES)
    assert f"[missing: {tmp_path / 'mamf-finder.py'}]" in told
    assert "15 stages, 1410 s by their budgets; none is begun after 1500 s" in told
    (tmp_path / "mamf-finder.py").touch()
    assert "mamf-finder.py]" not in "\n".join(plan(STAGES, tmp_path))


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "cuda_device", lambda: "")
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "bench-gpu needs a CUDA GPU and a torch that sees it; --dry prints the plan without one\n"


def test_an_unknown_stage_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gem"])
    assert ended.value.code == 2
    assert "'gem' is not a stage: write some of bandwidth, stream-triad" in capsys.readouterr().err


def stage(name: str, code: str, **given: Any) -> Stage:
    return Stage(**{"name": name, "command": ("-c", code), "budget_s": 40, "worth": "a test", **given})


def gemm(value: float) -> Record:
    row = Measurement(name="bf16 best", value=value, unit="FLOP/s", estimator="from the median of 9", roof=PEAK,
                      config={"dtype": "bf16", "regime": "burst"})  # fmt: skip
    return Record(
        workload="gemm", machine=Machine(hostname="one", device="NVIDIA H200", devices=1), measurements=(row,)
    )


def writing(record: Record) -> str:
    """A program that writes this record below its --out."""
    text = json.dumps(record.as_json())
    return (
        "import sys, pathlib; out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir(exist_ok=True); "
        f"(out / 'gemm.node0.json').write_text({text!r})"
    )


def test_each_stage_leaves_its_record_and_the_summary_before_the_next_begins(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    stages = [
        stage("gemm", writing(gemm(845e12))),
        stage("mamf-finder", "print('MAMF: 850.1 TFLOPS @ 1536x2816x40960')", peer=True),
        stage("weights", "import sys; print('no space left: free 30 GB'); sys.exit(2)"),
    ]

    def say(line: str) -> None:
        if (tmp_path / "summary.json").exists():
            seen.append(json.loads((tmp_path / "summary.json").read_text()))

    done = run(stages, tmp_path, tmp_path, 300, say)
    assert [entry.said for entry in done] == ["done", "done", "exit code 2: no space left: free 30 GB"]
    assert [len(summary["stages"]) for summary in seen] == [1, 1, 2, 2], "each is flushed as it ends"
    goals = {goal["goal"]: goal for goal in json.loads((tmp_path / "summary.json").read_text())["goals"]}
    assert goals["bf16 GEMM, burst"]["said"] == "met"
    assert goals["bf16 GEMM beside mamf-finder"]["reached"] == pytest.approx(845 / 850.1)
    assert goals["weights, cold"]["said"] == "no record"
    assert (tmp_path / "gemm.json").exists()


def test_a_stage_over_its_limit_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys, time, pathlib; "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True); time.sleep(600)"
    )
    (done,) = run([stage("gemm", code, budget_s=6)], tmp_path, tmp_path, 300, lambda _: None)
    assert done.said == "ended: over 9 s"
    (pid,) = (tmp_path / "gemm.log").read_text().split()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", "what the stage started goes with it"


def test_a_stage_that_is_ended_leaves_the_rows_that_it_had(tmp_path: Path) -> None:
    text = json.dumps(gemm(845e12).as_json())
    code = (
        "import os, pathlib, time; folder = pathlib.Path(os.environ['ROOFLAB_DRAFTS']); folder.mkdir(parents=True); "
        f"(folder / 'gemm.node0.json').write_text({text!r}); "
    )
    (done,) = run([stage("gemm", code + "raise SystemExit('no memory')")], tmp_path, tmp_path, 300, lambda _: None)
    assert done.said == "exit code 1: no memory; 1 row of it kept"
    (done,) = run([stage("gemm", code + "time.sleep(600)", budget_s=6)], tmp_path, tmp_path, 300, lambda _: None)
    assert done.said == "ended: over 9 s; 1 row of it kept"
    goals = {goal["goal"]: goal for goal in json.loads((tmp_path / "summary.json").read_text())["goals"]}
    assert goals["bf16 GEMM, burst"]["said"] == "met"
    assert not (tmp_path / "records").exists(), "no later stage takes it for a whole one"


def test_a_missing_peer_and_spent_time_are_said(tmp_path: Path) -> None:
    stages = [stage("gpt-fast", "", peer=True, needs="gpt-fast/model.py"), stage("gemm", "print(1)")]
    done = run(stages, tmp_path, tmp_path / "out", 0.0, lambda _: None)
    assert [entry.said for entry in done] == [
        f"peer missing: {tmp_path / 'gpt-fast/model.py'}",
        "not begun: 0 s were spent",
    ]


def test_a_peer_without_a_figure_says_so(tmp_path: Path) -> None:
    (done,) = run([stage("hf-trainer", "print('all well')", peer=True)], tmp_path, tmp_path, 300, lambda _: None)
    assert done.said == "done, but its figure was not found in its log"
    assert figure_of("hf-trainer", ["figure: 1.25e4"]) == 12500
    assert figure_of("mamf-finder", ["MAMF best: 790.2 TFLOPS", "MAMF: 850.1 TFLOPS"]) == 850.1e12


def test_a_goal_is_met_missed_or_not_told() -> None:
    def told(record: Record) -> dict[str, str]:
        return {goal.name: said for goal, _, said in outcomes({"gemm": record}, {})}

    assert told(gemm(845e12))["bf16 GEMM, burst"] == "met"
    assert told(gemm(700e12))["bf16 GEMM, burst"] == "missed"
    assert told(gemm(845e12))["fp8 GEMM, burst"] == "not told"
    assert told(gemm(1200e12))["bf16 GEMM, burst"] == "not told", "a measuring error meets no goal"
    assert told(gemm(845e12))["checkpoint, less blocked"] == "no record"


def test_decode_is_held_to_the_read_kernel_and_training_to_the_other_convention() -> None:
    base = gemm(1.0)
    decode = Measurement(
        name="mistral-7b compiled", value=3.7e-3, unit="s", estimator="median", no_roof_because="made up",
        others=(Roof(value=3.264e-3, source="bytes ÷ measured"),), config={"kind": "rung", "weights": "bf16"},
    )  # fmt: skip
    faster = replace(decode, value=2.0e-3, config={"kind": "rung", "weights": "int8"})
    training = Measurement(
        name="batch 1 × 4096", value=12000.0, unit="token/s", estimator="median", no_roof_because="made up",
        others=(Roof(value=19816.0, source="MFU by 6P + 12·L·D·S (PaLM)"),),
    )  # fmt: skip
    records = {"optimise-7b": replace(base, measurements=(decode, faster)),
               "train-7b": replace(base, measurements=(training,))}  # fmt: skip
    found = {goal.name: figure for goal, figure, _ in outcomes(records, {"gpt-fast": 3.9e-3, "hf-trainer": 10000.0})}
    assert found["7B bf16 decode, batch 1"] == pytest.approx(3.264 / 3.7)
    assert found["7B bf16 decode beside gpt-fast"] == pytest.approx(3.9 / 3.7)
    assert found["7B training, 6P+12LDS"] == pytest.approx(12000 / 19816)
    assert found["7B training beside HF Trainer"] == pytest.approx(1.2)


def test_the_driver_of_hf_trainer_names_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.peers import hf_trainer

    monkeypatch.setattr(hf_trainer, "find_spec", lambda name: None if name == "accelerate" else sys)
    assert hf_trainer.main([]) == 3
    assert capsys.readouterr().err == "hf-trainer: accelerate is not installed: pip install accelerate\n"


def test_the_peers_triad_moves_three_arrays_and_its_dot_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.peers import stream

    monkeypatch.setattr(stream, "_compiled", lambda _kernel, count, _times: count / 1e9)
    assert [stream.main([kernel]) for kernel in ("triad", "dot")] == [0, 0]
    assert [figure_of("stream", [line]) for line in capsys.readouterr().out.splitlines()] == [3e9, 2e9]
    monkeypatch.undo()
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert stream.main(["dot"]) == 3
    assert capsys.readouterr().err == "stream: no C compiler with OpenMP: apt-get install gcc\n"


def test_what_is_told_at_the_end_names_what_did_not_run(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    text = "\n".join(gpu.told([Done(stage="gpt-fast", took_s=0, said="peer missing: /x")], tmp_path))
    assert "| bf16 GEMM, burst | ≥ 0.84 of the datasheet's peak | – | **no record** |" in text
    assert "gpt-fast: peer missing: /x" in text
