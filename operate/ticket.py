"""Whether the Slurm job of a run is still in the queue, asked from a node or a login node. Standard library alone."""

import os
import subprocess
import time
from pathlib import Path

_ASK_S = 2.0
_SILENCE_S = 120.0
"""After so long without a controller's answer the job counts as over."""
_CONFIG = Path.home() / ".rooflab" / "slurm" / "slurm.conf"
"""The lab's own Slurm; a cluster that was there before has its configuration where Slurm looks for it."""


class Ticket:
    """A run's place in the queue."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._asked = self._heard = time.monotonic() - _ASK_S
        self._over = False

    def over(self) -> bool:
        """Whether the job has left the queue, as of a moment ago."""
        now = time.monotonic()
        if not self._over and now - self._asked >= _ASK_S:
            self._asked = now
            state = _state(self._job)
            self._heard = self._heard if state is None else now
            self._over = state == "" or now - self._heard > _SILENCE_S
        return self._over


def _state(job: str) -> str | None:
    """Slurm's word for the job, "" where it knows it no more, None where nobody answers."""
    environment = dict(os.environ)
    if _CONFIG.exists() and "SLURM_CONF" not in environment:
        environment["SLURM_CONF"] = str(_CONFIG)
    try:
        asked = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T"], env=environment, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode == 0:
        return asked.stdout.strip()
    return "" if "Invalid job id" in asked.stderr else None
