"""What one streamed answer felt like: the four latencies, and whether they kept within what was promised.

TTFT  time to first token: from when the request was due to the first text that is not empty.
TPOT  time per output token: (E2E − TTFT) ÷ (N − 1), with N from the server's `usage`: a chunk may hold several tokens,
      and text counted again by a tokenizer does not give the same number.
ITL   inter-token latency: every gap between two pieces of text, what a reader sees.
E2E   from when the request was due to its last text.

Due, not sent: a client that falls behind would otherwise hide the wait that it causes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One request as the client saw it; times are seconds of one clock."""

    due_s: float
    """When it had to be sent."""
    sent_s: float
    texts_s: tuple[float, ...] = ()
    """When each piece of text arrived that was not empty."""
    prompt_tokens: int = 0
    """As `usage` says."""
    tokens: int = 0
    """Completion tokens, as `usage` says."""
    error: str = ""
    """Why it has no answer; its times are then not looked at."""

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.texts_s[0] - self.due_s

    @property
    def e2e_s(self) -> float:
        """Time to the last text."""
        return self.texts_s[-1] - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token; None for an answer of one token, which has no further one."""
        return None if self.tokens < 2 else (self.e2e_s - self.ttft_s) / (self.tokens - 1)

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Inter-token latencies."""
        return tuple(after - before for before, after in pairwise(self.texts_s))

    @property
    def decode_rate(self) -> float | None:
        """Tokens per second after the first."""
        return None if not self.tpot_s else 1 / self.tpot_s

    @property
    def whole_rate(self) -> float:
        """Tokens per second over the whole request, the wait for the first included."""
        return self.tokens / self.e2e_s


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a user is promised of each request."""

    ttft_s: float
    tpot_s: float

    def kept(self, timeline: Timeline) -> bool:
        """Whether both bounds held; a failed request never counts as good."""
        if timeline.error:
            return False
        return timeline.ttft_s <= self.ttft_s and (timeline.tpot_s or 0.0) <= self.tpot_s


def good(timelines: Sequence[Timeline]) -> list[Timeline]:
    """Those that have an answer."""
    return [timeline for timeline in timelines if not timeline.error]


def errors(timelines: Sequence[Timeline]) -> dict[str, int]:
    """How often each thing went wrong."""
    found: dict[str, int] = {}
    for timeline in timelines:
        if timeline.error:
            found[timeline.error] = found.get(timeline.error, 0) + 1
    return found
