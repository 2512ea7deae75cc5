"""Whether others work on this machine's cores: then a measurement tells of both, and a share of a roof means little.

Linux counts for each thread how long it ran, and how long it was ready and waited for a core
(https://docs.kernel.org/scheduler/sched-stats.html). A process that is alone waits for almost nothing. Where a system
counts no such thing, the load average must do: how many threads were ready at once, over the last minute.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from labs.results import BUSY
from workloads.processor import cores

WAITING = 0.1
"""Of the time that its threads could run: a process that waits for more of it is not alone."""
CROWDED = 1.5
"""Load per core from which a machine counts as busy where it does not tell who waited; a workload alone makes one."""
LEAST_S = 0.2
"""Of running and waiting, below which nothing is concluded."""


class Turn(NamedTuple):
    """What one thread had of the cores so far."""

    ran_ns: int
    waited_ns: int


def turns(process: Path = Path("/proc/self")) -> dict[str, Turn]:
    """Every thread's turn; empty where the system does not count them."""
    found = {}
    for thread in process.glob("task/*"):
        try:
            ran, waited, _ = (thread / "schedstat").read_text().split()
        except (OSError, ValueError):  # the thread ended meanwhile, or the kernel counts nothing
            continue
        found[thread.name] = Turn(int(ran), int(waited))
    return found


@dataclass(frozen=True, kw_only=True)
class Contention:
    """Who wanted the cores while something was measured."""

    cores: int
    load: float
    """Threads that were ready at once, over the last minute."""
    waited: float | None
    """Share of the time in which this process could run that it waited for a core; None where nothing tells."""

    @classmethod
    def since(cls, before: Mapping[str, Turn]) -> Self:
        """From what `turns` said when the measurement began, until now."""
        ran = waited = 0
        for name, now in turns().items():
            then = before.get(name, Turn(0, 0))
            ran, waited = ran + now.ran_ns - then.ran_ns, waited + now.waited_ns - then.waited_ns
        told = before and ran + waited >= LEAST_S * 1e9
        return cls(cores=cores(), load=os.getloadavg()[0], waited=waited / (ran + waited) if told else None)

    @property
    def busy(self) -> bool:
        """Whether what was measured is to be doubted."""
        return self.load > CROWDED * self.cores if self.waited is None else self.waited > WAITING

    @property
    def notes(self) -> tuple[str, ...]:
        """For the record and the log; none of a machine that had cores to spare."""
        if not self.busy:
            return ()
        waited = "" if self.waited is None else f", and for {self.waited:.0%} of its time this process waited for one"
        return (f"{BUSY}: load {self.load:.1f} on {self.cores} core{'s' * (self.cores > 1)}{waited}: times are too "
                "long, shares mean little",)  # fmt: skip
