"""The paths that gradients can take: over the network with all ranks, in bf16, within the node first, within it alone.

A path sums a buffer over its ranks. As DistributedDataParallel's communication hook it averages: each rank divides
first, so that no sum grows with the number of ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from labs.traffic import Call, Traffic
from workloads.exchange.sharedmemory import SharedMemory
from workloads.group import Group
from workloads.parallel.compression import in_bf16
from workloads.parallel.nodes import Layout

# Shape suffix: E elements of a buffer.

Hook = Callable[[Any, dist.GradBucket], torch.futures.Future[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Path:
    """One way to sum gradients over ranks."""

    name: str
    ranks: tuple[int, ...]
    """Whose parameters stay equal by it, this rank among them."""
    peers: Any
    """Their process group."""
    add: Callable[[Tensor], None]
    """Make a buffer its sum over the ranks, and return when it is."""
    calls: Callable[[int], Traffic]
    """What this rank sends through its libraries for a buffer of so many bytes; shared memory is not sent."""
    crosses: Callable[[int], float]
    """Bytes that leave each node for it at least."""
    hook: Hook | None = None
    """How buckets are averaged; None: as DistributedDataParallel does it."""
    narrowed: int = 1
    """How many times fewer bytes its buckets have than gradients in fp32; `add` takes fp32 all the same."""

    def wrap(self, model: nn.Module, group: Group, bucket_mb: int) -> nn.Module:
        """The model with its gradients averaged by this path; it was made alike on every rank."""
        devices = [group.device.torch] if group.device.cuda else None
        shared = DistributedDataParallel(model, device_ids=devices, process_group=self.peers, init_sync=False,
                                         gradient_as_bucket_view=True, bucket_cap_mb=bucket_mb)  # fmt: skip
        if self.hook is not None:
            shared.register_comm_hook(self.peers, self.hook)
        return shared


def averaging(add: Callable[[Tensor], None]) -> Hook:
    """A hook that averages while the backward pass waits."""

    def hook(ranks: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        add(bucket.buffer().div_(ranks.size()))
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    return hook


def over_network(group: Group, places: Layout, *, half: bool = False) -> Path:
    """One all-reduce over all ranks; `half`: in bf16."""

    narrowed = 2 if half else 1

    def calls(size: int) -> Traffic:
        return Traffic(calls=(Call(collective="all-reduce", ranks=group.size, buffer_bytes=size // narrowed),))

    return Path(
        name="all ranks, in bf16" if half else "all ranks", ranks=tuple(range(group.size)), peers=dist.group.WORLD,
        add=_all_reduce(dist.group.WORLD), calls=calls, hook=in_bf16 if half else None,
        crosses=lambda size: least_crossing(size, places.nodes) / narrowed, narrowed=narrowed,
    )  # fmt: skip


def within_node(group: Group, places: Layout, groups: tuple[Any, ...], memory: SharedMemory | None) -> Path:
    """Over the ranks of a node only: through shared memory, or by an all-reduce of theirs."""
    mates = places.mates(group.rank)
    peers = groups[places.ranks.index(mates)]

    def calls(size: int) -> Traffic:
        summed = Call(collective="all-reduce", ranks=len(mates), buffer_bytes=size)
        return Traffic(calls=() if memory else (summed,))

    return Path(
        name="within the node", ranks=mates, peers=peers, add=memory.add if memory else _all_reduce(peers),
        calls=calls, hook=averaging(memory.add) if memory else None, crosses=lambda _size: 0.0,
    )  # fmt: skip


def node_first(group: Group, places: Layout, leaders: Any, memory: SharedMemory) -> Path:
    """Within each node, then the first ranks of all nodes among themselves, then within the node again."""
    mates = places.mates(group.rank)
    lead, share = group.rank == mates[0], memory.add

    def add(buffer_E: Tensor) -> None:
        share(buffer_E)
        if lead:
            dist.all_reduce(buffer_E, group=leaders)
        else:
            buffer_E.zero_()
        share(buffer_E)

    def calls(size: int) -> Traffic:
        call = Call(collective="all-reduce", ranks=places.nodes, buffer_bytes=size)
        return Traffic(calls=(call,) if lead else ())

    return Path(
        name="node by node", ranks=tuple(range(group.size)), peers=dist.group.WORLD, add=add, hook=averaging(add),
        calls=calls, crosses=lambda size: least_crossing(size, places.nodes),
    )  # fmt: skip


def least_crossing(size_bytes: float, nodes: int) -> float:
    """Bytes that must leave each node to sum a buffer over nodes, whatever the algorithm."""
    return 2 * (nodes - 1) / nodes * size_bytes


def _all_reduce(peers: Any) -> Callable[[Tensor], None]:
    return lambda buffer_E: dist.all_reduce(buffer_E, group=peers)
