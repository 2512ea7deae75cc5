"""The workloads beside their peers on this machine's CPU, where a ratio has a meaning without a GPU.

Memory's rate and a training step have one: both sides do the same work on the same cores. The rest of what bench-gpu
compares has none here: no launch to spare, no power cap, no copy to a device, and a warm file that is mapped.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Result
from labs.results import Record, read
from operate.laptop import ROOT
from operate.problem import Problem

ROUNDS = 3
"""Of all subjects, one after the other, so that what disturbs the machine disturbs all alike."""
SHAPE = ("--model", "mistral-nano", "--sequence", "128", "--accumulate", "1")
"""What both trainers train, in fp32, one sequence a step."""
LIMIT_S = 900.0


def run() -> list[Result]:
    """Every ratio from interleaved runs.

    Raises:
        Problem: one of the programs failed.
    """
    ours: dict[str, list[float]] = {"triad": [], "read": [], "training": []}
    theirs: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(ROUNDS):
        memory = _ours("bandwidth", "--dtypes", "fp32", "--largest-mib", "256", "--iterations", "20")
        for name, peer in (("triad", "triad"), ("read", "dot")):
            ours[name].append(1e9 * _fastest(memory, name))
            theirs[name].append(1e9 / _figure("benchmarks.peers.stream", peer, "--mib", "256", "--times", "20"))
        training = _ours("train_step", "--dtype", "fp32", "--batches", "1", "--steps", "8", *SHAPE)
        rate = max(row.value for row in training.measurements if row.unit == "token/s")
        ours["training"].append(1e3 / rate)
        theirs["training"].append(1e3 / _figure("benchmarks.peers.hf_trainer", "--plain", *SHAPE))
    compared = (("triad", "1 GB of a triad, arrays of 256 MiB", "a loop in C with OpenMP", 1.0),
                ("read", "1 GB read, arrays of 256 MiB", "a dot product in C with OpenMP", 1.0),
                ("training", "1,000 tokens of training, mistral-nano in fp32", "HF Trainer", 1.1))  # fmt: skip
    return [
        Result(name=what, samples_s=tuple(ours[name]), peer=peer, peer_samples_s=tuple(theirs[name]), faster=True,
               goal=goal)
        for name, what, peer, goal in compared
    ]  # fmt: skip


def _fastest(record: Record, kernel: str) -> float:
    """Seconds a byte of the best sample past the cache: what the peer tells too."""
    found = [row for row in record.measurements if row.config["kernel"] == kernel and row.config["past_cache"]]
    return min(min(row.samples_s) / float(row.config["bytes"]) for row in found)


def _ours(module: str, *words: str) -> Record:
    """A workload's record."""
    with tempfile.TemporaryDirectory() as folder:
        _output([f"workloads.{module}", "--device", "cpu", *words, "--out", folder])
        (path,) = Path(folder).glob("*.json")
        return read(path)


def _figure(*words: str) -> float:
    """What a peer's driver prints after "figure:"."""
    lines = [line for line in _output(words).splitlines() if line.startswith("figure: ")]
    return float(lines[-1].removeprefix("figure: "))


def _output(words: Sequence[str]) -> str:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=LIMIT_S)  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise Problem(f"python -m {' '.join(words)} ended with {done.returncode}: {last}", "run it by itself")
    return done.stdout
