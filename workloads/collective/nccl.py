"""What NCCL says of itself: its network, the way of each channel, and the algorithm and protocol of each size.

NCCL tells it in its debug log alone (NCCL_DEBUG=INFO; subsystem TUNING for the choices, which its first rank logs, a
line a call). The log goes to a file of each process, read when all is measured.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_SET = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET,TUNING"}
_COLLECTIVES = {"AllReduce": "all-reduce", "AllGather": "all-gather", "ReduceScatter": "reduce-scatter",
                "Broadcast": "broadcast"}  # fmt: skip
# Older versions log the places of both in NCCL's own lists instead of their names: src/include/nccl_tuner.h of each.
_ALGORITHMS = ("TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT")
_PROTOCOLS = ("LL", "LL128", "SIMPLE")
_CHOICE = re.compile(r"(?:(\w+): +)?(\d+) Bytes -> Algo (\w+) proto (\w+)")
_CHANNEL = re.compile(r"Channel \d+(?:/\d+)? : \d+\[[^\]]+\] -> \d+\[[^\]]+\] (\[send\] |\[receive\] )?via (.+)")
_NETWORK = re.compile(r"Using network (.+)")
_PROVIDER = re.compile(r"NET/OFI Selected [Pp]rovider is ([^\s,(]+)(?:.*\(found (\d+) nics\))?")
_COMPLAINT = re.compile(r"NCCL (?:INFO|WARN) (NET/Plugin\s?: ?(?:Could not find|No plugin found|Plugin load).*|"
                        r"NET/OFI .*(?:[Nn]o eligible|[Cc]ould not find|[Ff]ailed|[Ee]rror).*)")  # fmt: skip
_VERSION = re.compile(r"NCCL version (\d[\d.]*)")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What NCCL chose for one collective of one size."""

    algorithm: str
    """For example "RING" or "NVLS_TREE"."""
    protocol: str
    """"LL", "LL128" or "SIMPLE"."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """What one process's log says; fields are empty where it says nothing."""

    version: str = ""
    network: str = ""
    """For example "Libfabric" or "Socket"."""
    provider: str = ""
    """libfabric's, as the plugin selected it."""
    nics: int | None = None
    """How many the plugin found."""
    ways: Mapping[str, int] = field(default_factory=dict)
    """Channels by how they go, for example "P2P/CUMEM" or "NET/Libfabric/GDRDMA"."""
    choices: Mapping[tuple[str, int], Choice] = field(default_factory=dict)
    """By collective and bytes; of each the last. Under collective "" where the version does not name it."""
    complaint: str = ""
    """The first line that says why there is no plugin."""

    def choice(self, collective: str, size_bytes: int) -> Choice | None:
        """What was chosen for this; None where the log does not say."""
        return self.choices.get((collective, size_bytes)) or self.choices.get(("", size_bytes))

    @property
    def transport(self) -> str:
        """All of it in a line, as a note has it; "" for an empty log."""
        if not self.network and not self.ways:
            return ""
        over = f"network {self.network}" if self.network else "no network"
        over += f" (provider {self.provider}{f', {self.nics} NICs' if self.nics else ''})" if self.provider else ""
        ways = ", ".join(f"{count} × {way}" for way, count in sorted(self.ways.items()))
        return f"NCCL {self.version}: {over}".replace("NCCL :", "NCCL:") + (f"; channels: {ways}" if ways else "")


def read_log(text: str) -> Log:
    """What a log says. Lines that mean nothing here are passed over, whatever they hold."""
    found: dict[str, str] = {}
    nics: int | None = None
    ways: Counter[str] = Counter()
    choices: dict[tuple[str, int], Choice] = {}
    for line in text.splitlines():
        if match := _CHOICE.search(line):
            name = _COLLECTIVES.get(match[1] or "", "" if match[1] is None else match[1])
            choices[name, int(match[2])] = Choice(algorithm=_name(match[3], _ALGORITHMS),
                                                  protocol=_name(match[4], _PROTOCOLS))  # fmt: skip
        elif match := _CHANNEL.search(line):
            if match[1] != "[receive] ":  # the other end of a channel that its sender names
                ways[_way(match[2])] += 1
        elif match := _PROVIDER.search(line):
            found.setdefault("provider", match[1])
            nics = int(match[2]) if match[2] and nics is None else nics
        elif match := _NETWORK.search(line):
            found.setdefault("network", match[1].strip())
        elif match := _VERSION.search(line):
            found.setdefault("version", match[1])
        elif match := _COMPLAINT.search(line):
            found.setdefault("complaint", match[1].strip())
    return Log(**found, nics=nics, ways=dict(ways), choices=choices)


def _name(word: str, names: tuple[str, ...]) -> str:
    return names[int(word)] if word.isdigit() and int(word) < len(names) else word.upper()


def _way(text: str) -> str:
    """Without the number of the device or of the proxy: "NET/Libfabric/0(1)/GDRDMA" is "NET/Libfabric/GDRDMA"."""
    parts = [part for part in text.strip().split("/") if not re.fullmatch(r"\d+(\(.*\))?|Shared", part)]
    return "/".join(parts)


@contextmanager
def listening(environment: MutableMapping[str, str] = os.environ) -> Iterator[Path]:
    """Have NCCL log into a file, from before it starts; what the user set for its log is left as it is.

    In a run the log comes home with $ROOFLAB_OUT; alone the file is memory of this process and goes with it.
    """
    folder = environment.get("ROOFLAB_OUT")
    memory = None if folder else os.memfd_create("nccl")
    file = Path(f"/proc/self/fd/{memory}")
    if folder:
        file = Path(folder) / "nccl" / f"{environment.get('ROOFLAB_NODE', 'node0')}.{os.getpid()}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
    for name, value in _SET.items():
        environment.setdefault(name, value)
    environment.setdefault("NCCL_DEBUG_FILE", str(file))
    try:
        yield file
    finally:
        if memory is not None:
            os.close(memory)


def heard(file: Path) -> Log:
    """What this process's NCCL has said so far; an empty log where the user sent it elsewhere."""
    return read_log(file.read_text(errors="replace")) if file.exists() else Log()
