"""Instance types: facts that a stack or a price stands on, and refusals that name near types."""

import pytest

from labs.instances import NetworkCard, instance_type, instance_types, price_source


def test_the_default_types_of_the_labs() -> None:
    small, node = instance_type("g6.xlarge"), instance_type("g6.12xlarge")
    assert (small.gpus, small.gpu, small.efas, small.usd_per_hour) == (1, "L4", 0, 0.8048)
    assert (node.gpus, node.gpu, node.efas, node.gbps) == (4, "L4", 1, 40)
    assert node.usd_per_hour == pytest.approx(4.6016)
    assert node.cards == (NetworkCard(interfaces=8, efa=True),)


def test_p5_has_32_cards_with_an_efa_each() -> None:
    kind = instance_type("p5.48xlarge")
    assert len(kind.cards) == kind.efas == 32
    assert all(card.efa for card in kind.cards)


def test_every_type_is_consistent() -> None:
    for name, kind in instance_types().items():
        assert kind.name == name
        assert (kind.gpus > 0) == (kind.gpu is not None) == (kind.gpu_memory_mib > 0), name
        assert kind.efas <= sum(card.efa for card in kind.cards), name
        assert kind.vcpus > 0
        assert kind.gbps > 0
        assert kind.usd_per_hour is None or kind.usd_per_hour > 0, name
        assert kind.burstable == name.startswith(("t2.", "t3.", "t3a.", "t4g.")), name


@pytest.mark.parametrize("name", ["", "g6", "g6.", ".xlarge", "g6 .xlarge", "G6.xlarge", "g6.xlarge;rm", "g6.xlarge.x"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not an EC2 type: write FAMILY.SIZE, for example g6.12xlarge$"):
        instance_type(name)


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^instance_type='g6.11xlarge' is not in .*: did you mean g6.1[26]xlarge, .*\?$"
    ):
        instance_type("g6.11xlarge")
    with pytest.raises(ValueError, match=r"did you mean g6.xlarge, g6.12xlarge, t3.medium\?$"):
        instance_type("qqq.zzz")


def test_prices_say_where_and_when_they_come_from() -> None:
    assert "us-east-1" in price_source()
    assert price_source().endswith("2026-07-20")
