"""A load on an endpoint: so many clients that wait for their answers, or users who come when they come."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.serving import tokens
from workloads.serving.client import Target, ask
from workloads.serving.timeline import Timeline, good


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What every request asks for."""

    prompt: int
    """Tokens."""
    new_tokens: int
    seed: int

    def text(self, number: int) -> str:
        """The prompt of request `number`: all differ, so that no server answers from a cache of prefixes."""
        return tokens.prompt(self.prompt, self.seed * 1_000_003 + number)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One load, and what came of it."""

    kind: str
    """"closed" or "open"."""
    load: float
    """Clients, or requests a second."""
    begin_s: float
    """When the window began, on the timelines' clock."""
    window_s: float
    """Requests came for so long."""
    timelines: tuple[Timeline, ...]

    @property
    def name(self) -> str:
        """As rows and figures say it."""
        if self.kind == "closed":
            return f"{self.load:g} client{'s' if self.load > 1 else ''}"
        return f"{self.load:.3g} requests/s"

    @property
    def wall_s(self) -> float:
        """From the window's begin to the last text, and in an open loop at least the window."""
        last_s = max((line.texts_s[-1] for line in good(self.timelines)), default=self.begin_s)
        return max(last_s - self.begin_s, self.window_s if self.kind == "open" else 0.0)

    @property
    def token_rate(self) -> float:
        """Completion tokens per second, as `usage` counts them, over `wall_s`."""
        return self._rate(sum(line.tokens for line in good(self.timelines)))

    @property
    def request_rate(self) -> float:
        """Answered requests per second over `wall_s`."""
        return self._rate(len(good(self.timelines)))

    @property
    def late_s(self) -> float:
        """How far the client fell behind at most: sent after due."""
        return max((line.sent_s - line.due_s for line in self.timelines), default=0.0)

    def _rate(self, count: int) -> float:
        return count / self.wall_s if self.wall_s else 0.0


def closed(target: Target, demand: Demand, clients: int, window_s: float, first: int = 0) -> Level:
    """`clients` that each ask again as soon as they are answered, until `window_s` have passed."""

    begin_s = time.perf_counter()

    async def drive() -> list[Timeline]:
        numbers, found = iter(range(first, 1 << 62)), []

        async def one() -> None:
            while (now_s := time.perf_counter()) - begin_s < window_s:
                line = await ask(target, demand.text(next(numbers)), demand.new_tokens, now_s)
                found.append(line)
                if line.error:
                    await asyncio.sleep(0.05)  # a server that refuses at once is not to be asked a thousand times

        await asyncio.gather(*(one() for _ in range(clients)))
        return found

    return Level(kind="closed", load=clients, begin_s=begin_s, window_s=window_s, timelines=tuple(asyncio.run(drive())))


def opened(target: Target, demand: Demand, rate: float, due_s: Sequence[float], window_s: float, first: int = 0
           ) -> Level:  # fmt: skip
    """Requests at the times `due_s`, whatever became of those before."""

    begin_s = time.perf_counter()

    async def drive() -> list[Timeline]:
        async def one(number: int, after_s: float) -> Timeline:
            await asyncio.sleep(begin_s + after_s - time.perf_counter())
            return await ask(target, demand.text(first + number), demand.new_tokens, begin_s + after_s)

        return await asyncio.gather(*(one(number, after_s) for number, after_s in enumerate(due_s)))

    return Level(kind="open", load=rate, begin_s=begin_s, window_s=window_s, timelines=tuple(asyncio.run(drive())))
