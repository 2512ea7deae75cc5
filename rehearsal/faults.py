"""What goes wrong on demand."""

import threading


class Faults:
    """Faults that have been ordered and wait to be met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._capacity: dict[tuple[str, str], int] = {}

    def limit(self, kind: str, zone: str, left: int) -> None:
        """Let a zone ("" for every zone) have only `left` more instances of a type ("" for all types together).

        Raises:
            ValueError: `left` is negative.
        """
        if left < 0:
            raise ValueError(f"left={left!r}: write 0 or more")
        with self._lock:
            self._capacity[kind, zone] = left

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._capacity.clear()

    def grant(self, kind: str, zone: str, wanted: int) -> int:
        """How many of the wanted instances the zone has; they count as taken."""
        with self._lock:
            limits = self._limits(kind, zone)
            granted = min([wanted, *(self._capacity[slot] for slot in limits)])
            for slot in limits:
                self._capacity[slot] -= granted
            return granted

    def give_back(self, kind: str, zone: str, count: int) -> None:
        """Give back what `grant` took and nobody used."""
        with self._lock:
            for slot in self._limits(kind, zone):
                self._capacity[slot] += count

    def _limits(self, kind: str, zone: str) -> list[tuple[str, str]]:
        return [slot for slot in ((kind, zone), (kind, ""), ("", zone), ("", "")) if slot in self._capacity]
