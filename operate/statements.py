"""What the ranks of a job that failed left behind, as it came home: results/RUN/hang/JOB/NODE/rankN.json.

Each is written by `workloads/startup/rooflab_witness.py` in the rank itself.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_SOURCES = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen", "<string>")
"""In the path of a file that is not the user's."""
_BLOCK = re.compile(r"^(?:Current thread|Thread) .*\(most recent call first\):\n((?:  .*\n?)*)", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str
    text: str

    @property
    def own(self) -> bool:
        """Whether it stands in a program and not in a library."""
        return not any(part in self.file for part in _SOURCES)

    def __str__(self) -> str:
        """For example "train.py:88 in step: time.sleep(100)"."""
        said = f"{Path(self.file).name}:{self.line}"
        said += f" in {self.function}" if self.function != "<module>" else ""
        return said + (f": {self.text}" if self.text else "")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One collective as a rank's flight recorder has it."""

    group: str
    """Name of the process group."""
    number: int
    """How manyth collective of that group it is; the same on all its ranks."""
    op: str
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    pending: bool
    """Whether it had not ended."""

    def __str__(self) -> str:
        """For example "all_reduce #41"."""
        return f"{self.op} #{self.number}"

    @property
    def shape(self) -> str:
        """For example "all_reduce of [4, 1000] Float"."""
        sizes = ", ".join(str(list(size)) for size in self.sizes)
        return f"{self.op} of {sizes} {', '.join(self.dtypes)}" if sizes else self.op


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One rank's."""

    rank: int
    node: str
    alive: bool = True
    """Whether it lived when the ranks of its node were asked, or when it wrote."""
    stack: tuple[Frame, ...] = ()
    """Of the main thread, outermost first; empty where it said nothing."""
    error: str = ""
    """The exception that ended it, "ValueError: the batch is empty"; "" where none did."""
    error_s: float = 0.0
    """When, in seconds since 1970."""
    error_stack: tuple[Frame, ...] = ()
    calls: tuple[Call, ...] = ()
    members: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By group: its ranks."""

    @property
    def where(self) -> str:
        """The innermost line of the user's program, else the innermost of all; "" where it is not known."""
        stack = self.error_stack or self.stack
        own = [frame for frame in stack if frame.own]
        return str((own or stack)[-1]) if stack else ""

    @property
    def waits(self) -> tuple[Call, ...]:
        """Collectives that it has begun and that have not ended."""
        return tuple(call for call in self.calls if call.pending)

    @property
    def communicates(self) -> bool:
        """Whether its stack stands in torch.distributed."""
        return any("torch/distributed/" in frame.file for frame in self.stack[-6:])


def read(folder: Path) -> tuple[Statement, ...]:
    """All ranks that registered under `folder`, results/RUN/hang/JOB, of the job's last attempt, in order of rank."""
    found: dict[int, tuple[int, Statement]] = {}
    for path in sorted(folder.glob("*/rank*.pid")):
        facts = _document(path)
        if "rank" not in facts:
            continue
        watch = _document(path.parent / "watch.json")
        attempt = int(facts.get("attempt", 0))
        if attempt >= found.get(facts["rank"], (-1, None))[0]:
            document = {**facts, **_document(path.with_suffix(".json"))}
            told = statement(document, node=path.parent.name, alive=facts["rank"] not in watch.get("gone", ()))
            stacks = path.with_suffix(".stacks")
            if not told.stack and stacks.exists():
                told = replace(told, stack=parse_stack(stacks.read_text(errors="replace")))
            found[facts["rank"]] = (attempt, told)
    last = max((attempt for attempt, _ in found.values()), default=0)
    return tuple(told for _, (attempt, told) in sorted(found.items()) if attempt == last)


def parse_stack(text: str) -> tuple[Frame, ...]:
    """The main thread's stack in what faulthandler wrote, which begins in a module; else the last; () if none."""
    stacks = [
        tuple(Frame(file=file, line=int(line), function=name, text="") for file, line, name in reversed(rows))
        for rows in map(_FRAME.findall, _BLOCK.findall(text))
    ]
    return next((stack for stack in stacks if stack and stack[0].function == "<module>"), stacks[-1] if stacks else ())


def statement(document: Mapping[str, Any], *, node: str, alive: bool = True) -> Statement:
    """One rank's document; what is missing in it stays empty."""
    error = document.get("error") or {}
    recorder = document.get("recorder") or {}
    return Statement(
        rank=document["rank"],
        node=document.get("node") or node,
        alive=alive,
        stack=_frames(document.get("stack")),
        error=f"{error['kind']}: {error['text']}".rstrip(": ") if error else "",
        error_s=error.get("time", 0.0),
        error_stack=_frames(error.get("stack")),
        calls=tuple(_call(entry) for entry in recorder.get("entries", ()) if not entry.get("is_p2p")),
        members=_members(recorder.get("pg_config") or {}),
    )


def _call(entry: Mapping[str, Any]) -> Call:
    return Call(
        group=str((entry.get("process_group") or [""])[0]),
        number=int(entry.get("collective_seq_id", 0)),
        op=str(entry.get("profiling_name", "")).partition(":")[2] or str(entry.get("profiling_name", "")),
        sizes=tuple(tuple(size) for size in entry.get("input_sizes", ())),
        dtypes=tuple(entry.get("input_dtypes", ())),
        pending=not entry.get("retired") and entry.get("state") != "completed",
    )


def _members(groups: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The recorder writes ranks as a text such as "[0, 1, 2]"."""
    found = {}
    for name, group in groups.items():
        ranks = group.get("ranks", "[]")
        found[str(name)] = tuple(json.loads(ranks) if isinstance(ranks, str) else ranks)
    return found


def _frames(rows: Any) -> tuple[Frame, ...]:
    return tuple(Frame(file=file, line=line or 0, function=name, text=text) for file, line, name, text in rows or ())


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
