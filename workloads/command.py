"""How a workload starts and ends: flags, exit codes, one line on stderr for whatever went wrong.

Exit codes: 0 every check held and the record is written; 1 a check failed or the memory did not suffice; 2 wrong
flags or environment; 130 Ctrl-C; 143 SIGTERM; of workloads that survive it also those of `labs.survival`. A record is
written whole at the end, or not at all.
"""

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from workloads.device import Device, find_device
from workloads.record import Surroundings, surroundings

C = TypeVar("C")


class CheckFailed(Exception):
    """A result is wrong, so its speed means nothing. The text names the check and what it found."""


class Ended(Exception):
    """The workload ends here with an exit code of its own. The text is its last line; empty: another rank says it."""

    def __init__(self, line: str, code: int) -> None:
        """`code` as this module lists them, or as its workload does."""
        super().__init__(line)
        self.code = code


class Parser(argparse.ArgumentParser):
    """The flags that all workloads share; a wrong flag is one line on stderr and exit code 2."""

    def __init__(self, name: str, description: str | None) -> None:
        """`description` is the workload's docstring; `--help` shows it as it stands."""
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=name, description=description, formatter_class=raw, allow_abbrev=False)
        self.add_argument("--out", type=Path, default=Path("results/local"), help="folder for the record")
        self.add_argument(
            "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda if there is one"
        )
        self.add_argument("--seed", type=int, default=0, help="seed of all random data")

    def read(self, arguments: Sequence[str], configure: Callable[[argparse.Namespace, Device], C]
             ) -> tuple[argparse.Namespace, Device, C, Surroundings]:  # fmt: skip
        """The flags, the device they choose, what `configure` makes of both, and the run this is part of.

        Raises:
            SystemExit: with exit code 2, for wrong flags, values that `configure` refuses, or a wrong environment.
        """
        flags = self.parse_args(arguments)
        with self.refusing():
            device = find_device(flags.device)
            return flags, device, configure(flags, device), surroundings()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """A `ValueError` inside, which names field, value and what is allowed, ends the process as a wrong flag does.

        Raises:
            SystemExit: with exit code 2.
        """
        try:
            yield
        except ValueError as error:
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        """End the process: `message` on one line of stderr, exit code 2."""
        self.exit(2, f"{self.prog}: {message}; `python -m workloads.{self.prog} --help` lists the flags\n")


def positive(text: str) -> int:
    """A flag's value as a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """A flag's value as a number of seconds of at least 0.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds: write for example 2.5")
    return value


def counts(text: str) -> tuple[int, ...]:
    """A flag's value as whole numbers of at least 1 with commas between them, each of them once.

    Raises:
        argparse.ArgumentTypeError: one is not such a number.
    """
    try:
        return tuple(dict.fromkeys(positive(part) for part in text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}: write them with commas, for example 1,2,4") from None


def learning_rate(text: str) -> float:
    """A flag's value as a learning rate between 0 and 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate between 0 and 1: write for example 3e-4")
    return value


def dtypes(text: str) -> tuple[str, ...]:
    """A flag's value as data types; which of them a device has, its workload says."""
    return tuple(text.split(","))


def refuse_absent(wanted: Sequence[str], device: Device) -> None:
    """Check that the device has all `wanted` data types.

    Raises:
        ValueError: it lacks one; the message lists those it has.
    """
    for dtype in wanted:
        if dtype not in device.dtypes:
            raise ValueError(f"dtype={dtype!r} is not in {device.name}: write some of {','.join(device.dtypes)}")


def start(name: str, main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run `main` on the command line's flags and end the process with the exit code that says how it went."""
    _end_on_sigterm(name)
    try:
        main(sys.argv[1:])
    except CheckFailed as failure:
        _end(f"{name}: check failed: {failure}", 1)
    except Ended as end:
        _end(f"{name}: {end}" if str(end) else "", end.code)
    except torch.OutOfMemoryError as failure:
        _end(f"{name}: out of device memory: choose smaller sizes ({str(failure).splitlines()[0]})", 1)
    except KeyboardInterrupt:
        _end(f"{name}: interrupted, no record written", 130)
    _end("", 0)


def _end(line: str, code: int) -> NoReturn:
    """End without the interpreter's own clean-up: threads of gloo may still hold tensors, and to release one then
    aborts the process (https://github.com/pytorch/pytorch/pull/179291)."""
    if line:
        _tell(line)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell(line: str) -> None:
    """One line on stderr in one write: `print` under `python -u`, which torchrun uses, writes the line's end apart,
    and two ranks' lines then run into each other."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _end_on_sigterm(name: str) -> None:
    """End at once on SIGTERM, from a thread: the main thread may be inside a collective that never returns, and
    Python runs a signal's handler only between two of its own instructions."""
    watched, written = os.pipe()
    os.set_blocking(written, False)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.set_wakeup_fd(written)

    def watch() -> None:
        while os.read(watched, 1) != bytes([signal.SIGTERM]):
            continue
        _tell(f"{name}: ended by SIGTERM, no record written")
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="sigterm", daemon=True).start()
