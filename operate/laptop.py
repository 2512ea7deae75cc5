"""Where things lie on the operator's own machine."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
"""The clone: what is pushed, and where results/ and .rooflab/ lie."""


def results() -> Path:
    """Folder that holds one folder per run."""
    return ROOT / "results"


def state(label: str, endpoint: str | None = None) -> Path:
    """Folder of what is known about one stack's nodes: ssh_config, known_hosts. Made if it is not there.

    Stacks behind an endpoint of one's own, such as rehearsals side by side, are kept apart.
    """
    address = urlsplit(endpoint or "").netloc.replace(":", "-")
    folder = ROOT / ".rooflab" / (f"{label}@{address}" if address else label)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path: Path, content: str | bytes) -> None:
    """Write `path` whole or not at all, even where several threads or commands do so at the same time."""
    data = content.encode() if isinstance(content, str) else content
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    # A name that nobody else writes: of two that shared one, the second would find it gone.
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def private_key() -> Path:
    """The key that opens the nodes; its public half went into the stack."""
    return ROOT / ".rooflab" / "id_ed25519"
