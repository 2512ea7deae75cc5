"""Numbers as a reader wants them: three digits, an SI prefix, a unit. The only place that formats a number."""

import math

_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
_SI_UNITS = ("FLOP/s", "FLOP", "B/s", "B", "s", "W", "J", "Hz", "FLOP/J", "bit/s")
_LONG_S = 120.0


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """`value` with an SI prefix where the unit takes one: quantity(1.23e10, "FLOP/s") is "12.3 GFLOP/s".

    Times have no prefix above one second; units that are words ("token/s") have none at all, but separators.
    """
    if not math.isfinite(value):
        return f"{value} {unit}".strip()
    if unit not in _SI_UNITS or value == 0:
        return f"{rounded(value, digits)} {unit}".strip()
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))) / 3)  # rounded first: 999.9 k is 1 M
    lowest, highest = (-4, 0) if unit == "s" else (min(_PREFIXES), max(_PREFIXES))
    power = min(max(power, lowest), highest)
    return f"{rounded(value / 1000.0**power, digits)} {_PREFIXES[power]}{unit}"


def rounded(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, never in exponent form, with thousands separated: 12,345 or 0.0123."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def size(count_bytes: float) -> str:
    """A message or a buffer, in the powers of two it is made of where it is: 1 MiB, else 1.05 MB."""
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count_bytes >= 1 << power and count_bytes % (1 << power) == 0:
            return f"{int(count_bytes) >> power:,} {name}"
    return quantity(count_bytes, "B") if count_bytes >= 1024 else f"{count_bytes:g} B"


def share(fraction: float) -> str:
    """A fraction of a roof in per cent, two digits or more: 84 %, 7.3 %, 0.031 %, 112 %."""
    return f"{rounded(100 * fraction, 3 if fraction >= 0.9995 else 2)} %"


def dollars(usd: float) -> str:
    """An amount: $12.30, and down to a hundredth of a cent where it is small: $0.0123."""
    if usd and abs(usd) < 0.1:
        return f"${usd:.4f}" if abs(usd) >= 5e-5 else f"${usd:.1e}"
    return f"${usd:,.2f}"


def duration(seconds: float) -> str:
    """A stretch of wall time: 850 ms, 47.1 s, 12 min 05 s, 3 h 20 min."""
    if seconds < _LONG_S:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
