"""The roofline: FLOP/s over arithmetic intensity, both logarithmic, one line for each dtype whose roof is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, INK, MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, label, log_axis, picture
from operate.report.quantity import quantity, rounded, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BYTES = {"fp64": 8, "fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class _Point:
    dtype: str
    series: str
    """The dtype, and the regime where it is not a burst."""
    node: str
    device: str
    name: str
    intensity: float
    """FLOP per byte that must move."""
    value: float
    """FLOP/s."""
    roof: float | None
    """FLOP/s that the device allows at this intensity."""
    suspect: bool


@dataclass(frozen=True, kw_only=True)
class _Line:
    """min(peak, bandwidth × intensity), as far as the points' roofs tell it."""

    label: str
    peak: float | None
    """FLOP/s; None where every point lies on the slope."""
    bandwidth: float | None
    """B/s; None where no point lies on the slope."""

    def at(self, intensity: float) -> float:
        """FLOP/s allowed at this intensity."""
        slope = math.inf if self.bandwidth is None else self.bandwidth * intensity
        return min(math.inf if self.peak is None else self.peak, slope)

    @property
    def ridge(self) -> float | None:
        """FLOP/B where memory stops being the bound."""
        return None if self.peak is None or self.bandwidth is None else self.peak / self.bandwidth


def roofline(records: Sequence[Record]) -> list[Element]:
    """The figure, or nothing where no row has an intensity."""
    points = [point for record in records for point in _points(record)]
    if not points:
        return []
    lines = _lines(points)
    best = max(points, key=lambda point: point.value)
    rates = [row for record in records for row in record.measurements if row.unit == "FLOP/s"]
    reasons = dict.fromkeys(row.no_roof_because for row in rates if not row.roof)
    note = "" if lines else f" The roof is not drawn, for it is unknown: {'; '.join(reasons)}."
    caption = f"FLOP/s over arithmetic intensity. Highest: {quantity(best.value, 'FLOP/s')} at {best.name}.{note}"

    def draw(sheet: Sheet) -> None:
        _draw(sheet, points, lines)

    return [picture("roofline", draw, alt=_alt(points, lines, best), caption=[caption], height=430)]


def _points(record: Record) -> list[_Point]:
    found = []
    for row in record.measurements:
        intensity = _intensity(row)
        swept = row.config.get("kind") == "wave"  # has a figure of its own, and would be one blot in this
        if intensity is not None and row.unit == "FLOP/s" and row.value > 0 and not swept:
            point = _Point(
                dtype=label(str(row.config.get("dtype", ""))), series=_series(row), name=row.name,
                node=label(record.node), device=label(record.machine.device), intensity=intensity, value=row.value,
                roof=row.roof.value if row.roof else None, suspect=row.suspect,
            )  # fmt: skip
            found.append(point)
    return found


def _series(row: Measurement) -> str:
    regime = str(row.config.get("regime", "burst"))
    return label(f"{row.config.get('dtype', '')} {'' if regime == 'burst' else regime}".strip())


def _intensity(row: Measurement) -> float | None:
    """FLOP per byte: as the workload says, or from the shape when every matrix moves once."""
    given = row.config.get("intensity")
    if isinstance(given, int | float) and given > 0:
        return float(given)
    sizes = [row.config.get(name) for name in ("m", "n", "k")]
    width = _BYTES.get(str(row.config.get("dtype")))
    if width is None or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    m, n, k = (int(size) for size in sizes if size)
    return 2 * m * n * k / (width * (m * k + k * n + m * n))


def _lines(points: Sequence[_Point]) -> list[_Line]:
    """One line for each device and dtype; those that coincide are drawn once."""
    found: dict[tuple[float | None, float | None], list[str]] = {}
    several = len({point.device for point in points}) > 1
    for device, dtype in dict.fromkeys((point.device, point.dtype) for point in points):
        mine = [(point.intensity, point.roof) for point in points if (point.device, point.dtype) == (device, dtype)]
        bounded = [(intensity, roof) for intensity, roof in mine if roof]
        if bounded:
            label = f"{device} {dtype}" if several else dtype
            found.setdefault(_limits(bounded), []).append(label.strip())
    return [_Line(label=", ".join(labels), peak=peak, bandwidth=rate) for (peak, rate), labels in found.items()]


def _limits(bounded: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Peak and bandwidth behind a device's roofs, given as (intensity, roof): each roof is the lower of the two."""
    steepest = max(roof / intensity for intensity, roof in bounded)
    flat = [roof for intensity, roof in bounded if roof / intensity < 0.999 * steepest]
    if flat and max(flat) < 1.001 * min(roof for _, roof in bounded):
        return float(f"{max(flat):.6g}"), None
    if not flat and len({intensity for intensity, _ in bounded}) == 1:
        return float(f"{bounded[0][1]:.6g}"), None
    return (float(f"{max(flat):.6g}") if flat else None), float(f"{steepest:.6g}")


def _draw(sheet: Sheet, points: Sequence[_Point], lines: Sequence[_Line]) -> None:
    (axes,) = sheet.panels
    ridges = [line.ridge for line in lines if line.ridge]
    left = min([point.intensity for point in points] + [ridge / 4 for ridge in ridges]) / 1.6
    right = max([point.intensity for point in points] + [ridge * 4 for ridge in ridges]) * 1.6
    log_axis(axes.xaxis, 10, "", ticks=4 if sheet.narrow else 7)
    log_axis(axes.yaxis, 10, "FLOP/s", ticks=5)
    axes.set_xlim(left, right)
    _draw_lines(axes, lines, left, right)
    kinds = list(dict.fromkeys(point.series for point in points))
    nodes = list(dict.fromkeys(point.node for point in points))
    for (kind, series), (place, node) in product(enumerate(kinds), enumerate(nodes)):
        mine = [point for point in points if (point.series, point.node) == (series, node)]
        style = {"markerfacecolor": "none", "markersize": 8 + 3 * place} if place else {"markeredgecolor": PAPER}
        axes.plot(
            [point.intensity for point in mine], [point.value for point in mine], MARKERS[kind % len(MARKERS)],
            color=SERIES[kind % len(SERIES)], markeredgewidth=1.8 if place else 1, zorder=4,
            label=f"{series} {node}".strip() if len(nodes) > 1 else series, **style,
        )  # fmt: skip
    suspects = [point for point in points if point.suspect]
    axes.plot([point.intensity for point in suspects], [point.value for point in suspects], "o", markersize=16,
              markerfacecolor="none", markeredgecolor=BAD, markeredgewidth=2, zorder=5)  # fmt: skip
    best = max(points, key=lambda point: point.value)
    right_half = best.intensity > (left * right) ** 0.5
    axes.annotate(quantity(best.value, "FLOP/s"), (best.intensity, best.value), xytext=(0, -9 if lines else 9),
                  textcoords="offset points", ha="right" if right_half else "left", va="top" if lines else "bottom",
                  color=INK)  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, high * 2)
    axes.set_xlabel("arithmetic intensity, FLOP per byte")
    axes.set_title("FLOP/s")
    if not lines:
        note = "the roof is unknown: measured points only"
        axes.text(0.99, 0.04, note, transform=axes.transAxes, ha="right", color=MUTED)
    if len(kinds) * len(nodes) > 1:
        axes.legend(loc="lower right" if lines else "upper left")


def _draw_lines(axes: "Axes", lines: Sequence[_Line], left: float, right: float) -> None:
    for line in lines:
        turns = [ridge for ridge in (line.ridge,) if ridge and left < ridge < right]
        edges = [left, *turns, right]
        axes.plot(edges, [line.at(edge) for edge in edges], color=ROOF, linewidth=2.5, zorder=2)
        if line.peak:
            axes.annotate(f"{line.label} roof {quantity(line.peak, 'FLOP/s')}".strip(), (right, line.peak),
                          xytext=(0, 5), textcoords="offset points", ha="right", va="bottom", color=ROOF)  # fmt: skip
    for rate in dict.fromkeys(line.bandwidth for line in lines if line.bandwidth):
        end = min(line.ridge or right for line in lines if line.bandwidth == rate)
        if end > left * 4:
            middle = (left * end) ** 0.5
            axes.annotate(f"memory {quantity(rate, 'B/s')}", (middle, rate * middle), xytext=(-8, 4),
                          textcoords="offset points", ha="right", va="bottom", color=ROOF)  # fmt: skip


def _alt(points: Sequence[_Point], lines: Sequence[_Line], best: _Point) -> str:
    low, high = min(point.intensity for point in points), max(point.intensity for point in points)
    text = f"Roofline with {len(points)} points between {rounded(low)} and {rounded(high)} FLOP per byte. "
    text += f"Highest {quantity(best.value, 'FLOP/s')} at {best.name}"
    text += f", {share(best.value / best.roof)} of its roof. " if best.roof else ". "
    for line in lines:
        peak = [quantity(line.peak, "FLOP/s")] if line.peak else []
        slope = [f"memory {quantity(line.bandwidth, 'B/s')}"] if line.bandwidth else []
        text += f"Roof {line.label}: {', '.join(peak + slope)}. "
    return text.strip() if lines else text + "No roof is drawn, for the device's is unknown."
