"""fio (https://fio.readthedocs.io), where it is installed: its command lines, and what its JSON says."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

JOBS, DEPTH = 4, 32
"""Of random reads: processes, and requests that each keeps in line."""
_PATIENCE_S = 300


@dataclass(frozen=True, kw_only=True)
class Told:
    """What fio says of one job."""

    bytes_per_s: float
    iops: float
    seconds: float


def installed() -> bool:
    """Whether this machine has fio."""
    return shutil.which("fio") is not None


def command(operation: str, path: Path, size: int, *, direct: bool, seconds: float = 0) -> list[str]:
    """fio's command for "read", "write" or "randread" of one file of `size` bytes; `seconds` bounds random reads."""
    random = operation == "randread"
    words = ["fio", "--name=rooflab", f"--filename={path}", f"--rw={operation}", f"--size={size}",
             f"--bs={'4k' if random else '1M'}", f"--direct={int(direct)}", "--ioengine=libaio",
             f"--iodepth={DEPTH if random else 16}", "--randrepeat=1", "--refill_buffers", "--group_reporting",
             "--output-format=json"]  # fmt: skip
    if operation == "write":
        words.append("--end_fsync=1")
    if random:
        words += [f"--numjobs={JOBS}", "--time_based", f"--runtime={seconds:g}"]
    return words


def parse(text: str, operation: str) -> Told:
    """fio's JSON; lines before it are warnings.

    Raises:
        ValueError: it is not fio's.
    """
    try:
        (job,) = json.loads(text[text.index("{") :])["jobs"]
        side = job["write" if operation == "write" else "read"]
        return Told(bytes_per_s=float(side["bw_bytes"]), iops=float(side["iops"]), seconds=side["runtime"] / 1e3)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"fio's answer is not of its format ({error!r})") from None


def run(operation: str, path: Path, size: int, *, direct: bool, seconds: float = 0) -> Told:
    """Run fio and read its answer.

    Raises:
        ValueError: it failed; the message is its own first line.
    """
    words = command(operation, path, size, direct=direct, seconds=seconds)
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise ValueError(f"fio ends with exit code {done.returncode}: {said[0]}")
    return parse(done.stdout, operation)
