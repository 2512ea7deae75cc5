"""load: what users of a served model feel, from one client to more than the server can take.

A server is bound twice: decode steps by memory bandwidth, shared by all requests in a step, and prefills by arithmetic.
More users give more tokens per second until a bound is met; from there on they only wait. Two loops show it. Closed: n
clients, each asks again when it is answered; so they slow down with the server, and the knee stays hidden (coordinated
omission). Open: users come when they come, a seeded Poisson process; past the knee queues grow. What counts is goodput:
requests per second that kept both promises, time to first token and time per output token.

Method: `serve` runs in a process of its own, or --url names a server. Streaming requests of the standard library;
latencies from when a request was due to each text that is not empty; tokens from `usage`, never from chunks. The client
is first held against a stub that sends as fast as it can: only a client that carries ten times the server's rate
measures the server. Predictions come first: from one client's figures, and for the open loop from the very arrivals.

Output: throughput, goodput, time to first token, per token, between tokens, whole; $ per million tokens; one record.

    python -m workloads.load
    python -m workloads.load --url http://127.0.0.1:8000 --clients 1,8,64 --rates 2,4,8 --ttft 0.3 --tpot 0.02
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from labs.models import find_model
from labs.results import Machine, Measurement, Roof
from workloads import serve
from workloads.command import CheckFailed, Parser, positive, seconds, start
from workloads.device import Device
from workloads.earlier import memory_ceiling
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.serving import endpoint, proof
from workloads.serving.arrivals import poisson
from workloads.serving.client import Target
from workloads.serving.driving import Demand, Level, closed, opened
from workloads.serving.foretelling import Alone, Physics
from workloads.serving.rows import level_notes, row_line, rows
from workloads.serving.timeline import Promise, errors, good

SHARES = (0.4, 0.8, 1.2)
"""Open-loop rates, in units of the most that the closed loop answered."""
WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    served: serve.Config | None
    """The server started here; None with `url`."""
    url: str
    served_model: str
    """Name to ask for at `url`; empty: the first that it lists."""
    prompt: int
    """Tokens of each prompt."""
    new_tokens: int
    """Tokens of each answer."""
    clients: tuple[int, ...]
    """Closed loop: so many at once."""
    rates: tuple[float, ...]
    """Open loop: requests per second; empty: `SHARES` of what the closed loop answered."""
    window_s: float
    """Each level sends for so long."""
    ttft_s: float
    """Promise: time to first token."""
    tpot_s: float
    """Promise: time per output token."""
    patience_s: float
    """A request without its whole answer after so long has failed."""
    seed: int

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        if self.new_tokens < 2:
            raise ValueError(f"new_tokens={self.new_tokens} leaves no time per token: write at least 2")
        if self.served and self.prompt + self.new_tokens > self.served.longest:
            raise ValueError(f"prompt={self.prompt} and new_tokens={self.new_tokens} exceed the server's "
                             f"{self.served.longest} tokens: write less")  # fmt: skip
        if 1 not in self.clients:
            raise ValueError(f"clients={self.clients} has no 1, from which the rest is foretold: write for example 1,4")

    @property
    def demand(self) -> Demand:
        """What each request asks for."""
        return Demand(prompt=self.prompt, new_tokens=self.new_tokens, seed=self.seed)


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed, or no server is installed.
    """
    if flags.url:
        Target(url=flags.url, model="", patience_s=1)
    large = device.cuda or bool(flags.url)
    return Config(
        served=None if flags.url else serve.configure(flags, device), url=flags.url or "",
        served_model=flags.served_model or (endpoint.only_model(flags.url) if flags.url else ""),
        prompt=flags.prompt or (512 if large else 32), new_tokens=flags.new_tokens or (128 if large else 24),
        clients=flags.clients or ((1, 4, 16, 64) if large else (1, 2, 4)), rates=flags.rates or (),
        window_s=flags.window_s or (8.0 if large else 1.5), ttft_s=flags.ttft, tpot_s=flags.tpot,
        patience_s=60.0 if large else 20.0, seed=flags.seed,
    )  # fmt: skip


@contextmanager
def there(config: Config, device: Device, flags: argparse.Namespace) -> Iterator[Target]:
    """The endpoint: the one named, or one that lives as long as this block."""
    if config.served is None:
        yield Target(url=config.url, model=config.served_model, patience_s=config.patience_s)
        return
    flags.out.mkdir(parents=True, exist_ok=True)
    log = flags.out / "serve.log"
    print(f"starting {config.served.server}'s server with {config.served.model}; its log: {log}", flush=True)
    with serve.served(config.served, device, within=flags.folder, log=log) as (plan, _):
        yield Target(url=plan.url, model=plan.model, patience_s=config.patience_s)


def warm_up(config: Config, target: Target) -> None:
    """Requests that are not measured: a cache is made, kernels are chosen.

    Raises:
        CheckFailed: none was answered.
    """
    patient = replace(target, patience_s=serve.PATIENCE_S[True])
    level = opened(patient, config.demand, 1, (0.0,) * WARM_UPS, 1, first=-WARM_UPS)
    if not good(level.timelines):
        raise CheckFailed(f"no request was answered at {target.url}: {'; '.join(errors(level.timelines))}")


def verify(config: Config, level: Level) -> str:
    """Compare every answer's usage with what was asked for, and say so.

    Raises:
        CheckFailed: our own server counts otherwise.
    """
    if config.served is None or config.served.weights:
        return "tokens as the server's usage says"
    for line in good(level.timelines):
        if (line.prompt_tokens, line.tokens) != (config.prompt, config.new_tokens):
            raise CheckFailed(f"{level.name}: usage says {line.prompt_tokens} prompt and {line.tokens} completion "
                              f"tokens, asked for {config.prompt} and {config.new_tokens}")  # fmt: skip
    return f"usage of every answer: {config.prompt} prompt and {config.new_tokens} completion tokens"


def measure(config: Config, target: Target, physics: Physics | None, price: float | None
            ) -> Iterator[tuple[Level, tuple[Measurement, ...]]]:  # fmt: skip
    """Every level, the closed loop first; each foretold on stdout before it is measured.

    Raises:
        CheckFailed: one client alone is not answered, or an answer's usage is wrong.
    """
    promise = Promise(ttft_s=config.ttft_s, tpot_s=config.tpot_s)
    elsewhere = f"the device behind {config.url} is not known"
    batching = config.served is None or config.served.batching or config.served.server == "vllm"
    alone: Alone | None = None
    most, first = 0.0, 0

    def told(level: Level, rate: Roof | None, wait: Roof | None) -> tuple[Level, tuple[Measurement, ...]]:
        found = rows(level, promise, physics, elsewhere, foretold_rate=rate, foretold_first=wait, price=price,
                     checked=verify(config, level))  # fmt: skip
        return level, tuple(found)

    for clients in sorted(config.clients):
        rate, wait = (alone.rate(clients), alone.first(clients)) if alone else (None, None)
        if rate and wait:
            print(f"foretold {clients} clients: {rate.value:.1f} token/s, first token after {wait.value * 1e3:.1f} ms",
                  flush=True)  # fmt: skip
        level = closed(target, config.demand, clients, config.window_s, first)
        if alone is None:
            if not good(level.timelines):
                raise CheckFailed(f"one client alone is not answered: {'; '.join(errors(level.timelines))}")
            alone = Alone.of(level, batching)
        most, first = max(most, level.request_rate), first + len(level.timelines)
        yield told(level, rate, wait)
    assert alone is not None
    for load in config.rates or tuple(share * most for share in SHARES):
        due_s = poisson(load, config.window_s, config.seed)
        if not due_s:
            print(f"{load:.3g} requests/s: nobody came within {config.window_s:g} s", flush=True)
            continue
        wait = alone.first_due(due_s)
        print(f"foretold {load:.3g} requests/s: first token after {wait.value * 1e3:.1f} ms, {len(due_s)} requests",
              flush=True)  # fmt: skip
        level = opened(target, config.demand, load, due_s, config.window_s, first)
        first += len(due_s)
        yield told(level, None, wait)


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Prove the client, start the server, drive it, print and write what came out."""
    shape = find_model(config.served.model) if config.served else None
    memory = memory_ceiling(flags.out, within.node, device)
    physics = None
    if config.served and shape:
        physics = Physics(device=device, model=shape, dtype=config.served.dtype, demand=config.demand, memory=memory)
        for line in physics_lines(physics):
            print(line, flush=True)
    print(f"promised: first token within {config.ttft_s:g} s, then {config.tpot_s:g} s per token", flush=True)
    proven = proof.carried(config.demand, max(config.clients))
    found: list[Measurement] = [proof.row(proven)]
    print(f"client: {proven.token_rate:.0f} token/s from the stub", flush=True)
    notes: list[str] = []
    most = 0.0
    with Sensors(device) as sensors, there(config, device, flags) as target:
        warm_up(config, target)
        for level, measured in measure(config, target, physics, within.node_price):
            print(row_line(level, measured), flush=True)
            notes += level_notes(level, config.new_tokens)
            found += measured
            most = max(most, level.token_rate)
    notes.insert(0, proof.note(proven, most))
    if config.served:
        shares = "share steps" if config.served.batching or config.served.server == "vllm" else "are served in turn"
        notes.insert(0, f"{config.served.server}'s server, one process beside the client's; requests {shares}")
    machine = described(config, device, sensors, within)
    path = write(flags.out, "load", tuple(found), within=within, machine=machine, config=config, notes=tuple(notes))
    print(f"{notes[1] if config.served else notes[0]}; {len(found)} rows: {path}", flush=True)


def physics_lines(physics: Physics) -> Iterator[str]:
    """The roofs, for a reader who has not seen a number yet."""
    for name, bound in (("first token", physics.first), ("output token", physics.token)):
        if bound.roof is None:
            yield f"roof {name}: none, {bound.no_roof_because}"
        else:
            yield f"roof {name}: at least {bound.roof.value * 1e3:.3f} ms ({bound.roof.source})"
    for step in physics.measured():
        yield f"output token by the measured ceiling: at least {step.value * 1e3:.3f} ms ({step.source})"


def described(config: Config, device: Device, sensors: Sensors, within: Surroundings) -> Machine:
    """The machine for the record; a server elsewhere runs on a device that nobody told us."""
    libraries = ("vllm",) if config.served and config.served.server == "vllm" else ("transformers",)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=libraries)  # fmt: skip
    return machine if config.served else replace(machine, device=f"behind {config.url}")


def several(text: str) -> tuple[int, ...]:
    """A flag's value as whole numbers, "1,4,16"."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


def rates(text: str) -> tuple[float, ...]:
    """A flag's value as requests per second, "0.5,2".

    Raises:
        argparse.ArgumentTypeError: one is not a number above 0.
    """
    found = []
    for word in text.split(","):
        try:
            value = float(word)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{word!r} is not a rate: write requests per second, for example 0.5,2")
        found.append(value)
    return tuple(found)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: the server does not start or does not answer, or counts wrongly.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("load", __doc__)
    serve.add_flags(parser)
    parser.add_argument("--url", help="a server that runs already, up to /v1; default: one started here")
    parser.add_argument("--served-model", help="the model's name there; default: the first that it lists")
    parser.add_argument("--prompt", type=positive, help="tokens of each prompt")
    parser.add_argument("--new-tokens", type=positive, help="tokens of each answer")
    parser.add_argument("--clients", type=several, help="closed loop: so many at once, for example 1,4,16")
    parser.add_argument("--rates", type=rates, help="open loop: requests per second; default: by the closed loop's")
    parser.add_argument("--window-s", type=seconds, help="each level sends for so long")
    parser.add_argument("--ttft", type=seconds, default=0.5, help="promised seconds to the first token")
    parser.add_argument("--tpot", type=seconds, default=0.05, help="promised seconds per further token")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("load", main)
