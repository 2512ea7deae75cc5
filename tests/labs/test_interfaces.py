"""Interface layout of every type that is known, against EC2's own rules; each count of EFAs that a type takes."""

from collections import Counter

import pytest

from labs.instances import InstanceType, instance_type, instance_types
from labs.interfaces import Interface, layout, types_with_efa

EVERY = [(kind, efas) for kind in instance_types().values() for efas in range(kind.efas + 1)]
IDS = [f"{kind.name}-{efas}" for kind, efas in EVERY]


@pytest.mark.parametrize(("kind", "efas"), EVERY, ids=IDS)
def test_obeys_the_rules_of_ec2(kind: InstanceType, efas: int) -> None:
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
