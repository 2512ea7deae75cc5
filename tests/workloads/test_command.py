"""How a workload ends: exit codes, and one line for whatever went wrong."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.workloads.launching import ENVIRONMENT, ROOT
from workloads import collectives, command, ddp, gemm, generate
from workloads.command import CheckFailed, positive, start

Main = Callable[[Sequence[str]], None]

STUCK = """
import ctypes
from workloads.command import start

def main(arguments):
    libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_init(lock, None)
    libc.pthread_mutex_lock(lock)
    print("up", flush=True)
    libc.pthread_mutex_lock(lock)

start("gemm", main)
"""
"""The main thread sits in a call that never returns, as in a collective whose peer is gone."""


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (None, 0, ""),
        (CheckFailed("bf16 4x4x4: |error| 1"), 1, "gemm: check failed: bf16 4x4x4: |error| 1\n"),
        (KeyboardInterrupt(), 130, "gemm: interrupted, no record written\n"),
        (torch.OutOfMemoryError("tried 9 GiB\nof 8"), 1,
         "gemm: out of device memory: choose smaller sizes (tried 9 GiB)\n"),
    ],
)  # fmt: skip
def test_an_ending_has_its_exit_code_and_its_line(
    raised: BaseException | None, code: int, line: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def main(_arguments: Sequence[str]) -> None:
        if raised is not None:
            raise raised

    monkeypatch.setattr(command, "_end_on_sigterm", lambda _name: None)  # pytest keeps its own handlers
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ending:
        start("gemm", main)
    assert (ending.value.code, capsys.readouterr().err) == (code, line)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_end_on_sigterm", lambda _name: None)
    with pytest.raises(ZeroDivisionError):
        start("gemm", lambda _arguments: print(1 // 0))


def test_sigterm_ends_at_once_even_where_python_does_not_get_to_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=ROOT, env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (143, "gemm: ended by SIGTERM, no record written\n")


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (gemm.main, ["--iterations", "0"], "argument --iterations: '0' is not a whole number of at least 1"),
        (gemm.main, ["--shapes", "4x4"], "argument --shapes: '4x4' is not of the form MxNxK,MxNxK"),
        (gemm.main, ["--dtypes", "int3"], "dtype='int3' is not in "),
        (gemm.main, ["--nonsense"], "unrecognized arguments: --nonsense"),
        (gemm.main, ["--iter", "3"], "unrecognized arguments: --iter 3"),
        (generate.main, ["--model", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b"),
        (generate.main, ["--dtype", "fp8"], "dtype='fp8' is not one that models run in: write fp32, fp16, bf16"),
        (generate.main, ["--new-tokens", "1"], "new_tokens=1 leaves no decode to measure: write at least 2"),
        (ddp.main, ["--steps", "3"], "steps=3 cannot show a falling loss: write at least 8"),
        (ddp.main, ["--learning-rate", "fast"], "argument --learning-rate: 'fast' is not a learning rate between"),
        (ddp.main, ["--dtype", "fp16"], "dtype='fp16' is not one that training runs in: write fp32, bf16"),
        (collectives.main, ["--largest", "4MB"], "argument --largest: '4MB' is not a size: write for example 64KiB"),
        (collectives.main, ["--factor", "1"], "argument --factor: '1' does not grow: write at least 2"),
        (collectives.main, ["--smallest", "1MiB", "--largest", "1KiB"], "smallest=1 MiB is above largest=1 KiB"),
        (collectives.main, ["--collectives", "scan"], "collectives='scan' is not known: write some of all-reduce,"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--device", "cpu", *arguments])
    stderr = capsys.readouterr().err
    assert ending.value.code == 2
    assert stderr.count("\n") == 1
    assert message in stderr
    assert stderr.endswith("--help` lists the flags\n")


@pytest.mark.parametrize("main", [gemm.main, generate.main, ddp.main, collectives.main])
def test_a_broken_launcher_variable_is_one_line_too(
    main: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "cheap")
    with pytest.raises(SystemExit, match="2"):
        main(["--device", "cpu"])
    assert "ROOFLAB_USD_PER_HOUR='cheap' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("workload", [gemm, generate, ddp, collectives])
def test_help_gives_the_physics_and_two_commands(workload: object, capsys: pytest.CaptureFixture[str]) -> None:
    main: Main = workload.main  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("Method:", "Output:"))
    commands = [line for line in shown.splitlines() if line.startswith("    ") and "-m workloads." in line]
    assert len(commands) == 2


def test_every_command_of_a_docstring_is_one_that_its_parser_takes() -> None:
    for workload in (gemm, generate, ddp, collectives):
        lines = [line.strip() for line in str(workload.__doc__).splitlines() if line.startswith("    ")]
        name = workload.__name__
        assert lines[0] == f"python -m {name}"
        assert f"-m {name} " in lines[1]
        flags = lines[1].split(f"-m {name} ")[1].split()
        with pytest.raises(SystemExit) as ending:
            workload.main([*flags, "--help"])
        assert ending.value.code == 0


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "²"])
def test_positive_takes_no_other_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number of at least 1"):
        positive(text)


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        gemm.main(["--device", "cpu", "--dtypes", "fp9", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
