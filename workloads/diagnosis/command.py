"""Programs that tell about the machine, asked once."""

import re
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

LIMIT_S = 30
"""A driver that hangs does so for ever."""
_INVALID = re.compile(r'Field "([^"]+)" is not a valid field')


class Answer(NamedTuple):
    """What a program said."""

    code: int
    """Its exit code; 127 where the program is not there, 124 where it did not answer in time."""
    text: str
    """stdout, then stderr."""


def ask(*words: str, limit_s: float = LIMIT_S) -> Answer:
    """Run a program and return what it says, whatever becomes of it."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return Answer(124, f"{words[0]} did not answer within {limit_s:g} s")
    except OSError as error:
        return Answer(127, f"{words[0]} cannot be run: {error.strerror}")
    return Answer(done.returncode, done.stdout + done.stderr)


def query(fields: Sequence[str], option: str = "--query-gpu") -> tuple[Answer, tuple[str, ...]]:
    """nvidia-smi's table of these fields, and those of them that this driver knows: it refuses the whole table for one
    that it does not."""
    known = tuple(fields)
    while True:
        answer = ask("nvidia-smi", f"{option}={','.join(known)}", "--format=csv,noheader,nounits")
        refused = _INVALID.search(answer.text)
        if answer.code == 0 or refused is None or refused[1] not in known:
            return answer, known
        known = tuple(field for field in known if field != refused[1])


def rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """The rows of such a table by field; cells that tell nothing ("[N/A]", "[Not Supported]") are left out."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(fields):
            found.append({name: cell for name, cell in zip(fields, cells, strict=True) if _tells(cell)})
    return found


def _tells(cell: str) -> bool:
    return bool(cell) and not cell.startswith("[") and cell not in ("N/A", "Unknown Error")
