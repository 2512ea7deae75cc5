"""Which ranks share a node."""

from typing import Any

import pytest

from workloads.device import Device
from workloads.group import Group
from workloads.parallel.nodes import Layout, layout, refuse_nodes


class Told(Group):
    """A group whose ranks say what they are told to."""

    words: tuple[str, ...] = ()

    def gather(self, mine: Any) -> list[Any]:
        assert mine == self.words[self.rank]
        return list(self.words)


def _group(device: Device, *words: str) -> Told:
    group = Told(rank=0, size=len(words), device=device)
    object.__setattr__(group, "words", words)
    return group


def test_ranks_are_laid_out_by_the_node_that_the_launcher_names(cpu: Device) -> None:
    found = layout(_group(cpu, "node0", "node0", "node1", "node1"), environment={"ROOFLAB_NODE": "node0"})
    assert found.ranks == ((0, 1), (2, 3))
    assert (found.nodes, found.within, found.mates(2)) == (2, 2, (2, 3))


def test_one_machine_can_be_taken_as_several(cpu: Device) -> None:
    assert layout(_group(cpu, "a", "a", "a", "a"), nodes_as=2).ranks == ((0, 1), (2, 3))


@pytest.mark.parametrize("ranks", [((0, 1), (2,)), ((0, 2), (1, 3))])
def test_nodes_that_differ_or_mix_have_no_common_size(ranks: tuple[tuple[int, ...], ...]) -> None:
    assert Layout(ranks=ranks).within == 0


def test_a_number_of_nodes_that_does_not_divide_is_refused() -> None:
    refuse_nodes(None, 3)
    refuse_nodes(3, 6)
    with pytest.raises(ValueError, match=r"^nodes-as=4 does not divide 6 ranks: write 1, 2, 3, 6$"):
        refuse_nodes(4, 6)
