"""What a doctor finds on a machine: one line each, that a record keeps and a verb reads back."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, get_args

Level = Literal["ok", "note", "warn", "fail"]
LEVELS: tuple[Level, ...] = get_args(Level)
_BETWEEN = " · "


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """"fail": no number of this machine can be trusted, or nothing runs; "warn": numbers will be worse than they
    should; "note": worth knowing."""
    subject: str
    """For example "GPU 0" or "disk"."""
    seen: str
    """What was found, with its numbers."""
    means: str = ""
    """What follows for a measurement; "" for "ok"."""
    do: str = ""
    """What to do about it; "" where there is nothing to do."""

    def line(self) -> str:
        """All of it in one line."""
        texts = (self.level, self.subject, self.seen, self.means, self.do)
        return _BETWEEN.join(text.replace(_BETWEEN, " - ").replace("\n", " ").strip() for text in texts)


def ok(subject: str, seen: str) -> Finding:
    """All is as it should be."""
    return Finding(level="ok", subject=subject, seen=seen)


def note(subject: str, seen: str, means: str = "", do: str = "") -> Finding:
    """Worth knowing."""
    return Finding(level="note", subject=subject, seen=seen, means=means, do=do)


def warn(subject: str, seen: str, means: str, do: str) -> Finding:
    """Numbers will be worse than they should."""
    return Finding(level="warn", subject=subject, seen=seen, means=means, do=do)


def fail(subject: str, seen: str, means: str, do: str) -> Finding:
    """Nothing runs, or no number can be trusted."""
    return Finding(level="fail", subject=subject, seen=seen, means=means, do=do)


def read_finding(line: str) -> Finding | None:
    """The finding that `Finding.line` wrote; None for any other line."""
    texts = line.split(_BETWEEN)
    names = [field.name for field in fields(Finding)]
    if len(texts) != len(names) or texts[0] not in LEVELS:
        return None
    return Finding(**dict(zip(names, texts, strict=True)))  # type: ignore[arg-type]  # the level was just checked


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all; "ok" where there is none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
