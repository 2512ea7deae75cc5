"""Whether the client can be trusted: how many tokens a second it carries from a server that costs nothing."""

import subprocess
import sys

from labs.results import Measurement
from workloads.command import CheckFailed
from workloads.serving.client import Target
from workloads.serving.driving import Demand, Level, closed
from workloads.serving.timeline import errors, good

ENOUGH = 10
"""A client that carries so many times what was measured did not measure itself."""
WINDOW_S = 0.7
TOKENS = 512
"""Of each answer of the stub: long streams, as connecting is not what is measured."""


def carried(demand: Demand, clients: int) -> Level:
    """Drive the stub in a closed loop.

    Raises:
        CheckFailed: the client loses tokens, or cannot reach the stub.
    """
    command = [sys.executable, "-m", "workloads.serving.stub"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        port = stub.stdout.readline().strip()
        if not port:
            raise CheckFailed("the stub server did not start")
        target = Target(url=f"http://127.0.0.1:{port}", model="stub", patience_s=60)
        level = closed(target, Demand(prompt=demand.prompt, new_tokens=TOKENS, seed=demand.seed), clients, WINDOW_S)
        # Its stdin closes with this block, and with this process: so ends the stub.
    if len(good(level.timelines)) < len(level.timelines):
        raise CheckFailed(f"the client lost answers of the stub: {'; '.join(errors(level.timelines))}")
    for line in level.timelines:
        if (line.tokens, len(line.texts_s), line.prompt_tokens) != (TOKENS, TOKENS, demand.prompt):
            raise CheckFailed(f"the client found {len(line.texts_s)} pieces and {line.tokens} tokens where the stub "
                              f"sent {TOKENS}")  # fmt: skip
    return level


def row(level: Level) -> Measurement:
    """What the client carried, for the record."""
    return Measurement(
        name="client against the stub", value=level.token_rate, unit="token/s",
        estimator=f"tokens of {len(level.timelines)} answers ÷ {level.wall_s:.3g} s",
        config={"kind": "proof", "what": "proof", "load": level.load, "level": level.name},
        no_roof_because="a client is bound by its own code", checked="every token of the stub arrived",
    )  # fmt: skip


def note(level: Level, measured: float) -> str:
    """The proof in words, beside the most tokens per second that were measured."""
    times = level.token_rate / measured if measured else float("inf")
    verdict = (
        "" if times >= ENOUGH else f"; below {ENOUGH} ×: the highest throughputs may be the client's, not the server's"
    )
    return f"client carried {level.token_rate:,.0f} tokens/s from the stub, {times:.1f} × what was measured{verdict}"
