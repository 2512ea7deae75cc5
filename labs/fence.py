"""Who may write a job's checkpoints: a job that is started again among other nodes does so in a new generation.

Nodes that cannot reach each other cannot tell a dead node from a cut wire. Where they share a folder, each start of
such a job claims the next number there, and only the newest may complete a checkpoint: of two parts of a cluster that
both went on, one ends with a clear line and nothing is mixed.
"""

from collections.abc import Mapping
from pathlib import Path

GENERATION = "ROOFLAB_GENERATION"
"""Variable with the job's generation: 0, and more after each loss of a node."""
FENCE = "ROOFLAB_FENCE"
"""Variable with the folder of claims; not set where the nodes share none."""


def folder(shared: str, run: str, job: str) -> Path:
    """Where the claims of a run's job lie: beside its checkpoints."""
    return Path(shared) / "checkpoints" / run / f"{job}.generations"


def claim(fence: Path, node: str, least: int) -> int:
    """Take the first free generation from `least` on, newer than all that were taken; its number."""
    fence.mkdir(parents=True, exist_ok=True)
    number = max(least, newest(fence) + 1)
    while True:
        try:
            with (fence / str(number)).open("x") as file:
                file.write(f"{node}\n")
            return number
        except FileExistsError:  # the other part of the cluster was quicker
            number += 1


def newest(fence: Path) -> int:
    """The newest generation that was claimed; -1 where none was."""
    return max((int(path.name) for path in fence.iterdir() if path.name.isdigit()), default=-1)


def superseded(environment: Mapping[str, str]) -> str:
    """Why a process of this environment may write no checkpoint any more, as a sentence; "" where it may.

    Look right before a checkpoint is made valid, by renaming it for example.
    """
    if not environment.get(FENCE):
        return ""
    mine, other = int(environment.get(GENERATION, "0")), newest(Path(environment[FENCE]))
    if other <= mine:
        return ""
    return f"generation {other} of this job has begun elsewhere, and this is generation {mine}: its checkpoints count"
