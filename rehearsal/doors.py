"""Which nodes may connect to which: written by the server, read by a node's init whenever another node comes."""

from collections.abc import Mapping
from pathlib import Path

_FILE = "doors"


def write(state: Path, visitors: Mapping[str, frozenset[str]]) -> None:
    """Note, by instance, the instances that may come in. A line holds hosts, a tab, and their visitors."""
    doors: dict[frozenset[str], list[str]] = {}
    for host, guests in visitors.items():
        doors.setdefault(guests, []).append(host)
    partial = state / f"{_FILE}.partial"
    partial.write_text("".join(f"{' '.join(hosts)}\t{' '.join(sorted(guests))}\n" for guests, hosts in doors.items()))
    partial.replace(state / _FILE)


def visitors(state: Path, host: str) -> frozenset[str]:
    """The instances that may connect to `host`."""
    for line in (state / _FILE).read_text().splitlines():
        hosts, _, guests = line.partition("\t")
        if host in hosts.split():
            return frozenset(guests.split())
    return frozenset()
