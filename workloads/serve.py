"""serve: an OpenAI-compatible endpoint for a model of labs/models.py, on this machine's loopback, until Ctrl-C.

vLLM where it is installed, else the server that transformers brings along. The weights are random, made on the spot in
the exact shape, with a tokenizer whose words are letters: what it says means nothing, how fast it says it does. A
server earns its keep by batching: weights that are read for one request serve all others in the same step, so that
tokens per second grow with the number of users until arithmetic, memory for KV cache, or patience ends it. `load`
measures that.

Method: the model becomes a folder (configuration, tokenizer, weights), the server a process of its own that ends with
this one. It listens on 127.0.0.1 alone and asks nobody who they are: from another machine use `fab tunnel`.

Output: the URL, an example request, and the log's path; no record, for nothing is measured.

    python -m workloads.serve
    python -m workloads.serve --model mistral-mini --port 8000 --server transformers
"""

import argparse
import json
import shlex
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from labs.models import find_model
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import TORCH_DTYPES, Device
from workloads.mistral import HUB, locate
from workloads.serving import endpoint, folder

PATIENCE_S = {True: 900.0, False: 300.0}
"""How long a server may take to answer first, by whether there is a GPU; vLLM compiles, and a full disk is slow."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is served."""

    model: str
    """A name in labs/models.py."""
    weights: str
    """Folder with config.json, weights and tokenizer, or hf:ORG/NAME; empty: random ones, made here."""
    dtype: str
    server: str
    """One of `endpoint.KINDS`."""
    batching: bool
    """Whether requests share steps."""
    longest: int
    """Tokens of the longest sequence, prompt included."""
    seed: int

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in ("fp32", "fp16", "bf16"):
            raise ValueError(f"dtype={self.dtype!r} is not one that models run in: write fp32, fp16, bf16")


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed, or no server is installed.
    """
    return Config(
        model=flags.model or default_model(device), weights=flags.weights or "", dtype=flags.dtype or device.half,
        server=endpoint.choose(flags.server), batching=device.cuda if flags.batching is None else flags.batching,
        longest=4096, seed=flags.seed,
    )  # fmt: skip


def default_model(device: Device) -> str:
    """mistral-7b where its weights and half as much for KV cache fit; on a CPU the smallest."""
    if not device.cuda:
        return "mistral-nano"
    needed = 1.5 * find_model("mistral-7b").weight_bytes(TORCH_DTYPES[device.half].itemsize)
    return "mistral-7b" if device.memory_bytes > needed else "mistral-tiny"


@contextmanager
def served(config: Config, device: Device, *, port: int = 0, within: Path | None = None, log: Path
           ) -> Iterator[tuple[endpoint.Plan, Popen]]:  # fmt: skip
    """The endpoint and its process, from when it answers until the end of the block.

    `within` is where the model's folder is kept; None makes one that goes with the server.

    Raises:
        ValueError: there is no room for the model, or the weights are not of its shape.
        CheckFailed: the server does not start.
    """
    own = within is None
    place = Path(tempfile.mkdtemp(prefix="rooflab-serve-", dir=folder.scratch())) if within is None else within
    dummy = config.server == "vllm" and not config.weights
    shape = find_model(config.model)
    try:
        made = (locate(config.weights, shape) if config.weights else
                folder.make(place, shape, config.dtype, device, config.seed, weights=not dummy))  # fmt: skip
        plan = endpoint.Plan(kind=config.server, folder=made, dtype=config.dtype, device=device, dummy=dummy,
                             port=port or endpoint.free_port(), longest=config.longest,
                             batching=config.batching)  # fmt: skip
        with endpoint.started(plan, log, PATIENCE_S[device.cuda]) as process:
            yield plan, process
    finally:
        if own:
            shutil.rmtree(place, ignore_errors=True)


def listening(plan: endpoint.Plan) -> Iterator[str]:
    """What a user does with it."""
    body = json.dumps({"model": plan.model, "prompt": " ab cd", "max_tokens": 8, "stream": True})
    yield f"serving {plan.folder.name} with {plan.kind} at {plan.url}/v1, until Ctrl-C"
    yield f"  curl -N {plan.url}/v1/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    yield f"  from elsewhere: fab tunnel --lab N --port {plan.port}"


def run(config: Config, device: Device, flags: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM; both are a good end.

    Raises:
        CheckFailed: the server does not start, or ends by itself.
    """
    # Here nothing waits in a collective: an ordinary end, in which the server is waited for, is possible.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if flags.port:
        _demand_free(flags.port)
    flags.out.mkdir(parents=True, exist_ok=True)
    log = flags.out / "serve.log"
    print(f"starting {config.server}'s server with {config.model} in {config.dtype}; its log: {log}", flush=True)
    there = served(config, device, port=flags.port, within=flags.folder, log=log)
    with suppress(KeyboardInterrupt), there as (plan, process):
        for line in listening(plan):
            print(line, flush=True)
        process.wait()
        raise CheckFailed(f"{plan.kind}'s server ended by itself: {endpoint.tail(log)}")
    print("ended", flush=True)


def _demand_free(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise CheckFailed(f"port {port} cannot be listened on ({error.strerror}): write another --port") from None


def add_flags(parser: Parser) -> None:
    """The flags that say what is served; `load` has them too."""
    parser.add_argument("--model", help="a shape of labs/models.py; default: the largest that suits the device")
    parser.add_argument("--weights", help=f"folder with weights and tokenizer, or {HUB}ORG/NAME; default: random ones")
    parser.add_argument("--dtype", help="fp32, fp16 or bf16; default: bf16 on a GPU that has it, fp32 on a CPU")
    parser.add_argument("--server", choices=("auto", *endpoint.KINDS), default="auto", help="auto: vllm if installed")
    parser.add_argument("--batching", action=argparse.BooleanOptionalAction,
                        help="whether requests share steps; default: on a GPU")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="keep the model's folder there; default: made anew each time")


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: the server does not start, or ends by itself.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("serve", __doc__)
    add_flags(parser)
    parser.add_argument("--port", type=positive, default=0, help="default: a free one")
    flags, device, config, _ = parser.read(arguments, configure)
    run(config, device, flags)


if __name__ == "__main__":
    start("serve", main)
