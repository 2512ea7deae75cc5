"""Handlers of the resource types that the rehearsal honours, a file for each kind of thing."""

from collections.abc import Mapping

from rehearsal.resources import admission, compute, guard, identity, network, storage
from rehearsal.resources.handler import Handler

HANDLERS: Mapping[str, Handler] = {
    handler.type: handler()
    for module in (network, admission, compute, storage, identity, guard)
    for handler in module.HANDLERS
}
