"""nccl-tests beside us, where the image has it: the same all-reduce on this node's GPUs, and its formulas against ours.

Over several nodes it needs MPI, which the nodes have no keys for: there it runs on the first node's GPUs alone.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.wire import algbw, busbw

_NAME = "all_reduce_perf"
_PLACES = ("usr/local/cuda*/efa/test-cuda*", "opt/nccl-tests/build", "opt/amazon/nccl-tests/build",
           "usr/local/bin")  # fmt: skip
_LIMIT_S = 90
# size, count, type, redop, root (newer versions), then time (µs), algbw and busbw (GB/s) out of place.
_ROW = re.compile(r"^\s*(\d+)\s+\d+\s+(\w+)\s+\w+\s+(?:-?\d+\s+)?([\d.]+)\s+([\d.]+)\s+([\d.]+)\s", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """One line of its table, out of place."""

    size_bytes: int
    dtype: str
    time_s: float
    algbw: float
    """B/s, as printed: two digits after the point of GB/s."""
    busbw: float

    def agrees(self, ranks: int) -> bool:
        """Whether our formulas give its numbers from its time, within what it rounds off."""
        pairs = ((algbw(self.size_bytes, self.time_s), self.algbw),
                 (busbw("all-reduce", self.size_bytes, ranks, self.time_s), self.busbw))  # fmt: skip
        return all(abs(ours - theirs) <= 0.006e9 + 1e-3 * theirs for ours, theirs in pairs)


def find_binary(root: Path = Path("/")) -> Path | None:
    """Its all-reduce, in PATH or where images have it; None where it is not."""
    in_path = shutil.which(_NAME)
    if in_path:
        return Path(in_path)
    return next((path for place in _PLACES for path in sorted(root.glob(f"{place}/{_NAME}"), reverse=True)), None)


def read_table(text: str) -> list[Theirs]:
    """The rows of its table."""
    return [
        Theirs(size_bytes=int(size), dtype=dtype, time_s=float(time_us) / 1e6, algbw=float(alg) * 1e9,
               busbw=float(bus) * 1e9)
        for size, dtype, time_us, alg, bus in _ROW.findall(text) if float(time_us) > 0
    ]  # fmt: skip


def run_beside(binary: Path, gpus: int, sizes_bytes: Sequence[int], growth: int) -> tuple[list[Theirs], str]:
    """Its table for these sizes, and why there is none where it failed."""
    command = [str(binary), "-b", str(sizes_bytes[0]), "-e", str(sizes_bytes[-1]), "-f", str(growth), "-g", str(gpus)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nccl-tests did not finish: {error}"
    rows = read_table(ran.stdout)
    if ran.returncode or not rows:
        lines = (ran.stderr or ran.stdout).strip().splitlines()
        return [], f"nccl-tests failed with exit code {ran.returncode}: {lines[-1] if lines else 'it said nothing'}"
    return rows, ""


def parity_note(rows: Sequence[Theirs], gpus: int) -> str:
    """Whether both sides mean the same by algbw and busbw."""
    odd = [row for row in rows if not row.agrees(gpus)]
    where = f"on {gpus} GPUs of the first node"
    if odd:
        return (
            f"nccl-tests {where}: at {odd[0].size_bytes} B its bandwidths are not what our formulas give for its time"
        )
    return f"nccl-tests {where}: {len(rows)} sizes, from its times our formulas give its algbw and busbw"
