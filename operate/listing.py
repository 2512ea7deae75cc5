"""A cluster's nodes as a table or as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from operate.cluster import Cluster
from operate.probe import Facts

_SHOWN = ("name", "instance_id", "instance_type", "state", "address", "private_ip", "devices", "ready")


def rows(cluster: Cluster, facts: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """One plain dict per node."""
    return [
        {
            "name": node.name,
            "instance_id": node.instance_id,
            "instance_type": node.instance_type,
            "state": node.state,
            "address": node.address,
            "port": node.port,
            "user": node.user,
            "private_ip": node.private_ip,
            "devices": facts[node.name].devices,
            "ready": facts[node.name].ready or "setting up",
            "boot_s": dict(facts[node.name].took),
        }
        for node in cluster.nodes
    ]


def table(listed: Sequence[Mapping[str, Any]]) -> Table:
    """The columns that a person looks for."""
    shown = Table(*(column.replace("_", " ") for column in _SHOWN), box=None, pad_edge=False)
    for row in listed:
        shown.add_row(*(str(row[column]) for column in _SHOWN))
    return shown


def boot_time(listed: Sequence[Mapping[str, Any]]) -> str:
    """How long the slowest node took from its system's start until it was ready, step by step, the longest first.

    Empty while any node is still being set up, or failed, or where Rooflab did not set them up.
    """
    if not listed or any(row["ready"] != "ok" or not row["boot_s"] for row in listed):
        return ""
    slowest = max(listed, key=lambda row: sum(row["boot_s"].values()))
    took = sorted(slowest["boot_s"].items(), key=lambda pair: pair[1], reverse=True)
    steps = ", ".join(f"{step} {_seconds(seconds)}" for step, seconds in took)
    return f"ready in {_seconds(sum(slowest['boot_s'].values()))} s ({steps})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 9.5 else f"{seconds:.2g}"
