"""Stacks of a whole rehearsal: what needs its EC2 and FSx is made through CloudFormation, and leaves nothing."""

import json
from typing import Any

import pytest

from rehearsal import control
from tests.rehearsal.worlds import IMAGE, Lab, World, final


def res(kind: str, after: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties, **({"DependsOn": list(after)} if after else {})}


class Stacks:
    """CloudFormation of the shared rehearsal."""

    def __init__(self, world: World) -> None:
        self.client = world.client("cloudformation")

    def create(self, name: str, resources: dict[str, Any], **outputs: Any) -> dict[str, Any]:
        """The stack in its final state."""
        body = {"Resources": resources, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}
        self.client.create_stack(StackName=name, TemplateBody=json.dumps(body))
        return final(self.client, name)

    def delete(self, stack: dict[str, Any]) -> dict[str, Any]:
        """The stack in its final state."""
        self.client.delete_stack(StackName=stack["StackName"])
        return final(self.client, stack["StackId"])

    def reasons(self, name: str) -> str:
        rows = self.client.describe_stack_events(StackName=name)["StackEvents"]
        return " ".join(row.get("ResourceStatusReason", "") for row in rows)


@pytest.fixture
def stacks(world: World) -> Stacks:
    return Stacks(world)


def network() -> dict[str, Any]:
    """What CDK makes of a VPC with IPv6 that only lets out."""
    of_vpc: dict[str, Any] = {"VpcId": {"Ref": "Vpc"}}
    ranges = {"Fn::Cidr": [{"Fn::Select": [0, {"Fn::GetAtt": ["Vpc", "Ipv6CidrBlocks"]}]}, 2, "64"]}
    ssh: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    return {
        "Vpc": res("EC2::VPC", CidrBlock="10.0.0.0/16"),
        "Range": res("EC2::VPCCidrBlock", **of_vpc, AmazonProvidedIpv6CidrBlock=True),
        "Subnet": res("EC2::Subnet", ("Range",), **of_vpc, CidrBlock="10.0.0.0/20", AvailabilityZone="us-east-1a",
                      Ipv6CidrBlock={"Fn::Select": [1, ranges]}, AssignIpv6AddressOnCreation=True),
        "Table": res("EC2::RouteTable", **of_vpc),
        "Join": res("EC2::SubnetRouteTableAssociation", RouteTableId={"Ref": "Table"}, SubnetId={"Ref": "Subnet"}),
        "Gateway": res("EC2::EgressOnlyInternetGateway", **of_vpc),
        "Out": res("EC2::Route", RouteTableId={"Ref": "Table"}, DestinationIpv6CidrBlock="::/0",
                   EgressOnlyInternetGatewayId={"Ref": "Gateway"}),
        "Nodes": res("EC2::SecurityGroup", **of_vpc, GroupDescription="nodes"),
        "Door": res("EC2::SecurityGroup", **of_vpc, GroupDescription="door"),
        "In": res("EC2::SecurityGroupIngress", GroupId={"Ref": "Nodes"}, SourceSecurityGroupId={"Ref": "Door"}, **ssh),
        "Endpoint": res("EC2::InstanceConnectEndpoint", SubnetId={"Ref": "Subnet"}, SecurityGroupIds=[{"Ref": "Door"}],
                        Tags=[{"Key": "a", "Value": "b"}]),
    }  # fmt: skip


def test_a_network_that_only_lets_out_is_made_and_leaves_nothing(stacks: Stacks, world: World) -> None:
    ec2 = world.client("ec2")
    made = network()
    interfaces = [{"DeviceIndex": 0, "SubnetId": {"Ref": "Subnet"}, "Groups": [{"Ref": "Nodes"}],
                   "Ipv6AddressCount": 1}]  # fmt: skip
    data = {"ImageId": IMAGE, "InstanceType": "t3.medium", "NetworkInterfaces": interfaces}
    made["Template"] = res("EC2::LaunchTemplate", LaunchTemplateData=data)
    made["Node"] = res("EC2::Instance", LaunchTemplate={"LaunchTemplateId": {"Ref": "Template"}, "Version": "1"})
    made["Own"] = res("EC2::NetworkInterface", SubnetId={"Ref": "Subnet"}, Ipv6AddressCount=1)
    stack = stacks.create("Private", made, Id={"Ref": "Endpoint"}, Own={"Fn::GetAtt": ["Own", "PrimaryIpv6Address"]},
                          Node={"Ref": "Node"}, Vpc={"Ref": "Vpc"})  # fmt: skip
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("Private")
    outputs = {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}
    subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [outputs["Vpc"]]}])["Subnets"][0]
    ipv6 = subnet["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    assert ipv6.endswith("01::/64")
    assert outputs["Own"].startswith(ipv6.split("::")[0])
    found = ec2.describe_instances(InstanceIds=[outputs["Node"]])["Reservations"][0]["Instances"][0]
    assert found["NetworkInterfaces"][0]["Ipv6Addresses"][0]["Ipv6Address"].startswith(ipv6.split("::")[0])
    (endpoint,) = ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[outputs["Id"]])[
        "InstanceConnectEndpoints"]  # fmt: skip
    assert (endpoint["State"], endpoint["Tags"]) == ("create-complete", [{"Key": "a", "Value": "b"}])
    routes = ec2.describe_route_tables(Filters=[{"Name": "route-table-id", "Values": [_physical(stacks, "Table")]}])
    out = [row for row in routes["RouteTables"][0]["Routes"] if row.get("DestinationIpv6CidrBlock") == "::/0"]
    assert out[0]["EgressOnlyInternetGatewayId"].startswith("eigw-")
    assert stacks.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert not ec2.describe_vpcs(Filters=[{"Name": "vpc-id", "Values": [outputs["Vpc"]]}])["Vpcs"]


def _physical(stacks: Stacks, name: str) -> str:
    held = stacks.client.describe_stack_resource(StackName="Private", LogicalResourceId=name)
    return str(held["StackResourceDetail"]["PhysicalResourceId"])


def test_a_failure_after_the_endpoint_takes_everything_back(stacks: Stacks, world: World) -> None:
    ec2 = world.client("ec2")
    before = len(ec2.describe_vpcs()["Vpcs"])
    made = {**network(), "Bad": res("EC2::InstanceConnectEndpoint", ("Endpoint",), SubnetId={"Ref": "Subnet"})}
    assert stacks.create("Failing", made)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "The maximum number of EC2 Instance Connect Endpoints for the VPC" in stacks.reasons("Failing")
    assert len(ec2.describe_vpcs()["Vpcs"]) == before
    stacks.client.delete_stack(StackName="Failing")


def test_a_file_system_and_what_it_imports_go_in_order(stacks: Stacks, lab: Lab) -> None:
    s3, bucket = lab.world.client("s3"), f"import-{lab.vpc}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="set/one", Body=b"1")

    def made(where: str) -> dict[str, Any]:
        return {
            "System": res("FSx::FileSystem", FileSystemType="LUSTRE", FileSystemTypeVersion="2.15",
                          StorageCapacity=1200, SubnetIds=[lab.subnet], SecurityGroupIds=[lab.group],
                          LustreConfiguration={"DeploymentType": "SCRATCH_2"}),
            "Import": res("FSx::DataRepositoryAssociation", FileSystemId={"Ref": "System"}, FileSystemPath="/data",
                          DataRepositoryPath=where, BatchImportMetaDataOnCreate=True,
                          S3={"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}}),
        }  # fmt: skip

    stack = stacks.create("Imports", made(f"s3://{bucket}/set/"), Id={"Ref": "System"})
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("Imports")
    folder = lab.world.state / "shared" / stack["Outputs"][0]["OutputValue"] / "data"
    assert (folder / "one").read_bytes() == b"1"
    assert stacks.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    told = stacks.client.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    deleted = [row["LogicalResourceId"] for row in reversed(told) if row["ResourceStatus"] == "DELETE_COMPLETE"]
    assert deleted[:2] == ["Import", "System"]
    assert stacks.create("Nowhere", made("s3://no-such-bucket-here"))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Amazon FSx is unable to validate access to the S3 bucket" in stacks.reasons("Nowhere")


def _fleet(lab: Lab) -> dict[str, Any]:
    data = {**lab.order(), "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": [lab.group]}]}
    return {
        "Template": res("EC2::LaunchTemplate", LaunchTemplateData=data),
        "Fleet": res("EC2::EC2Fleet", Type="instant", LaunchTemplateConfigs=[{
            "LaunchTemplateSpecification": {"LaunchTemplateId": {"Ref": "Template"}, "Version": "1"},
            "Overrides": [{"SubnetId": lab.subnet}]}],
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"}),
    }  # fmt: skip


def test_a_fleet_that_comes_up_short_leaves_a_stack_without_nodes_or_fails_it(stacks: Stacks, lab: Lab) -> None:
    world = lab.world
    control.fault(world.name, "no-capacity", root=world.root, left=0)
    stack = stacks.create("Short", _fleet(lab), Id={"Ref": "Fleet"})
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    (fleet,) = lab.ec2.describe_fleets(FleetIds=[stack["Outputs"][0]["OutputValue"]])["Fleets"]
    assert (fleet["FulfilledCapacity"], fleet["Errors"][0]["ErrorCode"]) == (0.0, "InsufficientInstanceCapacity")
    assert stacks.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    control.fault(world.name, "no-capacity", root=world.root, left=0, fleet="fails")
    assert stacks.create("Failed", _fleet(lab))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "There is no Spot capacity available that matches your request." in stacks.reasons("Failed")
    control.clear(world.name, root=world.root)


def test_a_topic_its_subscription_and_its_policy_are_made_and_leave_nothing(stacks: Stacks, world: World) -> None:
    sns = world.client("sns")
    statement = {"Effect": "Deny", "Principal": "*", "Action": "sns:Publish", "Resource": "*",
                 "Condition": {"Bool": {"aws:SecureTransport": "false"}}}  # fmt: skip
    topic = {"Ref": "Topic"}
    made = {
        "Topic": res("SNS::Topic", DisplayName="ends"),
        "Me": res("SNS::Subscription", TopicArn=topic, Protocol="email", Endpoint="me@example.org"),
        "Rules": res(
            "SNS::TopicPolicy", Topics=[topic], PolicyDocument={"Version": "2012-10-17", "Statement": [statement]}
        ),
    }
    stack = stacks.create("Told", made, Topic=topic)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("Told")
    arn = stack["Outputs"][0]["OutputValue"]
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "me@example.org")
    policy = json.loads(sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"])
    assert policy["Statement"][0]["Action"] == "sns:Publish"
    sns.publish(TopicArn=arn, Subject="Lab3Stack ends", Message="in 30 minutes")
    assert stacks.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert arn not in [row["TopicArn"] for row in sns.list_topics()["Topics"]]
    assert arn not in str(sns.list_subscriptions()["Subscriptions"])
