"""One machine's bash, wherever it is: what a verb needs from it, and the same on many at once."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import Protocol, Self

from operate import crowd
from operate.problem import Problem

_LOOK_S = 0.2
"""A signal that comes just before an endless wait would not end it."""


class Unreachable(Problem):
    """A machine that does not answer, or stopped answering: worth another try."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command did on one machine."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """stdout as text, without the white space around it."""
        return self.stdout.decode("utf-8", "replace").strip()

    @property
    def said(self) -> str:
        """The last line of stderr, else of stdout: what a person is shown of a failure."""
        for stream in (self.stderr, self.stdout):
            if lines := stream.decode("utf-8", "replace").strip().splitlines():
                return lines[-1]
        return "no output"


class Shell(Protocol):
    """Runs bash commands on one machine. Methods raise `Unreachable` where the machine does not answer."""

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Outcome:
        """Run `command` to its end. Raises: Unreachable, also when it takes longer than `timeout_s`."""

    def stream(self, command: str, *, idle_s: float) -> Iterator[bytes]:
        """What `command` writes to stdout, piece by piece. Raises: Unreachable after `idle_s` seconds of silence."""

    def close(self) -> None:
        """End what runs and let go of the connection."""


class LocalShell:
    """This machine's bash."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Outcome:
        """See `Shell.run`."""
        process = self._start(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"a command took more than {timeout_s:.0f} s on this machine", "is it overloaded?"
            ) from None
        finally:
            self._end(process)
            _close(process)
        return Outcome(code=process.returncode, stdout=stdout, stderr=stderr)

    def stream(self, command: str, *, idle_s: float) -> Iterator[bytes]:
        """See `Shell.stream`; a pipe on this machine does not fall silent, so `idle_s` is not needed."""
        process = self._start(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        try:
            while piece := os.read(process.stdout.fileno(), 65536):
                yield piece
        finally:
            self._end(process)
            _close(process)

    def close(self) -> None:
        """See `Shell.close`. Who reads from what is ended here sees the end, and closes its pipes."""
        for process in list(self._running):
            self._end(process)

    def _start(self, command: str, *, stdin: int, stderr: int) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal is ours to handle, and must not reach what runs there.
        process = subprocess.Popen(
            ["bash", "--norc", "-c", command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._running.discard(process)
        if process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, and another thread has seen it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


Results = dict[str, Outcome | Problem]
"""By node name: what the command did there, or why it could not be asked."""


class Shells:
    """The shells of a cluster, by node name, and commands on all of them at once."""

    def __init__(self, shells: Mapping[str, Shell]) -> None:
        self.shells = dict(shells)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection, whatever still runs on it."""
        for shell in self.shells.values():
            shell.close()

    def each(
        self,
        command: str | Callable[[str], str],
        *,
        stdin: bytes | Callable[[str], bytes] = b"",
        timeout_s: float = 60,
        among: tuple[str, ...] | None = None,
    ) -> Results:
        """Run `command` on all nodes (or those `among` them) at once; one node's failure is its own.

        `command` and `stdin` may be functions of the node's name.
        """
        names = tuple(self.shells) if among is None else among

        def one(name: str) -> Outcome | Problem:
            try:
                return self.shells[name].run(
                    command if isinstance(command, str) else command(name),
                    stdin=stdin if isinstance(stdin, bytes) else stdin(name),
                    timeout_s=timeout_s,
                )
            except Problem as problem:
                return problem

        if len(names) == 1:  # a thread would only cost
            return {names[0]: one(names[0])}
        return _at_once(one, names)


def _at_once(one: Callable[[str], Outcome | Problem], names: Sequence[str]) -> Results:
    """`one` of every name, each in a thread of its own.

    Not concurrent.futures: Python waits for its threads before it ends, so that Ctrl-C would seem to hang for as long
    as a connection attempt may take.
    """
    done: dict[str, Outcome | Problem | BaseException] = {}

    def work(name: str) -> None:
        try:
            done[name] = one(name)
        except BaseException as error:  # handed to the caller, who raises it
            done[name] = error

    threads = [Thread(target=work, args=(name,), name=f"shell-{name}", daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_LOOK_S)
    results: Results = {}
    for name in names:
        result = done[name]
        if isinstance(result, BaseException) and not isinstance(result, Problem):
            raise result
        results[name] = result
    return results


def demand(results: Results, doing: str, remedy: str) -> dict[str, Outcome]:
    """All outcomes, if every command succeeded.

    Raises:
        Problem: naming every node that failed, with the reason of each; `doing` completes "node1 could not …".
    """
    failed = failures(results)
    if not failed:
        return {name: result for name, result in results.items() if isinstance(result, Outcome)}
    problems = [result for result in results.values() if isinstance(result, Problem)]
    (name, why), *others = failed.items()
    cause = f"{name} could not {doing} ({why})"
    if others:
        cause = f"{len(failed)} nodes could not {doing} ({crowd.names(failed)})"
    raise Problem(
        cause,
        problems[0].remedy if len(problems) == len(failed) else remedy,
        exit_code=problems[0].exit_code if problems else 1,
        details=crowd.lines(failed) if others else (),
    )


def failures(results: Results) -> dict[str, str]:
    """By node name: why its command failed, one line each. Empty where all is well."""
    why = {}
    for name, result in results.items():
        if isinstance(result, Problem):
            why[name] = result.cause
        elif result.code != 0:
            why[name] = f"exit code {result.code}: {result.said}"
    return why
