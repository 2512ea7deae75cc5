"""Each GPU by itself: clocks, power, temperature, memory errors, what holds the clock down, its link to the host.

Fields: `nvidia-smi --help-query-gpu`. Bits of the clock's reasons:
https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html. Memory errors and what follows from them:
https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/index.html
"""

from collections.abc import Iterator
from dataclasses import dataclass

from labs.accelerators import by_driver_name
from labs.findings import Finding, Level, fail, note, ok, warn

FIELDS = (
    "index", "name", "uuid", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm",
    "power.draw", "power.limit", "power.default_limit", "temperature.gpu", "persistence_mode", "compute_mode",
    "mig.mode.current", "ecc.mode.current", "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total", "retired_pages.pending", "clocks_event_reasons.active",
    "clocks_throttle_reasons.active", "pcie.link.gen.current", "pcie.link.gen.max", "pcie.link.gen.gpumax",
    "pcie.link.width.current", "pcie.link.width.max",
)  # fmt: skip
"""A driver that lacks one refuses it by name, and it is asked without; newer ones say "event" for "throttle"."""
REMAPPED = ("gpu_uuid", "remapped_rows.uncorrectable", "remapped_rows.pending", "remapped_rows.failure")

_HOT_C = 85
_FOREIGN_MIB = 500
_REPLACE = "stop and start the instance: it then comes up on other hardware (a reboot keeps the same)"
_REASONS: tuple[tuple[int, str, Level, str, str], ...] = (
    (0x2, "application clocks", "note", "the clock was fixed by hand", "nvidia-smi -rac, nvidia-smi -rgc"),
    (0x4, "the power cap", "note", "usual under load; idle, it is a low cap", "nvidia-smi -q -d POWER"),
    (0x8, "a hardware slowdown", "warn", "the clock is halved or worse", "see the next lines; " + _REPLACE),
    (0x10, "sync boost", "note", "all GPUs of a group run at the slowest one's clock", ""),
    (0x20, "temperature, by the driver", "warn", "the clock is lowered", "nvidia-smi -q -d TEMPERATURE"),
    (0x40, "temperature, by the hardware", "warn", "the clock is halved or worse", _REPLACE),
    (0x80, "the power brake", "warn", "the host's power supply asks for less", _REPLACE),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Card:
    """One GPU, by nvidia-smi's fields."""

    told: dict[str, str]
    """What the driver tells; a field that it does not tell is absent."""

    @property
    def subject(self) -> str:
        """For a finding."""
        return f"GPU {self.told.get('index', '?')}"

    def number(self, field: str) -> float | None:
        """A field that is a number."""
        text = self.told.get(field, "")
        return float(text) if text.replace(".", "", 1).isdigit() else None

    def whole(self, field: str) -> int | None:
        """A field that is a whole number."""
        value = self.number(field)
        return None if value is None else int(value)

    @property
    def reasons(self) -> int:
        """Bits of what holds the clock down."""
        text = self.told.get("clocks_event_reasons.active") or self.told.get("clocks_throttle_reasons.active", "0x0")
        return int(text, 16) if text.startswith("0x") else 0


def judge(card: Card, remapped: dict[str, str]) -> Iterator[Finding]:
    """All findings of one GPU; `remapped` is its row of `REMAPPED`, {} where the GPU has none."""
    found = [*_errors(card, remapped), *_clock(card), *_link(card), *_use(card)]
    yield ok(card.subject, summary(card))
    yield from found


def summary(card: Card) -> str:
    """What a healthy GPU says of itself."""
    told = card.told
    link = f"PCIe {told.get('pcie.link.gen.max', '?')}.0 ×{told.get('pcie.link.width.max', '?')}"
    memory = card.number("memory.total")
    return (
        f"{told.get('name', 'unnamed')}, {told.get('clocks.sm', '?')} of {told.get('clocks.max.sm', '?')} MHz, "
        f"{told.get('power.draw', '?')} of {told.get('power.limit', '?')} W, {told.get('temperature.gpu', '?')} °C, "
        f"{'?' if memory is None else f'{memory / 1024:.1f}'} GiB, {link}, ECC {told.get('ecc.mode.current', 'none')}"
    )


def _errors(card: Card, remapped: dict[str, str]) -> Iterator[Finding]:
    now, ever = (card.whole(f"ecc.errors.uncorrected.{since}.total") for since in ("volatile", "aggregate"))
    if now:
        yield fail(
            card.subject,
            f"{now} uncorrected memory errors since the last reset",
            means="it has returned wrong data",
            do=_REPLACE,
        )
    elif ever:
        yield note(
            card.subject,
            f"{ever} uncorrected memory errors in its life, none since the last reset",
            means="it may do it again",
            do="watch the doctor's next runs",
        )
    if remapped.get("remapped_rows.failure") in ("Yes", "1"):
        yield fail(
            card.subject,
            "a faulty memory row could not be replaced",
            means="its spare rows are used up: NVIDIA replaces such a GPU",
            do=_REPLACE,
        )
    pending = remapped.get("remapped_rows.pending") in ("Yes", "1") or card.told.get("retired_pages.pending") == "Yes"
    if pending:
        yield warn(
            card.subject,
            "a faulty memory row waits to be replaced",
            means="it is still in use until the GPU is reset",
            do="reboot the node",
        )
    if (count := remapped.get("remapped_rows.uncorrectable", "0")) not in ("0", ""):
        yield note(
            card.subject,
            f"{count} memory rows were replaced after uncorrected errors",
            means="it works; many of them announce a failure",
        )
    if card.told.get("ecc.mode.current") == "Disabled":
        yield note(
            card.subject, "ECC is off", means="memory errors go unnoticed", do="sudo nvidia-smi -e 1, then reboot"
        )


def _clock(card: Card) -> Iterator[Finding]:
    for bit, name, level, means, do in _REASONS:
        if card.reasons & bit:
            yield Finding(
                level=level, subject=card.subject, seen=f"its clock is held down by {name}", means=means, do=do
            )
    limit, usual = card.number("power.limit"), card.number("power.default_limit")
    if limit and usual and limit < usual:
        yield warn(
            card.subject,
            f"power cap {limit:.0f} W, usually {usual:.0f} W",
            means="sustained FLOP/s fall with it",
            do=f"sudo nvidia-smi -pl {usual:.0f}",
        )
    top, known = card.number("clocks.max.sm"), by_driver_name(card.told.get("name", ""))
    if top and known and known.top_mhz and top < known.top_mhz:
        yield note(
            card.subject,
            f"top clock {top:.0f} MHz, {known.top_mhz} elsewhere",
            means="peak FLOP/s are lower in proportion",
        )
    heat = card.number("temperature.gpu")
    if heat is not None and heat >= _HOT_C:
        yield warn(card.subject, f"{heat:.0f} °C", means="near where the clock is lowered", do=_REPLACE)


def _link(card: Card) -> Iterator[Finding]:
    width, most = card.whole("pcie.link.width.current"), card.whole("pcie.link.width.max")
    if width and most and width < most:
        yield warn(
            card.subject,
            f"its link has {width} of {most} lanes",
            means=f"copies from and to the host take {most / width:g} times as long",
            do=_REPLACE,
        )
    generation, own = card.whole("pcie.link.gen.max"), card.whole("pcie.link.gen.gpumax")
    if generation and own and generation < own:
        yield note(
            card.subject,
            f"its link is PCIe {generation}.0, the GPU can {own}.0",
            means="the host sets the rate of copies",
        )


def _use(card: Card) -> Iterator[Finding]:
    used = card.number("memory.used")
    if used is not None and used > _FOREIGN_MIB:
        yield warn(
            card.subject,
            f"{used / 1024:.1f} GiB of its memory are in use",
            means="another process shares it: times will be wrong, and less fits",
            do="nvidia-smi names the process; end it",
        )
    if card.told.get("mig.mode.current") == "Enabled":
        yield note(
            card.subject,
            "MIG is on",
            means="a slice has no datasheet roof",
            do="sudo nvidia-smi -mig 0 for the whole GPU",
        )
    if card.told.get("compute_mode", "Default") == "Prohibited":
        yield fail(
            card.subject, "its compute mode is Prohibited", means="no CUDA program runs", do="sudo nvidia-smi -c 0"
        )
    if card.told.get("persistence_mode") == "Disabled":
        yield note(
            card.subject,
            "persistence mode is off",
            means="the first CUDA call of each program takes seconds longer",
            do="sudo nvidia-smi -pm 1",
        )
