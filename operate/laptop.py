"""Where things lie on the operator's own machine."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The clone: what is pushed, and where results/ and .rooflab/ lie."""


def results() -> Path:
    """Folder that holds one folder per run."""
    return ROOT / "results"


def state(label: str) -> Path:
    """Folder of what is known about one stack's nodes: ssh_config, known_hosts. Made if it is not there."""
    folder = ROOT / ".rooflab" / label
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def private_key() -> Path:
    """The key that opens the nodes; its public half went into the stack."""
    return ROOT / ".rooflab" / "id_ed25519"
