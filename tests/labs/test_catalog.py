"""The catalogue's policy: what the labs are, what may replace their defaults, and what is refused with which words."""

import importlib.util
import re

import pytest

from labs.catalog import LABS, Workload, find_lab
from labs.storage import STORAGE


def test_the_labs_are_numbered_from_0_to_4_and_their_stacks_after_them() -> None:
    assert list(LABS) == [0, 1, 2, 3, 4]
    assert [lab.stack for lab in LABS.values()] == [f"Lab{number}Stack" for number in range(5)]


def test_default_clusters() -> None:
    assert {number: (lab.nodes, lab.instance_type, lab.capacity, lab.storage) for number, lab in LABS.items()} == {
        0: (1, "g6.xlarge", "on-demand", "none"),
        1: (1, "g6.xlarge", "on-demand", "none"),
        2: (1, "g6.12xlarge", "on-demand", "none"),
        3: (2, "g6.12xlarge", "on-demand", "scratch"),
        4: (1, "g6e.12xlarge", "spot", "scratch"),
    }
    assert all(lab.ttl_hours == 4 for lab in LABS.values())


def test_every_workload_is_a_module_that_exists() -> None:
    for lab in LABS.values():
        assert lab.workloads
        for workload in lab.workloads:
            assert importlib.util.find_spec(workload.module), workload
            assert workload.module == f"workloads.{workload.name.replace('-', '_')}"
            assert workload.scope in ("node", "cluster")


def test_efa_and_placement_group_come_with_the_second_node() -> None:
    assert (LABS[2].efas, LABS[2].placement_group) == (0, False)
    assert (LABS[3].efas, LABS[3].placement_group) == (1, True)
    assert LABS[3].override(efa="off").efas == 0
    assert LABS[2].override(efa="on").efas == 1


def test_burstable_types_and_capacity_blocks_take_no_placement_group() -> None:
    assert not LABS[3].override(instance_type="t3.medium").placement_group
    assert LABS[3].override(instance_type="c7i.large").placement_group
    assert not LABS[3].override(instance_type="p5.4xlarge", capacity="block:cr-0123").placement_group


def test_a_cpu_type_needs_a_smaller_volume_and_gets_no_efa() -> None:
    cpu = LABS[3].override(instance_type="t3.medium")
    assert (cpu.efas, cpu.volume_gib, LABS[3].volume_gib) == (0, 40, 150)


def test_values_may_be_text_as_a_command_line_gives_them() -> None:
    lab = LABS[1].override(nodes="2", ttl_hours="0.5", instance_type="c7i.large", name="alice", owner="a@b.c")
    assert (lab.nodes, lab.ttl_hours, lab.instance_type, lab.stack) == (2, 0.5, "c7i.large", "Lab1Stack-alice")


def test_none_keeps_the_default() -> None:
    assert LABS[3].override(nodes=None, storage=None) == LABS[3]


@pytest.mark.parametrize("capacity", ["on-demand", "spot", "reservation:cr-0abc", "block:cr-0123456789abcdef0"])
def test_capacities(capacity: str) -> None:
    assert LABS[2].override(instance_type="p5.48xlarge", capacity=capacity).capacity == capacity


@pytest.mark.parametrize("storage", STORAGE)
def test_storages(storage: str) -> None:
    assert LABS[0].override(storage=storage).storage == storage


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("nodes", "0", "nodes=0 is not allowed: write a whole number from 1 to 64"),
        ("nodes", 65, "nodes=65 is not allowed"),
        ("nodes", "two", "nodes='two' is not a number: write for example nodes=2"),
        ("nodes", "1.5", "nodes='1.5' is not a number"),
        ("ttl_hours", "0", "ttl_hours=0.0 is not allowed: write 0.1 to 168"),
        ("ttl_hours", "nan", "ttl_hours=nan is not allowed"),
        ("ttl_hours", "soon", "ttl_hours='soon' is not a number"),
        ("storage", "nfs", r"storage='nfs' is not allowed: write none \| scratch"),
        ("capacity", "cheap", r"capacity='cheap' is not allowed: write on-demand \| spot \| reservation:cr-"),
        ("capacity", "block:cr-0123", "capacity='block:cr-0123' is not allowed: .* g6.12xlarge is not sold as"),
        ("efa", "yes", r"efa='yes' is not allowed: write auto \| on \| off"),
        ("zone", "virginia", "zone='virginia' is not allowed: write an availability zone such as us-east-1d"),
        ("owner", "a b", "owner='a b' is not allowed"),
        ("name", "Alice", "name='Alice': write 1 to 20 characters"),
        ("instance_type", "g6", "instance_type='g6' is not an EC2 type: write FAMILY.SIZE"),
        ("workloads", "gemm", "field='workloads' is not allowed: write access, alternatives, capacity, data, efa"),
        ("node", "2", "field='node' is not allowed"),
    ],
)
def test_what_is_not_allowed_is_refused_with_field_value_and_remedy(field: str, given: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        LABS[3].override(**{field: given})


def test_efa_on_a_type_without_it_names_types_with_it() -> None:
    with pytest.raises(ValueError, match=r"^efa='on' is not allowed: .* g6.xlarge takes no EFA; g6.12xlarge"):
        LABS[1].override(efa="on")


@pytest.mark.parametrize("number", [3, "3", " 3 "])
def test_a_lab_is_found_by_number_or_text(number: object) -> None:
    assert find_lab(number) is LABS[3]


def test_an_unknown_lab_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"^lab='9' does not exist: write one of 0 \(First light: .*4 \(Performance"):
        find_lab("9")


def test_a_lab_has_the_smallest_file_system_unless_it_asks_for_more() -> None:
    assert (LABS[3].capacity_gib, LABS[2].capacity_gib) == (1200, 0)
    assert LABS[3].override(storage_gib="4800").capacity_gib == 4800
    assert LABS[3].override(storage="efa").capacity_gib == 4800


def test_public_addresses_where_ec2_can_give_them_and_an_endpoint_where_not() -> None:
    many = {"instance_type": "p5.48xlarge"}
    assert LABS[3].way == "address"
    assert LABS[3].override(**many).way == "elastic"
    assert LABS[3].override(**many, nodes=3).way == "endpoint", "its template would outgrow 50 KiB"
    assert LABS[3].override(instance_type="p4d.24xlarge", nodes=4).way == "elastic"
    assert LABS[3].override(instance_type="p4d.24xlarge", nodes=5).way == "endpoint"
    assert LABS[3].override(**many, capacity="spot").way == "endpoint"
    assert LABS[0].override(access="eice").way == "endpoint"
    assert LABS[0].override(access="ssm").way == "session"


def test_another_type_or_capacity_does_not_keep_the_defaults_alternatives() -> None:
    assert LABS[4].types == ("g6e.12xlarge", "g6.12xlarge")
    assert LABS[4].override(instance_type="t3.medium").types == ("t3.medium",)
    assert LABS[4].override(capacity="on-demand").types == ("g6e.12xlarge",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"storage_gib": "1300"}, "storage_gib=1300 is not sold: write 1200 or 2400"),
        ({"storage": "efa", "storage_gib": "1200"}, "storage_gib=1200 is not sold: write 4800"),
        ({"storage": "none", "data": "results"}, "data='results' is not allowed: write it with storage=scratch"),
        ({"data": "s3:/bucket"}, "data='s3:/bucket' is not allowed: write s3://BUCKET/PREFIX | results"),
        ({"capacity": "spot", "alternatives": "g5.xlarge"}, "write types with the GPUs, NVMe and interfaces of g6.12x"),
        (
            {"capacity": "spot", "alternatives": "g5.12xlarge+g5.12xlarge"},
            "alternatives='g5.12xlarge+g5.12xlarge' is not allowed: write each type once",
        ),
        (
            {"instance_type": "c7i.large", "capacity": "spot", "alternatives": "t3.medium"},
            "alternatives='t3.medium' is not allowed: write types with the GPUs, NVMe and interfaces of c7i.large",
        ),
        ({"alternatives": "g5.12xlarge"}, "alternatives='g5.12xlarge' is not allowed: write it with capacity=spot"),
        (
            {"access": "public", "instance_type": "p5.48xlarge", "nodes": 5},
            "access='public' is not allowed: write auto or eice, for 5 × p5.48xlarge on on-demand cannot have public "
            "addresses (EC2 assigns none beside a second interface; Elastic IPs are for 4 nodes and 66 interfaces, and "
            "for no fleet)",
        ),
        ({"image": "ubuntu"}, "image='ubuntu' is not allowed: write ami-0123456789abcdef0 | baked"),
        ({"group": "mine"}, "group='mine' is not allowed: write it with capacity=reservation:cr-"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        LABS[3].override(**given)


def test_only_what_runs_over_the_cluster_is_started_again() -> None:
    assert Workload(name="a", module="a", scope="cluster", restarts=3).restarts == 3
    with pytest.raises(ValueError, match=re.escape("restarts=1 is not allowed: write 0, for a runs on each node")):
        Workload(name="a", module="a", restarts=1)
    with pytest.raises(ValueError, match="restarts=101 is not allowed: write a whole number from 0 to 100"):
        Workload(name="a", module="a", scope="cluster", restarts=101)
