"""Interface layout against EC2's own rules: every known type with each count of EFAs, and types to come."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.instances import InstanceType, NetworkCard, instance_type, instance_types
from labs.interfaces import Interface, layout, types_with_efa

EVERY = [(kind, efas) for kind in instance_types().values() for efas in range(kind.efas + 1)]
IDS = [f"{kind.name}-{efas}" for kind, efas in EVERY]


def demand_the_rules_of_ec2(kind: InstanceType, efas: int) -> None:
    found = layout(kind, efas)
    with_efa = [one for one in found if one.kind != "interface"]

    assert (found[0].card, found[0].device) == (0, 0), "the primary interface lies on card 0"
    assert found[0].kind != "efa-only", "the primary interface has an address"
    assert len(with_efa) == efas
    assert max(Counter(one.card for one in with_efa).values(), default=0) <= 1, "one EFA a card"
    assert len({(one.card, one.device) for one in found}) == len(found), "a place holds one interface"
    for one in found:
        assert one.card < len(kind.cards)
        assert one.device < kind.cards[one.card].interfaces
        assert one.kind == "interface" or kind.cards[one.card].efa, "EFA only where the card has it"
    if efas == 1 and kind.cards[0].efa:
        assert found == (Interface(card=0, device=0, kind="efa"),), "a public address stays possible"


@pytest.mark.parametrize(("kind", "efas"), EVERY, ids=IDS)
def test_every_type_obeys_the_rules_of_ec2(kind: InstanceType, efas: int) -> None:
    demand_the_rules_of_ec2(kind, efas)


@st.composite
def types_to_come(draw: st.DrawFn) -> tuple[InstanceType, int]:
    """A type of any shape that EC2 has so far, and how many EFAs of it a lab wants.

    A first card that takes an EFA holds two interfaces or more: of all types, p5.48xlarge has the fewest.
    """
    first = NetworkCard(interfaces=draw(st.integers(2, 15)), efa=draw(st.booleans()))
    others = draw(st.lists(st.builds(NetworkCard, interfaces=st.integers(1, 15), efa=st.booleans()), max_size=40))
    efas = draw(st.integers(0, sum(card.efa for card in (first, *others))))
    facts = {"name": "x1.large", "vcpus": 8, "memory_mib": 1024, "gpus": 1, "gpu": "X", "gpu_memory_mib": 1024}
    sold = {"gbps": 100.0, "nvme_gb": 0, "burstable": False, "capacity_block": False, "usd_per_hour": None}
    return InstanceType(**facts, **sold, cards=(first, *others), efas=efas), draw(st.integers(0, efas))  # type: ignore[arg-type]


@given(types_to_come())
def test_a_type_to_come_obeys_them_too(case: tuple[InstanceType, int]) -> None:
    demand_the_rules_of_ec2(*case)


@pytest.mark.parametrize(("kind", "efas"), EVERY, ids=IDS)
def test_only_the_primary_interface_takes_an_address(kind: InstanceType, efas: int) -> None:
    assert [one.kind for one in layout(kind, efas)[1:]].count("efa-only") == len(layout(kind, efas)) - 1


def test_exactly_one_efa_keeps_a_single_interface() -> None:
    for kind in instance_types().values():
        if kind.efas == 1:
            assert layout(kind, 1) == (Interface(card=0, device=0, kind="efa"),)


def test_a_first_card_without_efa_is_passed_over() -> None:
    found = layout(instance_type("p6-b300.48xlarge"), 16)
    assert [(one.card, one.device) for one in found] == [(0, 0), *((card, 0) for card in range(1, 17))]


def test_a_first_card_with_efa_takes_one_beside_the_primary_interface() -> None:
    found = layout(instance_type("p5.48xlarge"), 32)
    assert [(one.card, one.device) for one in found] == [(0, 0), (0, 1), *((card, 0) for card in range(1, 32))]


def test_more_than_the_type_takes_names_types_that_have_efa() -> None:
    with pytest.raises(ValueError, match=r"efa=1 is not allowed on g6\.xlarge, which takes 0: write efa=off, or a"):
        layout(instance_type("g6.xlarge"), 1)


def test_types_with_efa_come_cheapest_first() -> None:
    prices = [instance_type(name).usd_per_hour for name in types_with_efa()]
    listed = [price for price in prices if price is not None]
    assert prices[: len(listed)] == sorted(listed)
