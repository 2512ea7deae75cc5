"""The six collectives: what each rank brings, what it must hold afterwards by arithmetic, and the call between.

Every element is a small integer, (position mod 3) times a count plus something of a rank's own, so that sums are exact
in any order and in bf16 too. A period of 3 fits no power of two, so that a piece which an algorithm puts in the wrong
place does not look right there; what only moves carries the number of the rank it comes from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from labs.roofs import DTYPE_BYTES
from workloads.device import TORCH_DTYPES
from workloads.group import Group

# Shape suffixes: E elements of a buffer, R pieces of it, C elements of a piece, 3 the period.

EXACT_RANKS = {"fp32": 1_000_000, "bf16": 64}
"""Ranks up to which every sum is an integer that the type holds: at most 2 + 3 a rank, and 8 bits in bf16."""
# Newer torch warns of the older names.
_all_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_into = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_CODES = 61
"""What only moves is marked with a number below this, and stays below 256."""
_POISON = -1


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A buffer in R equal pieces, and the three values that go round in each."""

    values_RC: Tensor
    pattern_R3: Tensor

    def fill(self) -> None:
        """Write the values."""
        for values, pattern in self._parts():
            values.copy_(pattern)

    def wrong(self) -> Tensor:
        """How many elements are not as they should be, on the device."""
        found = [torch.count_nonzero(values != pattern) for values, pattern in self._parts()]
        return torch.stack(found).sum()

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        whole = self.values_RC.shape[1] // 3 * 3
        rest = self.values_RC.shape[1] - whole
        return [
            (self.values_RC[:, :whole].unflatten(1, (-1, 3)), self.pattern_R3[:, None, :]),
            (self.values_RC[:, whole:], self.pattern_R3[:, :rest]),
        ]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One collective of one size on this rank, ready to run again and again."""

    size_bytes: int
    """Of the larger of this rank's two buffers, a multiple of the ranks."""
    brought: tuple[Pieces, ...]
    poisoned: tuple[Tensor, ...]
    """Overwritten before each run, so that what was left from the last one cannot pass for a result."""
    due: Pieces
    call: Callable[[], object]

    def prepare(self) -> None:
        """Fill anew what this rank brings, and spoil what it is to receive."""
        for buffer_E in self.poisoned:
            buffer_E.fill_(_POISON)
        for pieces in self.brought:
            pieces.fill()


def operation(collective: str, size_bytes: int, dtype: str, group: Group) -> Operation:
    """That collective over the group, of `size_bytes` or as much of it as the ranks divide."""
    each = max(1, size_bytes // DTYPE_BYTES[dtype] // group.size)
    return _MAKERS[collective](_Maker(group=group, dtype=dtype, each=each))


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """What the six have in common."""

    group: Group
    dtype: str
    each: int
    """Elements of one rank's piece."""

    @property
    def ranks(self) -> range:
        return range(self.group.size)

    @property
    def size_bytes(self) -> int:
        return self.each * self.group.size * DTYPE_BYTES[self.dtype]

    def whole(self) -> Tensor:
        """A buffer of all pieces."""
        return torch.empty(self.each * self.group.size, dtype=TORCH_DTYPES[self.dtype], device=self.group.device.torch)

    def piece(self) -> Tensor:
        """A buffer of one piece."""
        return torch.empty(self.each, dtype=TORCH_DTYPES[self.dtype], device=self.group.device.torch)

    def pieces(self, buffer_E: Tensor, starts: Sequence[int], added: Sequence[int], times: int = 1) -> Pieces:
        """`buffer_E`, a piece for each start; a piece's element i is times · ((start + i) mod 3) + added."""
        cycle_3 = torch.arange(3, device=buffer_E.device)
        start_R1 = torch.tensor(starts, device=buffer_E.device)[:, None]
        added_R1 = torch.tensor(added, device=buffer_E.device)[:, None]
        pattern_R3 = (times * ((cycle_3 + start_R1) % 3) + added_R1).to(buffer_E.dtype)
        return Pieces(values_RC=buffer_E.view(len(starts), -1), pattern_R3=pattern_R3)

    def summed(self, buffer_E: Tensor, start: int) -> Pieces:
        """What a sum over all ranks' contributions must be, from that position on."""
        return self.pieces(buffer_E, [start], [sum(rank % 4 for rank in self.ranks)], times=self.group.size)


def _all_reduce(made: _Maker) -> Operation:
    buffer_E = made.whole()
    mine = made.pieces(buffer_E, [0], [made.group.rank % 4])
    return Operation(size_bytes=made.size_bytes, brought=(mine,), poisoned=(), due=made.summed(buffer_E, 0),
                     call=lambda: dist.all_reduce(buffer_E))  # fmt: skip


def _all_gather(made: _Maker) -> Operation:
    mine_E, all_E, rank = made.piece(), made.whole(), made.group.rank
    return Operation(
        size_bytes=made.size_bytes, poisoned=(all_E,),
        brought=(made.pieces(mine_E, [rank * made.each], [rank % _CODES]),),
        due=made.pieces(all_E, [other * made.each for other in made.ranks], [other % _CODES for other in made.ranks]),
        call=lambda: _all_gather_into(all_E, mine_E),
    )  # fmt: skip


def _reduce_scatter(made: _Maker) -> Operation:
    all_E, mine_E, rank = made.whole(), made.piece(), made.group.rank
    return Operation(
        size_bytes=made.size_bytes, poisoned=(mine_E,), brought=(made.pieces(all_E, [0], [rank % 4]),),
        due=made.summed(mine_E, rank * made.each), call=lambda: _reduce_scatter_into(mine_E, all_E),
    )  # fmt: skip


def _all_to_all(made: _Maker) -> Operation:
    sent_E, received_E, rank = made.whole(), made.whole(), made.group.rank
    nothing = [0] * made.group.size
    return Operation(
        size_bytes=made.size_bytes, poisoned=(received_E,),
        brought=(made.pieces(sent_E, nothing, [(7 * rank + other) % _CODES for other in made.ranks]),),
        due=made.pieces(received_E, nothing, [(7 * other + rank) % _CODES for other in made.ranks]),
        call=lambda: dist.all_to_all_single(received_E, sent_E),
    )  # fmt: skip


def _broadcast(made: _Maker) -> Operation:
    buffer_E = made.whole()
    due = made.pieces(buffer_E, [0], [5])
    root = made.group.rank == 0
    return Operation(size_bytes=made.size_bytes, brought=(due,) if root else (), poisoned=() if root else (buffer_E,),
                     due=due, call=lambda: dist.broadcast(buffer_E, src=0))  # fmt: skip


def _send_recv(made: _Maker) -> Operation:
    sent_E, received_E, rank, size = made.whole(), made.whole(), made.group.rank, made.group.size
    after, before = (rank + 1) % size, (rank - 1) % size
    both: list[dist.P2POp] = []

    def call() -> None:
        if not both:  # made once, in the warm-up
            both.extend((dist.P2POp(dist.isend, sent_E, after), dist.P2POp(dist.irecv, received_E, before)))
        for request in dist.batch_isend_irecv(both):
            request.wait()

    return Operation(
        size_bytes=made.size_bytes, poisoned=(received_E,), brought=(made.pieces(sent_E, [0], [rank % _CODES]),),
        due=made.pieces(received_E, [0], [before % _CODES]), call=call,
    )  # fmt: skip


_MAKERS: dict[str, Callable[[_Maker], Operation]] = {
    "all-reduce": _all_reduce, "all-gather": _all_gather, "reduce-scatter": _reduce_scatter,
    "all-to-all": _all_to_all, "broadcast": _broadcast, "send-recv": _send_recv,
}  # fmt: skip
