"""How fast the link of a node is: "100mbit", "1gbit", or "unlimited", as fast as this machine copies."""

import re
from dataclasses import dataclass

_UNITS = {"mbit": 10**6, "gbit": 10**9}
_LEAST, _MOST = 10**6, 100 * 10**9
_BURST_BYTES, _BURST_S = 16 * 1024, 0.25e-3
_QUEUE = "100ms"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a link carries at most, each way."""

    text: str
    """As it was given."""
    bits_per_s: int | None
    """None: no limit."""

    @property
    def shaping(self) -> str:
        """What `tc qdisc replace dev … root` is given.

        A token bucket saves up little while a link is idle: a long burst would let small messages pass unslowed.
        """
        if self.bits_per_s is None:
            return "pfifo"
        burst = max(_BURST_BYTES, round(self.bits_per_s / 8 * _BURST_S))
        return f"tbf rate {self.bits_per_s}bit burst {burst}b latency {_QUEUE}"


def rate(text: str) -> Rate:
    """The rate that a text names.

    Raises:
        ValueError: it names none; the message says what to write.
    """
    if text == "unlimited":
        return Rate(text=text, bits_per_s=None)
    found = re.fullmatch(r"([1-9]\d{0,3})(mbit|gbit)", text)
    bits = int(found[1]) * _UNITS[found[2]] if found else 0
    if not _LEAST <= bits <= _MOST:
        raise ValueError(f"link={text!r} is not allowed: write a rate such as 100mbit or 1gbit (1mbit to 100gbit), "
                         "or unlimited")  # fmt: skip
    return Rate(text=text, bits_per_s=bits)
