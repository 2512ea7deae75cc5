"""Each node's own /tmp: gone with the node, and short, for a socket's path has room for 108 letters."""

import shutil
import tempfile
import zlib
from pathlib import Path


def _begin(state: Path) -> str:
    return f"rooflab-{zlib.crc32(str(state).encode()):08x}-"


def folder(state: Path, instance: str) -> Path:
    """Where an instance of the rehearsal in `state` has it."""
    return Path(tempfile.gettempdir()) / f"{_begin(state)}{instance}"


def make(state: Path, instance: str) -> None:
    """Make it, empty; others may pass through it but not look, as daemons that talk over sockets demand."""
    path = folder(state, instance)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o711)


def erase(state: Path, instance: str = "") -> None:
    """Remove it, or those of all instances."""
    for path in Path(tempfile.gettempdir()).glob(f"{_begin(state)}{instance or '*'}"):
        shutil.rmtree(path, ignore_errors=True)
