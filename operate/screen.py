"""What a verb shows while it works: plain lines always, a moving line only on a terminal."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from operate.problem import Problem

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]")


class Screen:
    """The one place that verbs print through."""

    def __init__(self, *, json: bool = False) -> None:
        """With `json`, stdout is left to the answer and everything else goes to stderr."""
        piped = not (sys.stderr if json else sys.stdout).isatty()
        self.console = Console(stderr=json, highlight=False, soft_wrap=True, width=160 if piped else None)
        self._moving = ""

    def note(self, text: str) -> None:
        """One line of ours."""
        self.console.print(Text(text), soft_wrap=True)

    def aside(self, text: str, *, urgent: bool = False) -> None:
        """One line that is there to be seen and not to be read; `urgent`: not to be missed."""
        self.console.print(Text(text, style="bold yellow" if urgent else "dim"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that must not be missed, on stderr."""
        if self.console.is_terminal:
            self.console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)
        else:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def output(self, node: str, line: str) -> None:
        """One line that a node's workload wrote; control characters are taken out."""
        colour = _COLOURS[int(node[4:]) % len(_COLOURS)] if node[4:].isdecimal() else "white"
        text = Text.assemble((f"[{node}] ", colour), _CONTROL.sub("", line))
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def moving(self, tell: Callable[[], str]) -> Iterator[None]:
        """Show what `tell` says below everything else and refresh it; nothing where stdout is no terminal."""
        if not self.console.is_terminal:
            yield
            return
        spinner = Spinner("dots", text="")

        def refresh() -> Spinner:
            spinner.update(text=Text(tell()))
            return spinner

        with Live(get_renderable=refresh, console=self.console, refresh_per_second=8, transient=True):
            yield

    @contextmanager
    def stage(self, doing: str, *, interrupted: str = "run the same command again") -> Iterator[Callable[[str], None]]:
        """One step of a verb, with its elapsed time. Yields a function that says more about where it is.

        Raises:
            Problem: Ctrl-C; `interrupted` is the remedy, exit code 130.
        """
        began, detail = time.monotonic(), ""

        def say(text: str) -> None:
            nonlocal detail
            if text != detail and not self.console.is_terminal:
                self.note(f"{doing}: {text}")
            detail = text

        def tell() -> str:
            return f"{doing} {detail} {clock(time.monotonic() - began)}"

        try:
            with self.moving(tell):
                yield say
        except KeyboardInterrupt:
            raise Problem(f"interrupted while {doing}", interrupted, exit_code=130) from None


def clock(seconds: float) -> str:
    """For example "3:05" or "1:00:00"."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes:0>5}" if whole >= 3600 else minutes
