"""What ranks must send each other: the collectives of one step, by strategy, as exact integers.

A collective over n ranks makes each of them send at least a share of its buffer: (n−1)/n for an all-gather and a
reduce-scatter, 2(n−1)/n for an all-reduce, which is one after the other. Its buffer is what all ranks hold together.
Symbols as in `labs.models`; n ranks, T tokens that a rank computes on in a step, w bytes of an element that travels.

Per step and rank, where one rank alone sends nothing:

    data parallel     2(n−1)/n · w·P                  gradients, averaged
    fully sharded     (n−1)/n · (g·w·P + r·P)         parameters gathered g times, gradients scattered with r bytes
    hybrid sharded    (m−1)/m · (g·w·P + r·P)         the same over the m ranks of a node only, and
                      + 2(k−1)/k · r·P/m              their shards of the gradients summed over k nodes
    tensor parallel   4·L · 2(n−1)/n · w·T·D          each block's output, and its input's gradient
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from labs.models import Model
from labs.roofs import bus_factor


@dataclass(frozen=True, kw_only=True)
class Call:
    """Collectives of one kind and size."""

    collective: str
    """As `labs.roofs.bus_factor` names them."""
    ranks: int
    """That take part."""
    buffer_bytes: int
    """What all ranks hold together, for an all-reduce what each holds."""
    times: int = 1
    """How often it runs in a step."""

    @property
    def sent_bytes(self) -> float:
        """What each rank must send for all of them; nothing where it is alone."""
        return self.times * bus_factor(self.collective, self.ranks) * self.buffer_bytes


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The collectives of one step on one rank."""

    calls: tuple[Call, ...]

    @property
    def sent_bytes(self) -> float:
        """What one rank must send in a step."""
        return sum(call.sent_bytes for call in self.calls)

    @property
    def volumes(self) -> dict[tuple[str, int], int]:
        """Bytes of all buffers by collective and ranks. How they are cut into calls (buckets) does not matter."""
        found: Counter[tuple[str, int]] = Counter()
        for call in self.calls:
            if call.ranks > 1:
                found[call.collective, call.ranks] += call.times * call.buffer_bytes
        return dict(found)

    def unlike(self, counted: "Traffic") -> str:
        """What was `counted` otherwise than predicted here, in words; empty where nothing was."""
        lines = []
        for key in sorted(self.volumes.keys() | counted.volumes.keys()):
            expected, found = self.volumes.get(key, 0), counted.volumes.get(key, 0)
            if expected != found:
                lines.append(f"{key[0]} over {key[1]} ranks: {found:,} B counted, {expected:,} B predicted")
        return "; ".join(lines)


def fold(calls: Iterable[Call]) -> Traffic:
    """Traffic of calls as they came: those alike become one."""
    found: Counter[tuple[str, int, int]] = Counter()
    for call in calls:
        found[call.collective, call.ranks, call.buffer_bytes] += call.times
    return Traffic(calls=tuple(
        Call(collective=name, ranks=ranks, buffer_bytes=size, times=times)
        for (name, ranks, size), times in found.items()
    ))  # fmt: skip


def data_parallel(model: Model, ranks: int, *, size: int = 4) -> Traffic:
    """One all-reduce of all gradients, `size` bytes an element."""
    return Traffic(calls=(Call(collective="all-reduce", ranks=ranks, buffer_bytes=size * model.parameters),))


def fully_sharded(model: Model, ranks: int, *, size: int = 2, reduced: int = 4, gathers: int = 2,
                  root_gathers: int = 1, tensor: int = 1) -> Traffic:  # fmt: skip
    """Parameters gathered layer by layer, gradients scattered; `size` and `reduced` bytes an element.

    `gathers` counts a layer's: 2 where it is given up after the forward pass, 1 where it is kept. FSDP2 keeps what is
    in no layer (tables and last norm, the root) unless told otherwise. `tensor` ranks share each layer's projections.
    """
    rest = 2 * model.table_weights + model.hidden
    layer = (model.attention_weights + model.mlp_weights) // tensor + 2 * model.hidden
    shared = (("all-gather", size * layer, gathers * model.layers), ("all-gather", size * rest, root_gathers),
              ("reduce-scatter", reduced * layer, model.layers), ("reduce-scatter", reduced * rest, 1))  # fmt: skip
    return Traffic(calls=tuple(
        Call(collective=name, ranks=ranks, buffer_bytes=buffer, times=times) for name, buffer, times in shared
    ))  # fmt: skip


def hybrid_sharded(model: Model, within: int, nodes: int, *, size: int = 2, reduced: int = 4, gathers: int = 2,
                   root_gathers: int = 1, tensor: int = 1) -> Traffic:  # fmt: skip
    """Sharded over the `within` ranks of each node, whole on each of `nodes`: only gradients travel between nodes.

    With `within` 1 it is data parallel over all. `tensor` ranks share each layer's projections.
    """
    inside = fully_sharded(model, within, size=size, reduced=reduced, gathers=gathers, root_gathers=root_gathers,
                           tensor=tensor)  # fmt: skip
    between = tuple(
        Call(collective="all-reduce", ranks=nodes, buffer_bytes=call.buffer_bytes // within, times=call.times)
        for call in inside.calls if call.collective == "reduce-scatter"
    )  # fmt: skip
    return Traffic(calls=(*inside.calls, *between))


def tensor_parallel(model: Model, ranks: int, tokens: int, *, size: int = 2) -> Traffic:
    """Training: in each layer attention and feed-forward each sum their output, and their input's gradient."""
    buffer = size * tokens * model.hidden
    return Traffic(calls=(Call(collective="all-reduce", ranks=ranks, buffer_bytes=buffer, times=4 * model.layers),))


def sequence_parallel(model: Model, ranks: int, tokens: int, *, size: int = 2, norm_size: int = 4) -> Traffic:
    """As tensor parallel, with each all-reduce taken apart: a block's input is gathered and its output scattered.

    Between the blocks each rank holds its share of the positions: two more gathers, before the last norm and for the
    input table's gradient, and the norms' gradients, `norm_size` bytes an element, are sums over ranks too.
    """
    buffer, blocks = size * tokens * model.hidden, 4 * model.layers
    return Traffic(calls=(
        Call(collective="all-gather", ranks=ranks, buffer_bytes=buffer, times=blocks + 2),
        Call(collective="reduce-scatter", ranks=ranks, buffer_bytes=buffer, times=blocks),
        Call(collective="all-reduce", ranks=ranks, buffer_bytes=norm_size * model.hidden, times=2 * model.layers),
    ))  # fmt: skip


def tensor_decode(model: Model, ranks: int, tokens: int, *, size: int = 2, sequences: int = 1) -> Traffic:
    """Inference on `tokens` new tokens of `sequences`: two all-reduces a layer, and the logits of each last token."""
    return Traffic(calls=(
        Call(collective="all-reduce", ranks=ranks, buffer_bytes=size * tokens * model.hidden, times=2 * model.layers),
        Call(collective="all-gather", ranks=ranks, buffer_bytes=size * sequences * model.vocabulary),
    ))  # fmt: skip
