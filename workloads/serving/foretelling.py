"""What a load should come to, said before it is measured: what physics allows, and what one client's figures foretell.

One client shows a request served alone: S seconds whole, T of them to the first token. From there on
- a server that takes requests one after another serves n clients no faster than one; each waits for the others. With
  requests due at known times each one's wait is Lindley's recursion, exactly;
- a server that batches perfectly, its steps bound by memory, serves n clients n times as fast and lets nobody wait.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from labs.models import Model
from labs.results import Roof
from labs.roofs import Bound, inverse, memory_time_bound, time_bound
from workloads.device import TORCH_DTYPES, Device
from workloads.serving.arrivals import waits
from workloads.serving.driving import Demand, Level
from workloads.serving.timeline import good


@dataclass(frozen=True, kw_only=True)
class Physics:
    """What the device allows a model, whoever serves it."""

    device: Device
    model: Model
    dtype: str
    demand: Demand
    memory: Roof | None
    """Measured ceiling in B/s; None where nothing told."""

    @property
    def first(self) -> Bound:
        """Fewest seconds to the first token."""
        size = self._size
        return time_bound(self.device.name, self.device.accelerator, self.dtype,
                          self.model.prefill_flops(self.demand.prompt),
                          self.model.prefill_bytes(self.demand.prompt, weight_size=size, kv_size=size))  # fmt: skip

    @property
    def token(self) -> Bound:
        """Fewest seconds per further token."""
        return memory_time_bound(self.device.name, self.device.accelerator, self._step_bytes(1))

    @property
    def whole(self) -> Bound:
        """Fewest seconds for a request."""
        if not (self.first.roof and self.token.roof):
            return self.token
        return Bound(Roof(value=self.first.roof.value + (self.demand.new_tokens - 1) * self.token.roof.value,
                          source=f"prefill and steps, {self.token.roof.source}"))  # fmt: skip

    def rate(self, clients: int) -> Bound:
        """Most tokens per second with so many at once: their decode steps shared, and prefills for free."""
        return inverse(memory_time_bound(self.device.name, self.device.accelerator, self._step_bytes(clients)), clients)

    def measured(self, clients: int = 1) -> tuple[Roof, ...]:
        """Fewest seconds of a decode step by the measured ceiling; empty where there is none."""
        if self.memory is None:
            return ()
        return (Roof(value=self._step_bytes(clients) / self.memory.value, source=self.memory.source),)

    def measured_rate(self, clients: int) -> tuple[Roof, ...]:
        """`rate` by the measured ceiling."""
        return tuple(Roof(value=clients / step.value, source=step.source) for step in self.measured(clients))

    def _step_bytes(self, batch: int) -> int:
        context = self.demand.prompt + self.demand.new_tokens // 2
        return self.model.decode_bytes(context, batch=batch, weight_size=self._size, kv_size=self._size)

    @property
    def _size(self) -> int:
        return int(TORCH_DTYPES[self.dtype].itemsize)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Medians of a request that had the server to itself."""

    first_s: float
    whole_s: float
    token_rate: float
    """Of one client that asks again and again."""
    batching: bool
    """Whether the server shares steps between requests."""

    @classmethod
    def of(cls, level: Level, batching: bool) -> "Alone":
        """From the level of one client."""
        answered = good(level.timelines)
        return cls(first_s=statistics.median(line.ttft_s for line in answered),
                   whole_s=statistics.median(line.e2e_s for line in answered),
                   token_rate=level.token_rate, batching=batching)  # fmt: skip

    @property
    def why(self) -> str:
        """What is foretold from what."""
        how = "steps shared at no cost" if self.batching else "one request after another"
        return f"from one client's figures, {how}"

    def rate(self, clients: int) -> Roof:
        """Tokens per second of so many clients."""
        return Roof(value=self.token_rate * (clients if self.batching else 1), source=self.why)

    def first(self, clients: int) -> Roof:
        """Time to first token of so many clients, in the steady state."""
        wait_s = 0.0 if self.batching else (clients - 1) * self.whole_s
        return Roof(value=wait_s + self.first_s, source=self.why)

    def first_due(self, due_s: Sequence[float]) -> Roof:
        """Median time to first token of requests due at those times."""
        if self.batching or not due_s:
            return Roof(value=self.first_s, source=self.why)
        wait_s = statistics.median(waits(due_s, self.whole_s))
        return Roof(value=wait_s + self.first_s, source=f"{self.why}, each due as it was")
