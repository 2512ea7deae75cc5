"""Instance Connect Endpoints and their tunnel: who may pass, who may not, and IPv6 beside them."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import botocore.session
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.signers import RequestSigner
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from rehearsal import control
from tests.rehearsal.worlds import Lab, World, await_that

DOOR = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]


class Private:
    """A subnet with IPv6 and an endpoint, and one node without a public address."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.ec2 = lab, lab.ec2
        self.range = self.ec2.associate_vpc_cidr_block(VpcId=lab.vpc, AmazonProvidedIpv6CidrBlock=True)[
            "Ipv6CidrBlockAssociation"]  # fmt: skip
        self.subnet = self.ec2.create_subnet(
            VpcId=lab.vpc, CidrBlock="10.0.64.0/20", AvailabilityZone="us-east-1a",
            Ipv6CidrBlock=self.range["Ipv6CidrBlock"].replace("/56", "/64"),
        )["Subnet"]["SubnetId"]  # fmt: skip
        self.group = self.ec2.create_security_group(VpcId=lab.vpc, GroupName="door", Description="door")["GroupId"]
        self.endpoint = self.ec2.create_instance_connect_endpoint(
            SubnetId=self.subnet, SecurityGroupIds=[self.group],
            TagSpecifications=[{"ResourceType": "instance-connect-endpoint", "Tags": [{"Key": "a", "Value": "b"}]}],
        )["InstanceConnectEndpoint"]  # fmt: skip
        self.id = self.endpoint["InstanceConnectEndpointId"]
        await_that(lambda: self.shown()["State"] == "create-complete")
        self.interface = {"DeviceIndex": 0, "SubnetId": self.subnet, "Groups": [lab.group], "Ipv6AddressCount": 1}
        (self.node,) = lab.run(NetworkInterfaces=[self.interface])

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_instance_connect_endpoints(
            Filters=[{"Name": "tag:a", "Values": ["b"]}, {"Name": "vpc-id", "Values": [self.lab.vpc]}]
        )["InstanceConnectEndpoints"][0]
        return found

    def admit(self) -> None:
        """Let the endpoint's group reach the nodes' port 22."""
        pair = [{**DOOR[0], "UserIdGroupPairs": [{"GroupId": self.group}]}]
        self.ec2.authorize_security_group_ingress(GroupId=self.lab.group, IpPermissions=pair)

    def url(self, key: str = "", secret: str = "", **given: Any) -> str:
        query = {"instanceConnectEndpointId": self.id, "remotePort": 22, "privateIpAddress":
                 self.node["PrivateIpAddress"], "maxTunnelDuration": 3600, **given}  # fmt: skip
        environment, session = self.lab.world.environment, botocore.session.get_session()
        keys = Credentials(key or environment["AWS_ACCESS_KEY_ID"], secret or environment["AWS_SECRET_ACCESS_KEY"])
        model, name = session.get_service_model("ec2-instance-connect"), self.shown()["DnsName"]
        signer = RequestSigner(model.service_id, "us-east-1", model.signing_name, "v4", keys,
                               session.get_component("event_emitter"))  # fmt: skip
        request = {"url": f"ws://{name}/openTunnel?{urlencode(query)}", "body": {}, "headers": {"host": name},
                   "method": "GET", "query_string": "", "url_path": "/", "context": {}}  # fmt: skip
        signed: str = signer.generate_presigned_url(request_dict=request, operation_name="openTunnel", expires_in=60)
        return signed

    def greeting(self, **given: Any) -> bytes:
        """The first frame that comes through a tunnel."""
        with connect(self.url(**given), proxy=None) as tunnel:
            frame = tunnel.recv(240)
            assert isinstance(frame, bytes)
            return frame


@pytest.fixture
def private(lab: Lab) -> Private:
    return Private(lab)


def test_a_tunnel_leads_to_the_node_that_has_no_address_and_only_while_the_groups_admit_it(private: Private) -> None:
    assert "PublicIpAddress" not in private.node
    (address,) = private.node["NetworkInterfaces"][0]["Ipv6Addresses"]
    assert address["Ipv6Address"].startswith(private.range["Ipv6CidrBlock"].split("::")[0])
    with pytest.raises(ConnectionClosedError, match="Unable to connect to target"):
        private.greeting()
    private.admit()
    assert private.greeting().startswith(b"SSH-2.0-")
    assert private.lab.world.status()["nodes"][-1]["open"] is False  # the way in opens no door to anybody else
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    private.ec2.revoke_security_group_egress(GroupId=private.group, IpPermissions=everything)
    with pytest.raises(ConnectionClosedError, match="Unable to connect to target"):
        private.greeting()


def test_what_the_tunnel_refuses(private: Private) -> None:
    private.admit()
    wrong: list[tuple[dict[str, Any], int, str, str]] = [
        ({"key": "AKIAIOSFODNN7EXAMPLE"}, 403, "UnrecognizedClientException", "security token"),
        ({"secret": "wrong"}, 403, "InvalidSignatureException", "does not match"),
        ({"instanceConnectEndpointId": "eice-0"}, 404, "ResourceNotFound", "'eice-0' does not exist"),
        ({"privateIpAddress": "10.9.9.9"}, 400, "InvalidParameter", "is in no subnet of the endpoint's VPC"),
        ({"privateIpAddress": "here"}, 400, "InvalidParameter", "'here' is not valid"),
        ({"remotePort": 80}, 400, "InvalidParameter", "'80' is not valid: 22 and 3389 are"),
        ({"maxTunnelDuration": 3601}, 400, "InvalidParameter", "from 1 to 3600, not 3601"),
    ]
    for given, status, code, text in wrong:
        with pytest.raises(InvalidStatus) as caught:
            private.greeting(**given)
        answer = json.loads(caught.value.response.body or b"{}")
        assert (caught.value.response.status_code, answer["ErrorCode"]) == (status, code)
        assert text in answer["Message"]


def test_a_tunnel_ends_with_its_node_and_after_its_time(private: Private) -> None:
    private.admit()
    with connect(private.url(maxTunnelDuration=600), proxy=None) as tunnel:
        tunnel.recv(240)
        control.advance(private.lab.world.name, 700, root=private.lab.world.root)
        _await_close(lambda: tunnel.recv(240))
    with connect(private.url(), proxy=None) as tunnel:
        tunnel.recv(240)
        private.lab.end(private.node["InstanceId"])
        _await_close(lambda: tunnel.recv(240))


def _await_close(recv: Callable[[], Any]) -> None:
    from websockets.exceptions import ConnectionClosedOK

    with pytest.raises(ConnectionClosedOK):
        recv()


def test_an_endpoint_is_made_once_and_leaves_its_subnet_free(private: Private) -> None:
    with pytest.raises(ClientError, match="The maximum number of EC2 Instance Connect Endpoints for the VPC"):
        private.ec2.create_instance_connect_endpoint(SubnetId=private.subnet)
    private.lab.end(private.node["InstanceId"])
    with pytest.raises(ClientError, match="DependencyViolation"):
        private.ec2.delete_subnet(SubnetId=private.subnet)
    with pytest.raises(ClientError, match=f"InvalidCidrBlock.InUse.*{private.lab.vpc} currently has a subnet within"):
        private.ec2.disassociate_vpc_cidr_block(AssociationId=private.range["AssociationId"])
    gone = private.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=private.id)
    assert gone["InstanceConnectEndpoint"]["State"] == "delete-in-progress"
    mine = [{"Name": "vpc-id", "Values": [private.lab.vpc]}]
    await_that(lambda: not private.ec2.describe_instance_connect_endpoints(Filters=mine)["InstanceConnectEndpoints"])
    with pytest.raises(ClientError, match=r"InvalidInstanceConnectEndpointId\.NotFound"):
        private.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=private.id)
    private.ec2.delete_subnet(SubnetId=private.subnet)
    private.ec2.disassociate_vpc_cidr_block(AssociationId=private.range["AssociationId"])


def test_ipv6_is_given_only_where_there_is_a_range(lab: Lab) -> None:
    interface = {"DeviceIndex": 0, "SubnetId": lab.subnet, "Groups": [lab.group], "Ipv6AddressCount": 1}
    for call in (
        lambda: lab.run(NetworkInterfaces=[interface]),
        lambda: lab.ec2.create_network_interface(SubnetId=lab.subnet, Ipv6AddressCount=1),
    ):
        with pytest.raises(ClientError, match=r"InvalidParameterValue.*Subnet does not contain any IPv6 CIDR block"):
            call()
    for block, text in (
        ("2600::/64", r"InvalidSubnet\.Range.*'2600::/64' is invalid"),
        ("what", "ipv6CidrBlock is invalid"),
    ):
        with pytest.raises(ClientError, match=text):
            lab.ec2.create_subnet(VpcId=lab.vpc, CidrBlock="10.0.64.0/20", Ipv6CidrBlock=block)
    gateway = lab.ec2.create_egress_only_internet_gateway(VpcId=lab.vpc)["EgressOnlyInternetGateway"]
    lab.ec2.delete_security_group(GroupId=lab.group)
    lab.ec2.delete_subnet(SubnetId=lab.subnet)
    with pytest.raises(ClientError, match="DependencyViolation"):
        lab.ec2.delete_vpc(VpcId=lab.vpc)
    lab.ec2.delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=gateway["EgressOnlyInternetGatewayId"])
    lab.ec2.delete_vpc(VpcId=lab.vpc)


def test_sessions_begin_where_an_agent_may_speak_are_listed_and_end(world: World, lab: Lab) -> None:
    ssm, iam = world.client("ssm"), world.client("iam")
    (plain,) = lab.run()
    asked = {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}
    with pytest.raises(ClientError, match=f"TargetNotConnected.*{plain['InstanceId']} is not connected."):
        ssm.start_session(Target=plain["InstanceId"], **asked)
    name = f"agent-{lab.vpc}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    (node,) = lab.run(IamInstanceProfile={"Name": name})
    session = ssm.start_session(Target=node["InstanceId"], **asked)
    assert session["StreamUrl"].startswith("ws://localhost:")  # never AWS itself
    of_node = [{"key": "Target", "value": node["InstanceId"]}]
    (shown,) = ssm.describe_sessions(State="Active", Filters=of_node)["Sessions"]
    assert (shown["SessionId"], shown["Status"]) == (session["SessionId"], "Connected")
    assert ssm.terminate_session(SessionId=session["SessionId"])["SessionId"] == session["SessionId"]
    assert ssm.describe_sessions(State="Active", Filters=of_node)["Sessions"] == []
    (shown,) = ssm.describe_sessions(State="History", Filters=of_node)["Sessions"]
    assert shown["Status"] == "Terminated"
    with pytest.raises(ClientError, match="InvalidDocument"):
        ssm.start_session(Target=node["InstanceId"], DocumentName="Mine")
