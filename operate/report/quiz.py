"""Guess first: the headline numbers of a run, asked for on the page and on the terminal before they are shown.

The page asks without a script: a section's measurement stays hidden, on a screen, while a question of it is open, and
a browser that cannot hide it shows it. A guess is judged by its order of magnitude.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element
from zlib import crc32

from labs.results import Measurement
from operate.report.element import el
from operate.report.folder import Part, load
from operate.report.headline import headlines
from operate.report.lessons import LESSONS
from operate.report.quantity import quantity, rounded, share

ASKED = 3
"""At most so many numbers of a workload."""
_CHOICES = 5
_GUESS = re.compile(r"\s*([0-9][0-9.,]*(?:e[+-]?\d+)?)\s*([^\d\s](?:.*\S)?)?\s*", re.IGNORECASE)
_SCALES = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "": 1.0,
           "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """One number to guess."""

    row: Measurement
    roof: str
    """What is known before, for example "at most 300 GB/s"; may be empty."""

    @property
    def answer(self) -> str:
        """The number, with its share of the roof."""
        held = "" if self.row.fraction is None else f", {share(self.row.fraction)} of the roof"
        return f"{quantity(self.row.value, self.row.unit)}{held}"

    def judged(self, guess: float) -> str:
        """What to tell somebody who guessed this, in the row's unit."""
        factor = max(guess / self.row.value, self.row.value / guess)
        if factor <= 1.25:
            return "spot on"
        much = f"{rounded(factor, 2)} × too {'much' if guess > self.row.value else 'little'}"
        return f"the right order, {much}" if factor < 10**0.5 else much


def questions_of(part: Part) -> list[Question]:
    """The numbers of one workload that are asked for."""
    rows = [(record, row) for record in part.records for row in record.measurements]
    chosen = [row for _, row in headlines(rows, ASKED) if row.value > 0] if rows else []
    return [Question(row=row, roof=_before(row)) for row in chosen]


def _before(row: Measurement) -> str:
    limit = row.roof or next(iter(row.others), None)
    if limit is None:
        return ""
    return f"{'no less than' if row.unit == 's' else 'at most'} {quantity(limit.value, row.unit)}"


def questions(part: Part) -> list[Element]:
    """The page's questions of one workload, and the line that stands where the measurement will be."""
    asked = [_asked(part, number, question) for number, question in enumerate(questions_of(part))]
    hint = "Guess, and the measurement appears when no question of this workload is open."
    return [*asked, el("p", hint, class_="locked small")] if asked else []


def _asked(part: Part, number: int, question: Question) -> Element:
    row, name = question.row, f"guess-{part.anchor}-{number}"
    legend = el("legend", el("strong", row.name), "? ", f"It is {question.roof}." if question.roof else "")
    choices = []
    for place, choice in enumerate(choices_of(row)):
        judged = question.judged(choice)
        said = f"{judged[0].upper()}{judged[1:]}: it is {question.answer}."
        choices += _choice(name, f"{place}", quantity(choice, row.unit, 1), said)
    choices += _choice(name, "none", "I would rather see it", f"It is {question.answer}.")
    return el("fieldset", legend, *choices, class_="ask")


def _choice(name: str, value: str, text: str, said: str) -> list[Element]:
    radio = el("input", type="radio", name=name, value=value, required="required")
    return [el("label", radio, text), el("span", said, class_="said")]


def choices_of(row: Measurement) -> list[float]:
    """Five orders of magnitude, the right one among them at a place that the row's name decides."""
    nearest = float(f"{row.value:.0e}")
    place = crc32(row.name.encode()) % _CHOICES
    return [nearest * 10.0 ** (at - place) for at in range(_CHOICES)]


def read_guess(text: str, unit: str) -> float:
    """A guess in the row's unit: "4 ms", "300 GB/s", "1.2k"; a bare number counts in the unit itself.

    Raises:
        ValueError: it is no positive number, or in another unit.
    """
    match = _GUESS.fullmatch(text)
    value = float(match[1].replace(",", "")) if match and match[1].count(".") < 2 else 0.0
    scale = _scale(match[2] or "", unit) if match else None
    if scale is None or not 0 < value * scale < math.inf:
        raise ValueError(
            f"guess={text.strip()!r} is no number in {unit or 'numbers'}: write for example {_example(unit)}"
        )
    return value * scale


def _scale(given: str, unit: str) -> float | None:
    if given in ("", unit):
        return 1.0
    for prefix, scale in _SCALES.items():
        if given == prefix + unit or (prefix and given == prefix):
            return scale
    return None


def _example(unit: str) -> str:
    return {"s": "4 ms", "FLOP/s": "50 TFLOP/s", "B/s": "300 GB/s", "B": "2 GB"}.get(unit, f"20 {unit}".strip())


def ask(folder: Path, read: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Ask for the headline numbers of a run and show each after its guess; the end of the input shows the rest.

    `read` takes a prompt and gives a line, as `input` does.

    Raises:
        Problem: the folder is no run's.
    """
    factors: list[float] = []
    parts = [(part, asked) for part in load(folder).parts if (asked := questions_of(part))]
    say(f"{sum(len(asked) for _, asked in parts)} numbers to guess, with their unit; an empty line shows the number")
    going = True
    for part, asked in parts:
        lesson = LESSONS.get(part.name)
        say(f"\n{lesson.title if lesson else part.name}")
        if lesson:
            say(lesson.physics)
        for question in asked:
            guess, going = _guess(question, read, say) if going else (None, False)
            say(f"  {question.row.name}: {question.answer}{_verdict(question, guess)}")
            factors += [] if guess is None else [max(guess / question.row.value, question.row.value / guess)]
    say("\n".join(("", *_score(factors))))


def _guess(question: Question, read: Callable[[str], str], say: Callable[[str], None]) -> tuple[float | None, bool]:
    """A guess, or None for none, and whether there is more input."""
    row = question.row
    known = f" ({question.roof})" if question.roof else ""
    while True:
        try:
            text = read(f"  {row.name}{known}, for example {_example(row.unit)}? ")
        except EOFError:
            return None, False
        if not text.strip():
            return None, True
        try:
            return read_guess(text, row.unit), True
        except ValueError as error:
            say(f"  {error}")


def _verdict(question: Question, guess: float | None) -> str:
    return "" if guess is None else f" – {question.judged(guess)}"


def _score(factors: list[float]) -> Iterator[str]:
    if not factors:
        yield "no guess was made"
        return
    near, order = sum(factor <= 2 for factor in factors), sum(factor <= 10 for factor in factors)
    yield f"{len(factors)} guesses: {near} within a factor of two, {order} within ten"
