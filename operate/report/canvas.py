"""A matplotlib figure as inline SVG that follows the page: its colours are CSS variables, its text is text.

Every figure is drawn twice, for a wide page and for a phone; the style sheet shows one of the two. The bytes depend
on the data alone: ids come from a fixed salt, and no date and no version is written.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from labs.results import percentile
from operate.report.element import Child, add, el, printable
from operate.report.quantity import quantity, rounded, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
MEASURED, ROOF, SECOND, THIRD, BAD = "#010105", "#010106", "#010107", "#010108", "#010109"
SERIES = (MEASURED, SECOND, THIRD, INK, MUTED)
MARKERS = ("o", "s", "^", "D")
"""A series differs by marker as well as by colour."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--rule",
    PAPER: "--paper",
    MEASURED: "--measured",
    ROOF: "--roof",
    SECOND: "--second",
    THIRD: "--third",
    BAD: "--bad",
}
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a drawing function gets: the figure, its panels in reading order, and whether it is the phone's."""

    figure: "Figure"
    panels: "tuple[Axes, ...]"
    narrow: bool


def picture(
    name: str,
    draw: Callable[[Sheet], None],
    *,
    alt: str,
    caption: Iterable[Child],
    panels: int = 1,
    height: int = 400,
) -> Element:
    """A <figure> with a wide and a narrow drawing.

    `name` is unique on the page, `alt` says in words what the figure shows, `height` is the wide one's, in pixels.
    """
    drawings = [_drawing(f"{name}-{width}", draw, alt, panels, width, height) for width in ("wide", "narrow")]
    legend = el("figcaption")
    add(legend, *caption)
    return el("figure", *drawings, legend, id=f"figure-{name}")


def _drawing(name: str, draw: Callable[[Sheet], None], alt: str, panels: int, width: str, height: int) -> Element:
    from matplotlib import rc_context, rcParamsDefault  # slow to import, and only a report needs it
    from matplotlib.figure import Figure

    narrow = width == "narrow"
    rows, columns = (panels, 1) if narrow else (1, panels)
    pixels = (360, 290 * rows) if narrow else (960, height)
    settings = {key: value for key, value in rcParamsDefault.items() if key.split(".")[0] in _STYLED} | _STYLE
    settings |= {"font.size": 11.5 if narrow else 13, "svg.hashsalt": name}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has its own fonts for the text
        figure = Figure(figsize=(pixels[0] / 72, pixels[1] / 72), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        sheet = Sheet(figure=figure, panels=tuple(axes.flat), narrow=narrow)
        draw(sheet)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(written.getvalue(), name, alt, width)


def label(text: str) -> str:
    """`text` as a figure has room for it: 24 characters, none of them a control character."""
    kept = printable(text)
    return kept if len(kept) <= 24 else f"{kept[:23]}…"


_STYLED = ("axes", "figure", "font", "grid", "hatch", "legend", "lines", "markers", "patch", "path", "svg", "text",
           "xaxis", "xtick", "yaxis", "ytick", "hist", "boxplot", "errorbar", "scatter", "mathtext")  # fmt: skip
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # matplotlib brings it: the same layout on every machine
    "text.color": INK,
    "text.parse_math": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": "medium",
    "axes.titlecolor": MUTED,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 8,
    "legend.frameon": False,
    "legend.fontsize": "medium",
    "legend.labelcolor": MUTED,
    "legend.borderaxespad": 0.2,
}


def _inline(svg: str, name: str, alt: str, width: str) -> Element:
    """matplotlib's document as an element of the page."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith(("metadata", "style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
        if element.tag == "g":
            element.attrib.pop("id", None)  # axes_1 and the like: the same in every figure, and nothing refers to them
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        if "style" in element.attrib:
            element.set("style", _style(element.tag, element.attrib["style"]))
        element.text, element.tail = (element.text or "").strip("\n ") or None, None
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"class": width, "viewBox": box, "role": "img", "aria-labelledby": f"alt-{name}"})
    root.insert(0, el("title", alt, id=f"alt-{name}"))
    return root


def _style(tag: str, style: str) -> str:
    kept = [part for part in style.split("; ") if not (tag == "text" and part.startswith("font-family"))]
    text = "; ".join(kept)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def crowded(samples: Sequence[float]) -> float:
    """Where a histogram ends: the few slowest of many samples join its last bar, or the rest had no room."""
    return percentile(samples, 0.995) if len(samples) >= 200 else max(samples)


def log_axis(axis: Any, base: int, unit: str, ticks: int = 6) -> None:
    """A logarithmic axis whose ticks read as quantities; as KiB and MiB where the base is 2 and the unit is bytes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    scale("log", base=base)
    axis.set_major_locator(LogLocator(base=base, numticks=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: size(value) if base == 2 else tick(value, unit)))


def linear_axis(axis: Any, unit: str, ticks: int = 6, whole: bool = False) -> None:
    """A linear axis whose ticks read as quantities; `whole` for counts."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=ticks, integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, unit)))


def tick(value: float, unit: str) -> str:
    """A tick's label: no digit that says nothing, 10 GB/s rather than 10.0 GB/s."""
    if value == 0:
        return "0"
    number, _, rest = (quantity(value, unit) if unit else rounded(value)).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {rest}".strip()
