"""Where things lie on the operator's own machine."""

import os
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


def write(path: Path, text: str) -> None:
    """Write `path` whole or not at all, even where two commands do so at the same time."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def private_key() -> Path:
    """The key that opens the nodes; its public half went into the stack."""
    return ROOT / ".rooflab" / "id_ed25519"
