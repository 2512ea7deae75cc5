"""Trainings that lose a node at a random moment: do all finish, with the losses of one that lost none?

A node is a group of ranks, ended by SIGKILL: at its start, between steps, while a checkpoint is written. The others
find out by themselves and end; then all are started again, as an elastic launcher does, on as many nodes or on what is
left. In some a second node is lost. Ranks are forked from a process that has imported torch, so that a hundred
trainings take minutes; real ranks, gloo and files otherwise. A seed fixes every choice; where in a step a death falls
is the machine's to say.

    python -m benchmarks.survival --trainings 5 --seed 7
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.result import Result
from operate.laptop import ROOT
from operate.problem import Problem

TRAININGS, SEED = 100, 1
NODES, RANKS = 2, 2
STEPS, EVERY = 16, 6
ALLOWED = 1e-5
"""Largest relative difference of a loss where the number of ranks has changed; 0 where it has not."""
_ALONE_S = 5.0
"""That ranks get to find out by themselves that others are gone; then they are told to end, as torchrun tells them: who
still waits for a rank's first word cannot know that it will not come."""
_TOLD_S = 30.0
_LIFE_S = 300.0
_LIVES = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """What happens to one training."""

    strikes: tuple[tuple[float, int], ...]
    """For each life that loses a node: after how many of the steps it has left, as a share, and which node."""
    replaced: bool
    """Whether as many nodes go on, or what is left."""
    strategy: str


def case(seed: int, number: int) -> Case:
    """Drawn from the seed; the same for each number."""
    draw = random.Random(seed * 1_000_003 + number)
    strikes = tuple((draw.random(), draw.randrange(NODES)) for _ in range(1 + (draw.random() < 0.25)))
    return Case(strikes=strikes, replaced=draw.random() < 0.6, strategy=draw.choice(("fsdp", "fsdp", "ddp")))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one training."""

    number: int
    lives: int
    lost: tuple[int, ...]
    """Steps that each resume did again."""
    resume_s: tuple[float, ...]
    """From each death to the first step after it."""
    found_out: int
    """Ranks that ended by themselves because others were gone."""
    told: int
    """Ranks that had to be told to end, or killed."""
    start_s: float
    """From the first launch to its first step."""
    exact: bool
    """Whether its losses had to be the same bit by bit."""
    differ: float
    """Largest relative difference of a loss."""
    fault: str
    """Why it did not survive (empty: it did)."""
    text: str


class Rehearsal:
    """Launches trainings in processes forked from this one, which must have no other thread."""

    def __init__(self, under: Path) -> None:
        """Files lie `under`."""
        from workloads import train  # torch: only here, for this module's result is read without it

        self._train, self._under = train, under
        self._reference: dict[str, list[float]] = {}
        self.step_s = 0.05

    def reference(self, strategy: str) -> list[float]:
        """Losses of a training that lost nothing."""
        if strategy not in self._reference:
            folder = self._under / f"uninterrupted-{strategy}"
            begin = time.perf_counter()
            codes = _wait([rank for node in self.launch(folder, strategy, NODES, 0) for rank in node], _LIFE_S)
            if set(codes.values()) != {0}:
                raise Problem(f"an uninterrupted training ended with {sorted(set(codes.values()))}",
                              f"see {folder}/life0.log")  # fmt: skip
            self.step_s = (time.perf_counter() - begin) / (2 * STEPS)
            self._reference[strategy] = losses_of(folder)
        return self._reference[strategy]

    def launch(self, folder: Path, strategy: str, nodes: int, life: int) -> list[list[int]]:
        """Start all ranks; their process ids by node."""
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        facts = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(nodes * RANKS),
                 "ROOFLAB_RUN": "rehearsed", "ROOFLAB_NODES": str(nodes), "ROOFLAB_COMMIT": "-"}  # fmt: skip
        words = ["--device", "cpu", "--strategy", strategy, "--steps", str(STEPS), "--every", str(EVERY),
                 "--batch", "8", "--sequence", "16", "--checkpoints", str(folder / "checkpoints"),
                 "--out", str(folder)]  # fmt: skip
        log = folder / f"life{life}.log"
        return [[self._fork({**facts, "RANK": str(node * RANKS + local), "LOCAL_RANK": str(local)}, words, log)
                 for local in range(RANKS)] for node in range(nodes)]  # fmt: skip

    def _fork(self, facts: dict[str, str], words: Sequence[str], log: Path) -> int:
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        os.environ.update(facts)
        _train_here(self._train, words, log)

    def run(self, number: int, chosen: Case) -> Outcome:
        """One training, whatever befalls it."""
        expected = self.reference(chosen.strategy)
        folder = self._under / f"training{number}"
        begin = time.time()
        deaths: list[float] = []
        found_out = told = life = 0
        nodes, ended, fault = NODES, False, ""
        while not ended and life < _LIVES:
            ranks = self.launch(folder, chosen.strategy, nodes, life)
            struck = None
            if life < len(chosen.strikes):
                share, node = chosen.strikes[life]
                struck = self._strike(folder, ranks, share, node % nodes)
            others = [pid for index, node_ranks in enumerate(ranks) for pid in node_ranks if index != struck]
            codes = _wait(others, _LIFE_S if struck is None else _ALONE_S)
            left = [pid for pid in others if pid not in codes]
            if struck is None:
                ended = not left and set(codes.values()) == {0}
                fault = "" if ended else f"life {life} ended with {sorted(set(codes.values()))}, {len(left)} hung"
            else:
                deaths.append(self._struck_at)
                found_out += sum(code != 0 for code in codes.values())
                told += len(left)
            _end(left)
            if fault:
                break
            if struck is not None and not chosen.replaced:
                nodes = max(1, nodes - 1)
            life += 1
        if not fault and not ended:
            fault = f"not over after {_LIVES} lives"
        return self._judge(number, chosen, folder, expected, fault, begin, deaths, (found_out, told))

    def _strike(self, folder: Path, ranks: list[list[int]], share: float, node: int) -> int | None:
        """Kill a node when that share of what is left is done; None where the training was over before."""
        path = folder / "checkpoints" / "history.jsonl"
        before = _steps(path)
        left = STEPS - (before[-1]["step"] if before else 0)
        wanted = share * max(1, left)
        limit = time.monotonic() + _LIFE_S
        first = ranks[0][0]
        while len(_steps(path)) - len(before) < int(wanted) and _alive(first) and time.monotonic() < limit:
            time.sleep(0.002)
        time.sleep((wanted % 1) * self.step_s * (20 if int(wanted) == 0 else 1))
        if not _alive(first):
            return None
        self._struck_at = time.time()
        for pid in ranks[node]:
            os.kill(pid, signal.SIGKILL)
        _wait(ranks[node], _TOLD_S)
        return node

    def _judge(self, number: int, chosen: Case, folder: Path, expected: list[float], fault: str, begin: float,
               deaths: list[float], ends: tuple[int, int]) -> Outcome:  # fmt: skip
        from workloads.survival.history import History

        story = History(path=folder / "checkpoints" / "history.jsonl").read()
        exact = {life.start.ranks for life in story.lives} == {NODES * RANKS}
        losses = [] if fault else losses_of(folder)
        differ = max((abs(one - other) / abs(other) for one, other in zip(losses, expected, strict=False)), default=1.0)
        steps = [one.at for life in story.lives for one in life.steps]
        later = [[one.at for one in life.steps] for life in story.lives]
        resume_s = tuple(
            next(ats[0] for ats, life in zip(later, story.lives, strict=True) if ats and life.start.at > death) - death
            for death in (() if fault else deaths)
        )
        lost = tuple(resume.lost for resume in story.resumes)
        if not fault and len(losses) != len(expected):
            fault = f"{len(losses)} losses, not {len(expected)}"
        if not fault and differ > (0 if exact else ALLOWED):
            on = "as many" if exact else "another number of"
            fault = f"losses differ by {differ:.1e} from the uninterrupted run's, on {on} ranks"
        if not fault and max(lost, default=0) > EVERY:
            fault = f"{max(lost)} steps were lost at once, more than the interval of {EVERY}"
        lives = ", ".join(f"step {life.start.resumed} on {life.start.ranks}" for life in story.lives)
        text = (
            f"{chosen.strategy}, {len(deaths)} nodes lost; lives began at {lives}; lost {list(lost)} steps, resumed "
            f"in {', '.join(f'{value:.1f}' for value in resume_s) or '–'} s, losses differ by {differ:.0e}"
        )
        if not fault:
            shutil.rmtree(folder)
        return Outcome(number=number, lives=len(story.lives), lost=lost, resume_s=resume_s, found_out=ends[0],
                       told=ends[1], start_s=min(steps, default=begin) - begin, exact=exact, differ=differ, fault=fault,
                       text=text)  # fmt: skip


def _train_here(train: Any, words: Sequence[str], log: Path) -> NoReturn:
    """Be a rank: in a forked process, never to return."""
    import torch

    from labs.models import MODELS, Model
    from workloads.command import start

    # The proportions of mistral-nano, a thirtieth of its weights: what is tested is the survival, not the arithmetic.
    MODELS["mistral-nano"] = Model(name="mistral-nano", hidden=64, layers=2, heads=16, kv_heads=4, head_size=4,
                                   feed_forward=224, vocabulary=128)  # fmt: skip
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    torch.set_num_threads(1)
    sys.argv = ["train", *words]
    try:
        start("train", train.main)
    finally:  # only after an exception: `start` itself ends the process
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def losses_of(folder: Path) -> list[float]:
    """Of all steps, as the record has them."""
    record = json.loads((folder / "train.json").read_text())
    return [float(loss) for row in record["measurements"] if row["name"] == "step" for loss in row["config"]["losses"]]


def _steps(path: Path) -> list[dict[str, Any]]:
    """Events of steps that are whole."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith('{"kind": "step"') and line.endswith("}")]


def _alive(pid: int) -> bool:
    """Whether a child has not ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _wait(pids: Sequence[int], limit_s: float) -> dict[int, int]:
    """Exit codes of those that end within the limit, by process id."""
    codes: dict[int, int] = {}
    until = time.monotonic() + limit_s
    while len(codes) < len(pids) and time.monotonic() < until:
        for pid in pids:
            if pid not in codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return codes


def _end(pids: Sequence[int]) -> None:
    """Tell them to end, and see to it."""
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    codes = _wait(pids, _TOLD_S)
    for pid in pids:
        if pid not in codes:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def rehearse(trainings: int, seed: int, under: Path) -> list[Outcome]:
    """That many, each told as it ends."""
    rehearsal, outcomes = Rehearsal(under), []
    for number in range(trainings):
        outcome = rehearsal.run(number, case(seed, number))
        outcomes.append(outcome)
        print(f"{number + 1}/{trainings} {'DIED: ' + outcome.fault + '; ' if outcome.fault else ''}{outcome.text}",
              flush=True)  # fmt: skip
    return outcomes


def summary(outcomes: Sequence[Outcome], seed: int) -> str:
    """The last line."""
    resumes = [value for one in outcomes for value in one.resume_s]
    lost = [value for one in outcomes for value in one.lost]
    alive = sum(not one.fault for one in outcomes)
    return (f"trainings {len(outcomes)}, seed {seed}: {alive} finished with the uninterrupted run's losses "
            f"({sum(one.exact and not one.fault for one in outcomes)} on as many ranks, bit by bit; the others within "
            f"{max((one.differ for one in outcomes if not one.exact), default=0):.0e}), {len(resumes)} resumes in "
            f"{statistics.median(resumes) if resumes else 0:.2f} s (median), at most {max(lost, default=0)} steps lost "
            f"of an interval of {EVERY}, {sum(one.found_out for one in outcomes)} ranks found out by themselves, "
            f"{sum(one.told for one in outcomes)} had to be told")  # fmt: skip


def run() -> list[Result]:
    """A hundred trainings, in a process of their own.

    Raises:
        Problem: one did not survive.
    """
    kept = Path(tempfile.mkdtemp(prefix="rooflab-survival-")) / "outcomes.json"
    line = [sys.executable, "-m", "benchmarks.survival", "--trainings", str(TRAININGS), "--json", str(kept)]
    code = subprocess.run(line, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
    if code:
        raise Problem(f"not all of {TRAININGS} trainings survived", " ".join(line[1:5]))
    outcomes = json.loads(kept.read_text())
    shutil.rmtree(kept.parent)
    return [Result(
        name=f"a lost node, to the next step ({len(outcomes)} trainings survived)",
        samples_s=tuple(value for one in outcomes for value in one["resume_s"]),
        peer="the training's first start", peer_samples_s=tuple(one["start_s"] for one in outcomes),
    )]  # fmt: skip


def main() -> int:
    """Rehearse, tell, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survival", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--trainings", type=int, default=TRAININGS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, help="file for every outcome")
    flags = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a pool of threads would not outlive a fork
    under = Path(tempfile.mkdtemp(prefix="rooflab-survival-"))
    outcomes = rehearse(flags.trainings, flags.seed, under)
    print(summary(outcomes, flags.seed))
    if flags.json:
        flags.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    if any(one.fault for one in outcomes):
        print(f"kept in {under}")
        return 1
    shutil.rmtree(under)
    return 0


if __name__ == "__main__":
    sys.exit(main())
