"""Where a step's time went, from torch's profiler: arithmetic, communication that nothing hides, and neither.

On a GPU the kernels tell: NCCL's are communication, all others arithmetic. On a CPU the operators of the rank's own
thread are arithmetic, except where they start a collective or wait for one; a collective's own time on gloo's threads
is communication. What both cover is hidden communication; what neither covers is idle: Python, launches, waiting.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from labs.results import Span
from workloads.device import Device
from workloads.parallel.intervals import Stretches, both, clip, coarse, length, union, without

_STEP = "rooflab step"
_STRIP_PARTS = 400
"""A strip's shortest stretch is this share of the step."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """One rank's step, in seconds; a mean over the profiled steps."""

    step_s: float
    compute_s: float
    hidden_s: float
    """Communication under arithmetic: it is in `compute_s`."""
    exposed_s: float
    """Communication with nothing else going on."""
    strip: dict[str, Stretches]
    """The last step: when there was arithmetic ("compute") and communication, in seconds from its begin."""

    @property
    def idle_s(self) -> float:
        """The rest."""
        return self.step_s - self.compute_s - self.exposed_s

    @property
    def overlap(self) -> float | None:
        """Share of the communication that arithmetic hides; None where there is none."""
        together = self.hidden_s + self.exposed_s
        return self.hidden_s / together if together else None


def breakdown_of(step: Callable[[], object], steps: int, device: Device) -> Breakdown:
    """Run `step` so often under the profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes to stderr when it starts and stops
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            with record_function(_STEP):
                step()
                device.synchronize()
    return fold(profiler.events(), device.cuda)


def fold(events: Sequence[Any], cuda: bool) -> Breakdown:
    """The profiler's events as one breakdown."""
    windows = [event for event in events if event.name == _STEP and event.device_type == DeviceType.CPU]
    assert windows, "the profiler saw no step"
    compute, talk = _kernels(events) if cuda else _operators(events, windows[0].thread)
    steps = [_one(compute, talk, event.time_range.start * 1e-6, event.time_range.end * 1e-6) for event in windows]
    count = len(steps)
    return Breakdown(
        step_s=sum(step.step_s for step in steps) / count, compute_s=sum(step.compute_s for step in steps) / count,
        hidden_s=sum(step.hidden_s for step in steps) / count, exposed_s=sum(step.exposed_s for step in steps) / count,
        strip=steps[-1].strip,
    )  # fmt: skip


def _one(compute: Stretches, talk: Stretches, begin: float, end: float) -> Breakdown:
    busy, sending = clip(compute, begin, end), clip(talk, begin, end)
    hidden_s, gap = length(both(busy, sending)), (end - begin) / _STRIP_PARTS
    strip = {
        name: [(round(left - begin, 7), round(right - begin, 7)) for left, right in coarse(stretches, gap)]
        for name, stretches in (("compute", busy), ("communication", sending))
    }
    return Breakdown(step_s=end - begin, compute_s=length(busy), hidden_s=hidden_s,
                     exposed_s=length(sending) - hidden_s, strip=strip)  # fmt: skip


def _kernels(events: Sequence[Any]) -> tuple[Stretches, Stretches]:
    """What ran on the GPU: arithmetic (copies with it), and NCCL."""
    ran = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    talk = [event for event in ran if event.name.lower().startswith("nccl")]
    rest = [event for event in ran if not event.name.lower().startswith("nccl")]
    return _stretches(rest), _stretches(talk)


def _operators(events: Sequence[Any], thread: int) -> tuple[Stretches, Stretches]:
    """What ran on the CPU: the step's own thread's operators, and gloo."""
    mine = [event for event in events if event.thread == thread and event.name.startswith("aten::")]
    talk = [event for event in events if event.name.startswith(("gloo:", "c10d::", "_c10d_functional::"))]
    own = _stretches([event for event in talk if event.thread == thread])
    return without(_stretches(mine), own), _stretches(talk)


def _stretches(events: Sequence[Any]) -> Stretches:
    return union((event.time_range.start * 1e-6, event.time_range.end * 1e-6) for event in events)


def shares(every: Sequence[Breakdown]) -> dict[str, float]:
    """Of a step, over all ranks: the share of arithmetic, of exposed communication, of neither; and the overlap."""
    whole = sum(one.step_s for one in every)
    talk = sum(one.hidden_s + one.exposed_s for one in every)
    return {
        "compute": sum(one.compute_s for one in every) / whole,
        "exposed": sum(one.exposed_s for one in every) / whole,
        "idle": sum(one.idle_s for one in every) / whole,
        "overlap": sum(one.hidden_s for one in every) / talk if talk else 0.0,
    }


def spans(every: Sequence[Breakdown], median_s: float, cuda: bool) -> tuple[Span, ...]:
    """The median step taken apart by those shares, longest first."""
    share = shares(every)
    profiled_s = sum(one.step_s for one in every) / len(every)
    how = (f"measured: share of further steps under the profiler, mean over ranks "
           f"({profiled_s * 1e3:.1f} ms a step under it)")  # fmt: skip
    rest = "idle: launches and waiting" if cuda else "idle: Python and waiting"
    names = {"compute": "arithmetic", "exposed": "exposed communication", "idle": rest}
    found = [Span(name=name, seconds=share[key] * median_s, how=how) for key, name in names.items()]
    return tuple(sorted(found, key=lambda span: -span.seconds))
