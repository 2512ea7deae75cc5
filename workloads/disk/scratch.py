"""A folder for a measurement's files that is gone afterwards, however the measurement ends.

`finally` does not run when a process is killed, and a workload ends at once on SIGTERM. So a small shell in a session
of its own waits for the end of a pipe that only we hold: when we are gone, for whatever reason, it removes the folder.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMOVE = 'trap "" TERM INT HUP; read -r _; rm -rf -- "$1"'


@contextmanager
def scratch(under: Path) -> Iterator[Path]:
    """A new folder below `under`; removed at the end, also when this process is killed.

    Raises:
        ValueError: no folder can be made there.
    """
    try:
        under.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="rooflab-", dir=under))
    except OSError as error:
        raise ValueError(f"path={str(under)!r} cannot be written ({error.strerror}): name a folder that can") from None
    # Without our environment: what ends all processes of a run must not end this one before its work.
    remover = subprocess.Popen(["sh", "-c", _REMOVE, "remover", str(folder)], stdin=subprocess.PIPE, cwd="/",
                               env={"PATH": os.defpath}, start_new_session=True)  # fmt: skip
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        assert remover.stdin is not None
        remover.stdin.close()
        remover.wait()


def demand_room(folder: Path, needed: int) -> None:
    """Check that `needed` bytes fit where `folder` lies and leave a tenth of the file system free.

    Raises:
        ValueError: they do not.
    """
    room = os.statvfs(folder)
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    if needed > free - whole // 10:
        raise ValueError(f"path={str(folder)!r} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB would leave "
                         "less than a tenth: choose fewer MiB, or another --path")  # fmt: skip
