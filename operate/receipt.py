"""The receipt: what a lab was estimated to cost, what it cost, what it had, and the proof that nothing is left."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from labs.prices import dollars
from operate import laptop
from operate.sweep import Found, Sweep

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """How a lab ended."""

    run: str
    """The run it belongs to; "" where the lab ran nothing."""
    stack: str
    region: str
    started: str
    """ISO 8601 UTC, when the stack was created; "" where the stack was gone already."""
    ended: str
    """ISO 8601 UTC, when the last look found what it found; both by the account's clock."""
    usd_per_hour: float | None
    """The price that the costs are counted with, frozen when the lab was first seen whole; None: not known."""
    estimate_usd: float | None
    """That price for `planned_hours`."""
    actual_usd: float | None
    """That price for as long as each thing lived; on spot at most this."""
    created: tuple[Found, ...]
    """What the lab had when its end began."""
    sweep: Sweep
    """What the last look found."""
    planned_hours: float | None = None
    """From the stack's creation to the deadline that it had when the price was frozen."""
    lived_hours: float | None = None
    """From the stack's creation to its end."""
    frozen: str = ""
    """ISO 8601 UTC, when the price was frozen; "" where it was not, and the things are priced as of the end."""
    lines: tuple[Mapping[str, Any], ...] = ()
    """What the price is made of, as `labs.prices.Line`."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the amounts."""
    refused: tuple[str, ...] = field(default=())
    """What AWS refused in the last step, and why the teardown gave up if it did."""

    @property
    def residual_usd_per_hour(self) -> float | None:
        """What still bills; None, unknown, where that could not be told."""
        return self.sweep.residual_usd_per_hour

    @property
    def difference_percent(self) -> float | None:
        """How far the actual amount is from the estimate; None where one of them is not known, or is nothing."""
        if self.estimate_usd is None or self.actual_usd is None or not self.estimate_usd:
            return None
        return (self.actual_usd - self.estimate_usd) / self.estimate_usd * 100

    @property
    def exit_code(self) -> int:
        """0 only when nothing is left, everything was looked at, and so the residual is exactly 0."""
        return self.sweep.exit_code

    def as_json(self) -> dict[str, Any]:
        """What receipt.json holds; an unknown amount is null."""
        document = {"schema": SCHEMA, **asdict(self)}
        swept: Mapping[str, Any] = document.pop("sweep")
        return document | {name: swept[name] for name in ("left", "standing", "suspects", "not_looked_at")} | {
            "difference_percent": self.difference_percent,
            "residual_usd_per_hour": self.residual_usd_per_hour, "clean": self.sweep.clean,
        }  # fmt: skip

    def write(self, folder: Path) -> Path:
        """Write receipt.json, whole or not at all, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "receipt.json"
        laptop.write(path, json.dumps(self.as_json(), indent=1) + "\n")
        return path

    def render(self) -> Group:
        """For the terminal: a small table, what is left if anything is, and the closing line."""
        shown = Table(show_header=False, title=f"Receipt of {self.stack}", title_justify="left")
        times = f"{self.started} – {self.ended}" if self.started else f"– {self.ended}"
        kinds = {item.kind for item in self.created}
        counts = ", ".join(f"{sum(item.kind == kind for item in self.created)} {kind}" for kind in sorted(kinds))
        for name, value in (
            ("time", times),
            ("price", f"{dollars(self.usd_per_hour)}/h" + (f", frozen {self.frozen}" if self.frozen else "")),
            ("estimate", self._amount(self.estimate_usd, self.planned_hours, "planned")),
            ("actual", self._amount(self.actual_usd, self.lived_hours, "lived") + self._difference()),
            ("had", counts or "nothing"),
            ("left", "nothing" if not self.sweep.left else f"{len(self.sweep.left)} things"),
        ):
            shown.add_row(name, value)
        parts: list[Any] = [shown]
        if self.sweep.left:
            parts.append(self.sweep.table())
        said = (*(f"refused: {line}" for line in self.refused), *(f"note: {line}" for line in self.notes))
        lines = [*said, *self.sweep.lines()]
        style = "bold green" if self.sweep.clean else "bold red"
        parts += [Text(line) for line in lines[:-1]] + [Text(lines[-1], style=style)]
        return Group(*parts)

    def _amount(self, usd: float | None, hours: float | None, how: str) -> str:
        return dollars(usd) if hours is None else f"{dollars(usd)} for {hours:.2f} h {how}"

    def _difference(self) -> str:
        percent = self.difference_percent
        return "" if percent is None else f", {percent:+.1f} % of the estimate"
