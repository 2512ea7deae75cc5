"""Handlers of the resource types that the rehearsal honours, a file for each kind of thing."""

from collections.abc import Mapping

from rehearsal.resources import (
    address,
    admission,
    compute,
    endpoint,
    guard,
    identity,
    ipv6,
    network,
    storage,
    topic,
)
from rehearsal.resources.handler import Handler

HANDLERS: Mapping[str, Handler] = {
    handler.type: handler()
    for module in (network, ipv6, endpoint, admission, address, compute, storage, identity, guard, topic)
    for handler in module.HANDLERS
}
