"""What one short command learns about a node: whether it is ready, its devices, its interpreter."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from operate.launch import Place

_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One node, as it sees itself."""

    ready: str
    """"ok", "failed: STEP: reason", or "" while its set-up runs (and on a machine that has no such file)."""
    devices: int
    """CUDA devices; 0 on a CPU."""
    cores: int
    torchrun: str
    """Path of torchrun; "" where none is on the PATH."""
    bucket: str
    """Where it ships records to; "" where it does not."""
    took: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each step of its set-up has taken so far, in order; "start" is what came before the first of them.
    Empty on a machine that Rooflab did not set up."""

    @property
    def processes(self) -> int:
        """Ranks that a cluster job gets here: one a device, or two on a CPU."""
        return self.devices or 2


def probe_command(place: Place) -> str:
    """Prints one `name=value` line per fact."""
    return (
        f"[ -f {place.environment} ] && . {place.environment}\n"
        f'printf "ready=%s\\n" "$(cat {place.ready} 2>/dev/null)"\n'
        f'printf "took=%s\\n" "$(tr "\\n" " " <{place.boot} 2>/dev/null)"\n'
        'printf "devices=%s\\n" "$(nvidia-smi -L 2>/dev/null | grep -c ^GPU)"\n'
        'printf "cores=%s\\n" "$(getconf _NPROCESSORS_ONLN)"\n'
        'printf "torchrun=%s\\n" "$(command -v torchrun)"\n'
        'printf "bucket=%s\\n" "${ROOFLAB_BUCKET:-}"'
    )


def read_facts(text: str) -> Facts:
    """The facts in what `probe_command` printed."""
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Facts(
        ready=told.get("ready", ""),
        devices=_count(told.get("devices", "")),
        cores=max(1, _count(told.get("cores", ""))),
        torchrun=told.get("torchrun", ""),
        bucket=told.get("bucket", ""),
        took=_seconds(told.get("took", "").split()),
    )


def _seconds(words: Sequence[str]) -> dict[str, float]:
    """Pairs of a step and its seconds; what is no number, as in a line that is just being written, is left out."""
    pairs = zip(words[::2], words[1::2], strict=False)
    return {step: float(seconds) for step, seconds in pairs if _NUMBER.fullmatch(seconds)}


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0
