"""Nodes come from EC2, in a fixed order, and a shortage is told in EC2's own words."""

from datetime import UTC, datetime

import pytest

from labs.names import TAG_NODE, TAG_STACK
from operate.nodes import await_nodes, find_nodes, read_nodes
from operate.problem import Problem
from operate.stack import Stack, deploy_command, deployed_stack, destroy_command


def instance(identity, address, *, node=None, port=None, state="running", public="198.51.100.7"):
    tags = [{"Key": TAG_NODE, "Value": node}] if node is not None else []
    tags += [{"Key": "rooflab:ssh-port", "Value": port}] if port else []
    return {
        "InstanceId": identity,
        "InstanceType": "g6.xlarge",
        "PrivateIpAddress": address,
        "PublicIpAddress": public,
        "State": {"Name": state},
        "SecurityGroups": [{"GroupId": "sg-1", "GroupName": "x"}],
        "Tags": tags,
    }


def launch(account, count, stack="Lab3Stack"):
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG_STACK, "Value": stack}]}]
    return account.client("ec2").run_instances(
        ImageId="ami-12c6146b", MinCount=count, MaxCount=count, TagSpecifications=tags, InstanceType="g6.xlarge"
    )["Instances"]


def stack(**outputs):
    return Stack(name="Lab3Stack", status="CREATE_COMPLETE", created=datetime.now(UTC), outputs=outputs, tags={})


def test_nodes_are_ordered_and_named_by_their_tag_so_that_a_loss_renames_nobody():
    nodes = read_nodes([instance("i-b", "10.0.0.4", node="10"), instance("i-a", "10.0.0.9", node="2")])
    assert [(node.name, node.instance_id) for node in nodes] == [("node2", "i-a"), ("node10", "i-b")]


def test_a_fleets_nodes_are_ordered_by_address_as_a_number():
    nodes = read_nodes([instance("i-b", "10.0.0.100"), instance("i-a", "10.0.0.20")])
    assert [node.instance_id for node in nodes] == ["i-a", "i-b"]


def test_login_and_port_are_the_images_own_unless_tagged():
    (plain,) = read_nodes([instance("i-a", "10.0.0.1")])
    assert (plain.user, plain.port, plain.peer_address) == ("ubuntu", 22, "10.0.0.1")
    (tagged,) = read_nodes([instance("i-a", "10.0.0.1", port="2222", public="127.77.0.1")])
    assert (tagged.port, tagged.address, tagged.peer_address) == (2222, "127.77.0.1", "10.0.0.1")


def test_only_the_stacks_living_instances_are_its_nodes(account):
    ours = launch(account, 2)
    launch(account, 1, stack="Lab3Stack-alice")
    account.client("ec2").terminate_instances(InstanceIds=[ours[0]["InstanceId"]])
    assert [node.instance_id for node in find_nodes(account, "Lab3Stack")] == [ours[1]["InstanceId"]]


def test_all_nodes_that_were_asked_for_are_given(account):
    launch(account, 2)
    assert [node.name for node in await_nodes(account, stack(Nodes="2"))] == ["node0", "node1"]


def test_too_few_nodes_are_a_problem(account):
    launch(account, 1)
    with pytest.raises(Problem, match=r"Lab3Stack has 1 of its 2 nodes; .*cdk destroy Lab3Stack"):
        await_nodes(account, stack(Nodes="2"))


def test_an_empty_fleet_says_why_in_ec2s_words(account, monkeypatch):
    asked = {}

    def describe_fleets(**given):
        asked.update(given)
        error = {"ErrorCode": "InsufficientInstanceCapacity", "ErrorMessage": "There is no Spot capacity available"}
        return {"Fleets": [{"FleetId": "fleet-1", "Errors": [error, error]}]}

    monkeypatch.setattr(account.client("ec2"), "describe_fleets", describe_fleets)
    with pytest.raises(Problem) as caught:
        await_nodes(account, stack(Nodes="1", FleetId="fleet-1"))
    assert asked == {"FleetIds": ["fleet-1"]}, "an instant fleet answers only by its id"
    said = "Lab3Stack has 0 of its 1 nodes: InsufficientInstanceCapacity: There is no Spot capacity available"
    assert caught.value.cause == said
    assert "-c capacity=on-demand" in caught.value.remedy


def test_a_node_that_stays_pending_is_waited_for_and_then_named(account, monkeypatch):
    pending = read_nodes([instance("i-a", "10.0.0.1", state="pending", public="")])
    monkeypatch.setattr("operate.nodes.find_nodes", lambda *_, **__: pending)
    slept: list[float] = []
    told: list[str] = []
    with pytest.raises(Problem, match=r"after 9 s node0 \(i-a\) is pending"):
        await_nodes(account, stack(Nodes="1"), limit_s=9, tell=told.append, sleep=slept.append)
    assert slept == [3, 3, 3]
    assert told[0] == "node0 (i-a) is pending"


def test_a_stack_that_is_not_there_names_the_command_that_deploys_it(account):
    with pytest.raises(Problem, match=r"^Lab3Stack is not deployed in us-east-1: cdk deploy Lab3Stack$"):
        deployed_stack(account, "Lab3Stack")
    assert deploy_command("Lab3Stack-alice") == "cdk deploy Lab3Stack -c name=alice"
    assert destroy_command("Lab3Stack-alice") == "cdk destroy Lab3Stack -c name=alice"


def test_nodes_without_a_public_address_are_reached_by_their_private_one(account, monkeypatch):
    found = [instance("i-a", "10.0.0.7", public="198.51.100.7"), instance("i-b", "10.0.0.9", public="")]
    asked: list[bool] = []

    def find_nodes(*_, private):
        asked.append(private)
        return read_nodes(found, private=private)

    monkeypatch.setattr("operate.nodes.find_nodes", find_nodes)
    for way in ("endpoint", "session"):
        nodes = await_nodes(
            account, stack(Nodes="2", Access=way), sleep=lambda _: pytest.fail("there is nothing to wait")
        )
        assert [node.address for node in nodes] == ["10.0.0.7", "10.0.0.9"]
    with pytest.raises(Problem, match=r"after 3 s node1 \(i-b\) is running, not running with a public address"):
        await_nodes(account, stack(Nodes="2", Access="elastic"), limit_s=3, sleep=lambda _: None)
    assert asked == [True, True, False, False]


def test_the_accounts_clock_is_its_own(account):
    account.observe({"ResponseMetadata": {"HTTPHeaders": {"date": "Fri, 20 Nov 2020 10:00:00 GMT"}}})
    assert abs((account.now() - datetime(2020, 11, 20, 10, tzinfo=UTC)).total_seconds()) < 600


def test_clients_are_made_once(account):
    assert account.client("ec2") is account.client("ec2")
