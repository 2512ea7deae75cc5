"""Whether a job still does something: a judgement on samples taken from outside, and one for all nodes together.

Standard library alone, for it runs on the nodes; pure, so that every case is a test. It errs on the side of patience:
whatever could be work counts as work, and a node that waits is not judged while another one works.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

HUNG = 70
"""Exit code of a job that was ended because it hung: EX_SOFTWARE of sysexits.h."""
DEFAULT_S = 120
"""Seconds without any sign of life after which a job counts as hung."""
LEAST_S = 5
"""A shorter bound would take the pauses of a healthy job for its end."""
ALONE = 3
"""So many times the bound have those to be quiet that can be heard, while one of the nodes is not heard."""
IDLE_SHARE = 0.4
"""Of the way from a GPU's power at rest to its limit: below it is near idle. A kernel that only waits for its peers
raises the clocks, and with them power, but works no memory and no tensor core."""
_RANK_CPU = 0.1
"""CPU seconds a second of one rank that count as work; a rank that waits in gloo uses less than 0.01."""
_HELPER_CPU = 0.05
"""The same of all other processes that the ranks started: compilers, data loaders."""
_BYTES = 64 * 2**10
"""Bytes a second, read, written, sent or received, that count as work; keepalives are far below."""
_DUMP_S = 30.0
"""Longest that a node waits until the others have written down where their ranks are."""
_SILENT_S = 30.0
"""A node whose watch has said nothing for so long is not heard."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU's power at a moment."""

    power_w: float
    rest_w: float
    """The least that was seen of it, before the job began."""
    limit_w: float

    @property
    def works(self) -> bool:
        """Whether it draws more than a GPU that only waits."""
        return self.power_w > self.rest_w + IDLE_SHARE * max(0.0, self.limit_w - self.rest_w)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a node's job has done until a moment."""

    time_s: float
    """On any steady clock."""
    beats: Mapping[int, int] = field(default_factory=dict)
    """By rank: its heartbeat's count; a program without one is missing."""
    cpu_s: Mapping[int, float] = field(default_factory=dict)
    """By rank that is alive: CPU seconds of its process."""
    ready: tuple[int, ...] = ()
    """Ranks that run at this moment, or would if a core were free."""
    helpers_cpu_s: float = 0.0
    """CPU seconds of the processes that the ranks started."""
    io_bytes: int = 0
    """That these processes read and wrote: files, pipes, gloo's sockets."""
    wire_bytes: int = 0
    """Of the network cards and EFA devices, both ways; not of the loopback."""
    log_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    """Empty: no GPU here, or none asked in this sample."""
    stacks: Mapping[int, str] = field(default_factory=dict)
    """By rank that was asked: where it is."""


def signs(before: Sample, after: Sample) -> tuple[str, ...]:
    """What shows that the job did something between two samples; empty: nothing does."""
    seconds = max(after.time_s - before.time_s, 1e-9)
    found = []
    if set(before.cpu_s) != set(after.cpu_s) or not after.cpu_s:
        found.append("ranks come and go")  # the launcher is at work, not they
    if any(count != before.beats.get(rank) for rank, count in after.beats.items()):
        found.append("heartbeat")
    if after.log_bytes != before.log_bytes:
        found.append("log")
    if after.io_bytes - before.io_bytes > _BYTES * seconds:
        found.append("files and sockets")
    if after.wire_bytes - before.wire_bytes > _BYTES * seconds:
        found.append("network")
    if any(gpu.works for gpu in after.gpus):
        found.append("power")
    if after.helpers_cpu_s - before.helpers_cpu_s > _HELPER_CPU * seconds:
        found.append("CPU of helpers")
    busy = {rank for rank, used in after.cpu_s.items() if used - before.cpu_s.get(rank, 0.0) > _RANK_CPU * seconds}
    busy |= set(after.ready)  # on a machine that is overloaded a rank may get no tenth of a core
    if any(not spins(before, after, rank) for rank in busy):
        found.append("CPU")
    return tuple(found)


def spins(before: Sample, after: Sample, rank: int) -> bool:
    """Whether a busy rank only waits for its GPU, which takes a whole core: it stands where it stood, and the GPUs
    draw as little as at rest."""
    if not after.gpus or any(gpu.works for gpu in after.gpus):
        return False
    return rank in after.stacks and after.stacks[rank] == before.stacks.get(rank)


@dataclass(kw_only=True)
class Judge:
    """Follows one node's samples."""

    quiet_since_s: float | None = None
    """When the last sign of life was seen; None before the first sample with a rank."""
    last_signs: tuple[str, ...] = ()
    """What the last sign was."""
    _last: Sample | None = None
    _busy_since_s: float = 0.0

    def see(self, sample: Sample) -> float:
        """Seconds without any sign of life, now."""
        found = signs(self._last, sample) if self._last else ("start",)
        self._last = sample
        if found or self.quiet_since_s is None:
            self.quiet_since_s, self.last_signs = sample.time_s, found
        if set(found) - {"CPU"}:
            self._busy_since_s = sample.time_s
        return sample.time_s - self.quiet_since_s

    @property
    def doubt_s(self) -> float:
        """Seconds in which nothing but the CPU of ranks, which may only wait for a GPU, showed life."""
        return self._last.time_s - self._busy_since_s if self._last else 0.0


@dataclass(frozen=True, kw_only=True)
class Word:
    """What a node's watch says to the head's."""

    node: str
    quiet_s: float
    dumped: bool = False
    """Whether it has written down where its ranks are."""


@dataclass(kw_only=True)
class Council:
    """All nodes' words, on the head node: a job hangs only where none of its nodes does anything.

    Then every node first writes down where its ranks are, and only after that any of them ends its part: the end of
    one rank changes what all others see.
    """

    nodes: int
    bound_s: float
    _words: dict[str, tuple[float, Word]] = field(default_factory=dict)
    _dump_s: float | None = None

    def quiet_s(self, now_s: float) -> float:
        """Seconds without a sign of life on any node; fewer where one is not heard, for it may be at work."""
        quiet = min((word.quiet_s + now_s - heard_s for heard_s, word in self._words.values()), default=0.0)
        heard = [heard_s for heard_s, _ in self._words.values() if now_s - heard_s < _SILENT_S]
        return quiet if len(heard) == self.nodes else quiet / ALONE

    def hear(self, word: Word, now_s: float) -> str:
        """What that node is to do now: "watch" on, "dump", or "end" the job."""
        self._words[word.node] = (now_s, word)
        if self._dump_s is None and self.quiet_s(now_s) >= self.bound_s:
            self._dump_s = now_s
        if self._dump_s is None:
            return "watch"
        everybody = len(self._words) == self.nodes and all(told.dumped for _, told in self._words.values())
        return "end" if everybody or now_s - self._dump_s > _DUMP_S else "dump"


@dataclass(kw_only=True)
class Alone:
    """The decision of a node that hears nothing from the head: on its own, and later."""

    bound_s: float

    def hear(self, word: Word) -> str:
        """As `Council.hear`."""
        if word.quiet_s < ALONE * self.bound_s and not word.dumped:
            return "watch"
        return "end" if word.dumped else "dump"
