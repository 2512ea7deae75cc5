"""Values that nobody but a run's processes may see: which they are, and how they are blanked.

Used here and on the nodes, with the standard library alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

FORWARDED = ("HF_TOKEN", "HF_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""Secrets that reach a run's processes where the operator's environment has them."""
_SHORTEST = 8
"""Characters; blanking shorter values would blank half of any text."""


def values(environment: Mapping[str, str], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Values of FORWARDED variables and of those that `names` names, as far as `environment` has them."""
    found = (environment.get(name, "") for name in dict.fromkeys((*FORWARDED, *names)))
    return tuple(value for value in found if len(value) >= _SHORTEST)


def blank(data: bytes, secrets: Sequence[str]) -> bytes:
    """`data` with a star for every byte of a secret: what stands behind it keeps its place."""
    for secret in secrets:
        data = data.replace(secret.encode(), b"*" * len(secret.encode()))
    return data


def blank_file(path: Path, secrets: Sequence[str]) -> None:
    """Blank `secrets` in a file that nobody writes any more; who is in the midst of reading it stays in his place."""
    before = path.read_bytes()
    after = blank(before, secrets)
    if after != before:
        with path.open("r+b") as file:
            file.write(after)
