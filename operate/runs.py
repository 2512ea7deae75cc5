"""Runs as they lie on this machine: results/<run>/run.json, and which run is meant."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operate import laptop
from operate.problem import Problem

SCHEMA = 1
_RUN = re.compile(r"\d{8}-\d{6}-(?:lab\d+|own)")


class NoRun(Problem):
    """No run here is the one that was meant."""


@dataclass(frozen=True)
class Run:
    """One run's folder under results/."""

    folder: Path
    document: dict[str, Any]
    """run.json."""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    def write(self, **changes: Any) -> "Run":
        """Write run.json with `changes`, whole or not at all."""
        document = {**self.document, **changes}
        self.folder.mkdir(parents=True, exist_ok=True)
        laptop.write(self.folder / "run.json", json.dumps(document, indent=1) + "\n")
        return Run(self.folder, document)


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        Problem: there is none, or its run.json cannot be read.
    """
    try:
        document = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        raise Problem(
            f"there is no run {folder.name} in {folder.parent}", "`ls results` names those there are"
        ) from None
    except ValueError as error:
        raise Problem(f"{folder / 'run.json'} cannot be read ({error})", "name another run with --run") from None
    return Run(folder, document)


def find_run(*, run: str = "", lab: int | None = None, stack: str = "", endpoint: str | None = None) -> Run:
    """The run called `run`, else the newest of `lab` and `stack` where these are given.

    `endpoint`: only runs on stacks behind that endpoint ("" is AWS itself); None: any.

    Raises:
        NoRun: there is none.
        Problem: `run` is not a run's name.
    """
    if run:
        if not _RUN.fullmatch(run):
            raise Problem(
                f"run={run!r} is not a run's name", "write one such as 20261120-093000-lab3; `ls results` shows them"
            )
        return read_run(laptop.results() / run)
    wanted = {"lab": lab, "stack": stack or None, "endpoint": endpoint}
    for folder in newest_first():
        found = read_run(folder)
        if all(value is None or found.document.get(key) == value for key, value in wanted.items()):
            return found
    what = stack or (f"Lab {lab}" if lab is not None else "any lab")
    raise NoRun(f"there is no run of {what} in {laptop.results()}", f"fab run-lab --lab {3 if lab is None else lab}")


def newest_first() -> list[Path]:
    """Folders of all runs here that have a run.json, newest first."""
    if not laptop.results().is_dir():
        return []
    folders = (path for path in laptop.results().iterdir() if _RUN.fullmatch(path.name))
    return sorted((path for path in folders if (path / "run.json").exists()), key=lambda path: path.name, reverse=True)
