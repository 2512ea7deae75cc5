"""What a CUDA GPU reaches beside its roofs and its peers: stages in the order of their worth, each with a budget.

GPU time is scarce: what is worth most runs first, a stage that overruns is ended, and each stage's record lies on disk
as it ends, so that whatever happens later loses nothing. Peers run in the same session where they are there:
mamf-finder.py and gpt-fast by the folder they lie in, HF Trainer where transformers and accelerate are installed.

    make bench-gpu
    python -m benchmarks.gpu --dry
    python -m benchmarks.gpu gemm mamf-finder --peers ~/peers
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.goals import outcomes
from labs.results import Record, read

ROOT = Path(__file__).resolve().parents[1]  # a GPU machine need not have what the verbs import
TOTAL_S = 25 * 60.0
"""All stages together: then no further one is begun."""
_GRACE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One process with a budget."""

    name: str
    command: tuple[str, ...]
    """After the Python that runs this: "-m", a module, its flags."""
    budget_s: float
    """It is ended at one and a half times this."""
    worth: str
    """What it tells."""
    peer: bool = False
    """Somebody else's program, or one that drives it; it prints its figure and writes no record."""
    needs: str = ""
    """File below the folder of the peers without which it cannot run."""

    @property
    def limit_s(self) -> float:
        """Seconds until it is ended."""
        return 1.5 * self.budget_s


def _ours(name: str, budget_s: float, worth: str, *words: str) -> Stage:
    return Stage(name=name, budget_s=budget_s, worth=worth, command=("-m", f"workloads.{words[0]}", *words[1:]))


STAGES = (
    _ours("bandwidth", 30, "read and triad, the roof of every decode", "bandwidth", "--dtypes", "fp32,bf16",
          "--iterations", "30"),
    Stage(name="stream-triad", budget_s=15, worth="a plain triad, as BabelStream has it", peer=True,
          command=("-m", "benchmarks.peers.stream", "triad")),
    Stage(name="stream-dot", budget_s=15, worth="a plain dot product, as BabelStream has it", peer=True,
          command=("-m", "benchmarks.peers.stream", "dot")),
    _ours("gemm", 120, "the best shapes in bf16 and fp8, burst and sustained", "gemm", "--dtypes", "bf16,fp8",
          "--search-s", "35", "--sustain-s", "2"),
    Stage(name="mamf-finder", budget_s=120, worth="the peer's best bf16 shape, version 4, automatic search", peer=True,
          command=("{peers}/mamf-finder.py", "--dtype", "bfloat16"), needs="mamf-finder.py"),
    _ours("eager-7b", 40, "7B decode as transformers gives it", "generate", "--model", "mistral-7b", "--prompt", "1024",
          "--new-tokens", "64", "--repeats", "2"),
    _ours("optimise-7b", 180, "7B decode at its best, step by step", "optimise", "--model", "mistral-7b", "--prompt",
          "960", "--tokens", "64", "--budget-s", "150"),
    Stage(name="gpt-fast", budget_s=120, worth="the peer's 7B decode, decode only, the same context", peer=True,
          command=("-m", "benchmarks.peers.gpt_fast", "{peers}/gpt-fast"), needs="gpt-fast/model.py"),
    _ours("train-7b", 120, "7B training with fp32 master weights", "train_step", "--model", "mistral-7b", "--sequence",
          "4096", "--batches", "1", "--accumulate", "8", "--steps", "5", "--budget-s", "90"),
    _ours("train-7b-masters", 110, "what the casts of fp32 weights cost: bf16 ones with masters", "train_step",
          "--model", "mistral-7b", "--sequence", "4096", "--batches", "1", "--accumulate", "8", "--steps", "5",
          "--budget-s", "80", "--masters"),
    _ours("fp8-training", 120, "fp8 beside bf16, with the same loss", "fp8_training", "--sequence", "4096", "--steps",
          "10"),
    Stage(name="hf-trainer", budget_s=120, worth="the peer's best 7B configuration that fits", peer=True,
          command=("-m", "benchmarks.peers.hf_trainer")),
    _ours("optimise-tiny", 180, "the ladder where launches weigh more", "optimise", "--model", "mistral-tiny",
          "--budget-s", "150"),
    _ours("weights", 60, "7B weights to the GPU, cold and warm", "weights", "--model", "mistral-7b", "--repeats", "2"),
    _ours("checkpoint", 60, "12 GB of state saved while training goes on", "checkpoint", "--model", "mistral-tiny",
          "--saves", "2", "--budget-s", "45"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a stage went."""

    stage: str
    took_s: float
    said: str
    """"done", or why there is no figure of it."""
    figure: float | None = None
    """What a peer printed, in the unit that its goal expects."""


def main(arguments: Sequence[str]) -> int:
    """Run the stages that are named, or all, in order. Falling short of a goal is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    known = {stage.name: stage for stage in STAGES}
    parser.add_argument("names", nargs="*", metavar="STAGE", help=f"some of {', '.join(known)}; none: all")
    parser.add_argument("--peers", type=Path, default=ROOT / "peers", help="folder of mamf-finder.py and gpt-fast/")
    parser.add_argument("--out", type=Path, help="folder for records and logs; default: below docs/measurements")
    parser.add_argument("--total-s", type=float, default=TOTAL_S, help="no further stage is begun after this")
    parser.add_argument("--dry", action="store_true", help="print the plan and run nothing")
    flags = parser.parse_args(arguments)
    if unknown := [name for name in flags.names if name not in known]:
        parser.error(f"{unknown[0]!r} is not a stage: write some of {', '.join(known)}")
    chosen = [stage for stage in STAGES if not flags.names or stage.name in flags.names]
    if flags.dry:
        print("\n".join(plan(chosen, flags.peers)))
        return 0
    device = cuda_device()
    if not device:
        print("bench-gpu needs a CUDA GPU and a torch that sees it; --dry prints the plan without one", file=sys.stderr)
        return 2
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    out = flags.out or ROOT / "docs" / "measurements" / f"gpu-{slug}-{datetime.now(UTC):%Y-%m-%d}"
    done = run(chosen, flags.peers, out, flags.total_s, print)
    print("\n".join(told(done, out)))
    return 0


def cuda_device() -> str:
    """Name of the first CUDA GPU; "" without one. Asked in a process of its own: a context holds memory."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def plan(stages: Sequence[Stage], peers: Path) -> Iterator[str]:
    """A line for each stage, in order, and the sum of the budgets."""
    for stage in stages:
        missing = "" if present(stage, peers) else f"  [missing: {peers / stage.needs}]"
        words = " ".join(word.replace("{peers}", str(peers)) for word in stage.command)
        yield f"{stage.name:14} {stage.budget_s:4.0f} s  {stage.worth}{missing}\n{'':22} python {words}"
    whole = sum(stage.budget_s for stage in stages)
    yield f"{len(stages)} stages, {whole:.0f} s by their budgets; none is begun after {TOTAL_S:.0f} s"


def present(stage: Stage, peers: Path) -> bool:
    """Whether what the stage needs is there."""
    return not stage.needs or (peers / stage.needs).exists()


def run(stages: Sequence[Stage], peers: Path, out: Path, total_s: float, say: Callable[[str], object]) -> list[Done]:
    """Run one stage after the other; after each, what is known so far lies in OUT/summary.json."""
    out.mkdir(parents=True, exist_ok=True)
    began, done = time.monotonic(), []
    for stage in stages:
        if not present(stage, peers):
            done.append(Done(stage=stage.name, took_s=0, said=f"peer missing: {peers / stage.needs}"))
        elif time.monotonic() - began >= total_s:
            done.append(Done(stage=stage.name, took_s=0, said=f"not begun: {total_s:.0f} s were spent"))
        else:
            say(f"{stage.name}: {stage.worth}, within {stage.limit_s:.0f} s")
            done.append(one(stage, peers, out))
        say(f"{stage.name}: {done[-1].said}, {done[-1].took_s:.0f} s")
        keep(done, out)
    return done


def one(stage: Stage, peers: Path, out: Path) -> Done:
    """One stage, ended when it is over its limit; its output lies in OUT/STAGE.log, its record in OUT/STAGE.json:
    a whole one, or the rows that there were when it ended.

    Ours write into one folder, OUT/records, where a later one finds the ceilings that an earlier one measured.
    """
    shared, log_path = out / "records", out / f"{stage.name}.log"
    drafts = out / "drafts" / stage.name
    shutil.rmtree(drafts, ignore_errors=True)
    words = [sys.executable, *(word.replace("{peers}", str(peers)) for word in stage.command)]
    words += [] if stage.peer else ["--out", str(shared)]
    before, began = _written(shared), time.monotonic()
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
                                   env={**os.environ, "ROOFLAB_DRAFTS": str(drafts)})  # fmt: skip
        try:
            code = process.wait(stage.limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    whole = [path for path, _ in _written(shared) - before]
    rows = 0 if whole else sum(len(read(path).measurements) for path in drafts.glob("*.json"))
    for path in whole or drafts.glob("*.json"):
        shutil.copyfile(path, out / f"{stage.name}.json")
    left = f"; {rows} row{'s' * (rows > 1)} of it kept" if rows else ""
    took_s, lines = time.monotonic() - began, log_path.read_text(errors="replace").strip().splitlines()
    if code is None:
        return Done(stage=stage.name, took_s=took_s, said=f"ended: over {stage.limit_s:.0f} s{left}")
    if code:
        last = lines[-1] if lines else "it said nothing"
        return Done(stage=stage.name, took_s=took_s, said=f"exit code {code}: {last}{left}")
    figure = figure_of(stage.name, lines) if stage.peer else None
    said = "done" if figure is not None or not stage.peer else "done, but its figure was not found in its log"
    return Done(stage=stage.name, took_s=took_s, said=said, figure=figure)


def _written(folder: Path) -> set[tuple[Path, int]]:
    """The records in a folder, each with the time when it was written."""
    return {(path, path.stat().st_mtime_ns) for path in folder.glob("*.json")}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the stage and whatever it started, by its own process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


_MAMF = re.compile(r"MAMF\D*?([0-9]+\.[0-9]+)\s*TFLOPS", re.IGNORECASE)
_FIGURE = re.compile(r"figure: ([0-9.e+-]+)")


def figure_of(peer: str, lines: Sequence[str]) -> float | None:
    """What a peer's log ends up with: mamf-finder's best in FLOP/s, else what our driver of it printed as "figure:"."""
    pattern, scale = (_MAMF, 1e12) if peer == "mamf-finder" else (_FIGURE, 1.0)
    found = [float(match[1]) * scale for line in lines if (match := pattern.search(line))]
    return max(found) if peer == "mamf-finder" and found else found[-1] if found else None


def records_in(out: Path) -> dict[str, Record]:
    """The record of each stage that left one."""
    paths = {stage.name: out / f"{stage.name}.json" for stage in STAGES}
    return {name: read(path) for name, path in paths.items() if path.exists()}


def keep(done: Sequence[Done], out: Path) -> None:
    """Write OUT/summary.json: how every stage went, and every goal."""
    goals = [
        {"goal": goal.name, "least": goal.least, "unit": goal.unit, "reached": figure, "said": said}
        for goal, figure, said in outcomes(records_in(out), _peers(done))
    ]
    document = {"stages": [asdict(entry) for entry in done], "goals": goals}
    partial = out / "summary.partial"
    partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    partial.replace(out / "summary.json")


def _peers(done: Sequence[Done]) -> Mapping[str, float]:
    return {entry.stage: entry.figure for entry in done if entry.figure is not None}


def told(done: Sequence[Done], out: Path) -> Iterator[str]:
    """The table for docs/benchmarks.md."""
    yield "| What | Goal | Reached | |\n|---|---|---|---|"
    for goal, figure, said in outcomes(records_in(out), _peers(done)):
        reached = "–" if figure is None else f"{figure:.3g}"
        yield f"| {goal.name} | ≥ {goal.least:g} {goal.unit} | {reached} | {said if said == 'met' else f'**{said}**'} |"
    for entry in done:
        if entry.said != "done":
            yield f"{entry.stage}: {entry.said}"
    yield f"records and logs: {out}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
