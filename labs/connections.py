"""What each node of a cluster found of its connections: a report that travels between nodes and is kept as JSON.

A node probes every other one in stages, and its ranks exchange data in pairs. No report says who is to blame: one node
sees its own end of every link only. `labs.culprits` puts the reports of all nodes side by side and names it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from labs.findings import Finding

Stage = Literal["name", "connect", "clock", "burst", "address"]
"""In this order: does the peer's name resolve; does its doctor answer; how far is its clock; does a large burst arrive
as well as a small message; is the address that its collectives will use its own and reachable from here."""
Outcome = Literal[
    "ok", "unnamed", "unroutable", "refused", "filtered", "silent", "stranger", "stalled", "slow", "broken"
]
"""refused: the address answers and nothing listens there. filtered: no answer there, but another port of it answers.
silent: no port of it answers. stranger: another node or another run answers. stalled: a small message arrives, nothing
of a large burst does. slow: it arrives, too slowly. broken: the connection ended in the middle."""
Health = Literal["ok", "wrong", "raised", "hangs", "absent"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SCHEMA = 1
_T = TypeVar("_T", "Probe", "Rank", "Pair", Finding)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one stage found on the way from the report's node to a peer."""

    peer: str
    stage: Stage
    outcome: Outcome
    said: str = ""
    """What the system said, or what was waited for and for how long; "" where all is well."""
    value: float | None = None
    """connect: seconds of a message there and back. clock: seconds that the peer's clock is ahead. burst: bytes a
    second, all peers at once."""
    bound: float = 0.0
    """clock: seconds by which `value` may be wrong: half of the fastest exchange."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One rank's device, which computed something whose result is known, alone."""

    local: int
    """Its number on its node."""
    device: str
    """The device's name, after "CPU" where it is one; "GPU" or "CPU" where it never told."""
    outcome: Health
    said: str = ""
    """What went wrong, with the driver's own evidence where there is some."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two ranks that exchanged data by the collectives' own library, and nobody else meanwhile."""

    first: str
    """"node0/1": rank 1 of node0."""
    second: str
    outcome: Health
    said: str = ""
    latency_s: float | None = None
    """Of the fastest all-reduce of a few bytes."""
    bytes_per_s: float | None = None
    """Of the fastest larger all-reduce: buffer ÷ time."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one node knows."""

    node: str
    address: str
    """Where its peers reach it."""
    seconds: float = 0.0
    """How long it looked."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What has to be the same on all nodes: versions by name, and the interface's MTU."""
    own: tuple[Finding, ...] = ()
    """What it found wrong with itself, without asking a peer."""
    probes: tuple[Probe, ...] = ()
    ranks: tuple[Rank, ...] = ()
    pairs: tuple[Pair, ...] = ()
    """Those that this node began: the one with the lower first rank does."""
    left: tuple[str, ...] = ()
    """What it still waited for when its time was over."""
    unmet: int = 0
    """Pairs that this node was to begin, and for which no time was left."""
    schema: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """Plain dict for `json.dumps`."""
        return asdict(self)


def read_report(document: object) -> Report:
    """The report that `Report.as_json` wrote.

    Raises:
        ValueError: it is not one.
    """
    try:
        if not isinstance(document, dict) or document["schema"] != SCHEMA:
            raise ValueError("another schema")
        kept = {item.name: document[item.name] for item in fields(Report)}
        kept["own"] = _each(Finding, kept["own"])
        kept["probes"] = _each(Probe, kept["probes"])
        kept["ranks"] = _each(Rank, kept["ranks"])
        kept["pairs"] = _each(Pair, kept["pairs"])
        kept["left"] = tuple(kept["left"])
        return Report(**kept)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no report of a node's connections ({error})") from None


def load(text: str) -> Report:
    """The report in a file's text.

    Raises:
        ValueError: it is not one.
    """
    try:
        return read_report(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no report of a node's connections ({error})") from None


def _each(kind: type[_T], rows: Any) -> tuple[_T, ...]:
    return tuple(kind(**row) for row in rows)
