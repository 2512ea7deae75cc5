"""The combinations leave out nothing that a lab may ask for."""

from labs.catalog import LABS
from labs.instances import instance_types
from labs.storage import SIZES
from tests.soak.combinations import CAPACITIES, cases


def test_every_type_is_tried_on_every_capacity_that_it_is_sold_on() -> None:
    tried = {(given.get("instance_type"), given.get("capacity")) for given in cases().values()}
    for name, kind in instance_types().items():
        for capacity in CAPACITIES:
            assert ((name, capacity) in tried) == (capacity != "block" or kind.capacity_block), (name, capacity)


def test_every_storage_access_and_lab_is_tried() -> None:
    seen: dict[str, set[object]] = {}
    for given in cases().values():
        for field, value in given.items():
            seen.setdefault(field, set()).add(value)
    assert seen["storage"] == set(SIZES)
    assert seen["access"] == {"eice", "ssm"}
    assert seen["number"] == set(LABS)
    assert {"data", "image", "group", "alternatives", "efa", "storage_gib"} <= set(seen)
