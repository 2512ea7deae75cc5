"""The rows of a measurement that is still going on, kept so that ending it too early does not lose them."""

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from labs.results import Measurement, Record
from workloads.device import Device
from workloads.record import Surroundings
from workloads.sensors import Reading, describe


class Draft(list[Measurement]):
    """The rows so far. Where ROOFLAB_DRAFTS names a folder, all of them lie in it as soon as there is one more, as a
    record that says that it is no whole one. A benchmark that ends what takes too long sets it; a lab's run does not:
    there a record says that its workload was done.
    """

    def __init__(self, workload: str, config: Any, device: Device, within: Surroundings) -> None:
        """`config` is the workload's own frozen dataclass."""
        super().__init__()
        folder = os.environ.get("ROOFLAB_DRAFTS")
        self._folder = Path(folder) if folder else None
        self._record = Record(
            workload=workload, measurements=(), config=asdict(config), run=within.run, lab=within.lab, node=within.node,
            nodes=within.nodes, git_commit=within.commit, usd_per_hour=within.usd_per_hour,
            machine=describe(device, devices=1, reading=Reading(), instance_type=within.instance_type, libraries=()),
        )  # fmt: skip

    def append(self, row: Measurement) -> None:
        """One more."""
        self.extend((row,))

    def extend(self, rows: Iterable[Measurement]) -> None:
        """Several more."""
        super().extend(rows)
        if self._folder and self:
            count = f"{len(self)} row{'s' * (len(self) > 1)}"
            note = f"unfinished: ended after {count}, before its checks of the whole and its notes"
            replace(self._record, measurements=tuple(self), notes=(note,)).write(self._folder)

    def __iadd__(self, rows: Iterable[Measurement]) -> Self:  # type: ignore[override,misc]  # as list's own, but kept
        """Several more."""
        self.extend(rows)
        return self
