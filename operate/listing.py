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
        }
        for node in cluster.nodes
    ]


def table(listed: Sequence[Mapping[str, Any]]) -> Table:
    """The columns that a person looks for."""
    shown = Table(*(column.replace("_", " ") for column in _SHOWN), box=None, pad_edge=False)
    for row in listed:
        shown.add_row(*(str(row[column]) for column in _SHOWN))
    return shown
