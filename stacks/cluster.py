"""The nodes of a lab: launch templates, placement group, instances or a spot fleet, and their addresses."""

import re
from typing import Any

from aws_cdk import CfnMapping, CfnTag, Fn
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, IDependable

from labs import names
from labs.catalog import Lab
from labs.interfaces import Interface
from stacks import capacity
from stacks.acknowledged import NODE, acknowledge
from stacks.boot import UserData
from stacks.network import Network, named

_TOKEN = re.compile(r"(\$\{Token\[[^\]]*\]\})")
"""What CDK puts into text in the place of a value that only CloudFormation knows."""
NAMED_NODES = 16
"""Most nodes whose Name tells them apart; their index is a tag of its own in any case."""
_Template = ec2.CfnLaunchTemplate


def image_id(lab: Lab) -> str:
    """ImageId of the launch template: an AMI, or the parameter that EC2 reads at each launch.

    EC2 reads it, not CloudFormation: so a newer image makes no difference to the template, and a second deploy leaves
    running nodes alone.
    """
    if lab.image.startswith("ami-"):
        return lab.image
    kind = "gpu" if lab.instance.gpus else "cpu"
    return f"resolve:ssm:{names.IMAGE_PARAMETER.format(kind=kind) if lab.image else names.PUBLIC_IMAGES[kind]}"


def tags(lab: Lab) -> dict[str, str]:
    """What everything of the lab carries, so that a sweep finds it with or without its stack."""
    return {
        names.TAG_LAB: str(lab.number),
        names.TAG_STACK: lab.stack,
        names.TAG_OWNER: lab.owner or "-",  # CloudFormation refuses a stack's tag without a value
        names.TAG_TTL_HOURS: f"{lab.ttl_hours:g}",
    }


def _marks(lab: Lab) -> list[CfnTag]:
    return [CfnTag(key=key, value=value) for key, value in tags(lab).items()]


class Cluster(Construct):
    """`lab.nodes` nodes that boot into `user_data` after everything in `after` stands."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        lab: Lab,
        network: Network,
        instance_profile: str,
        user_data: UserData,
        after: tuple[IDependable, ...] = (),
    ) -> None:
        """`instance_profile` is the name of the profile that GuardStack keeps for every lab's nodes."""
        super().__init__(scope, id)
        self._lab = lab
        self._network = network
        self._profile = instance_profile
        self._user_data = user_data.text(user_data.packed)
        self._after = (network.ready, *after)
        self._group = self._placement_group()
        self.fleet: ec2.CfnEC2Fleet | None = None
        if lab.way == "elastic":
            self._user_data = self._shared(self._user_data)
            for index in range(lab.nodes):
                self._addressed_instance(index)
            return
        template = self._template("Template", f"{lab.stack} node")
        if capacity.is_spot(lab):
            self.fleet = capacity.spot_fleet(
                self, "Fleet", lab=lab, template=template, subnet_id=network.subnet_id, tags=_marks(lab)
            )
        else:
            for index in range(lab.nodes):
                self._instance(index, template)

    def _placement_group(self) -> str | None:
        """Name of the group that the nodes start in: their own, or the one that their reservation was made in."""
        if self._lab.placement_group:
            return named(ec2.CfnPlacementGroup(self, "Together", strategy="cluster"), "Together").ref
        return self._lab.group or None

    def _instance(self, index: int, template: _Template) -> ec2.CfnInstance:
        # Beyond that all keep the template's name, for a stack must fit into a template.
        name = [CfnTag(key="Name", value=f"{self._lab.stack} node{index}")] if self._lab.nodes <= NAMED_NODES else []
        instance = ec2.CfnInstance(
            self,
            f"Node{index}",
            launch_template=ec2.CfnInstance.LaunchTemplateSpecificationProperty(
                launch_template_id=template.ref,
                # Shorter than Fn::GetAtt, which 64 nodes repeat.
                version=Fn.sub(f"${{{template.node.id}.LatestVersionNumber}}"),
            ),
            tags=[*name, CfnTag(key=names.TAG_NODE, value=str(index))],
        )
        acknowledge(instance, NODE)
        return named(instance, f"Node{index}")

    def _addressed_instance(self, index: int) -> None:
        """A node of several interfaces: EC2 gives it no public address, so it brings its own primary interface."""
        name = f"{self._lab.stack} node{index}"
        primary = ec2.CfnNetworkInterface(
            self,
            f"Primary{index}",
            subnet_id=self._network.subnet_id,
            group_set=[self._network.security_group_id],
        )
        named(primary, f"Primary{index}")
        address = named(ec2.CfnEIP(self, f"Address{index}", domain="vpc"), f"Address{index}")
        # While an address is mapped, the gateway cannot be detached.
        address.node.add_dependency(self._network.subnet.internet_connectivity_established)
        association = ec2.CfnEIPAssociation(
            self, f"Association{index}", allocation_id=address.attr_allocation_id, network_interface_id=primary.ref
        )
        named(association, f"Association{index}")
        template = self._template(f"Template{index}", name, primary=primary)
        instance = self._instance(index, template)
        instance.node.add_dependency(association)  # the first boot needs its way out

    def _template(self, id: str, name: str, primary: ec2.CfnNetworkInterface | None = None) -> _Template:
        lab = self._lab
        own = [CfnTag(key="Name", value=name), *_marks(lab)]
        template = _Template(
            self,
            id,
            launch_template_data=_Template.LaunchTemplateDataProperty(
                image_id=image_id(lab),
                instance_type=lab.instance_type,
                iam_instance_profile=_Template.IamInstanceProfileProperty(name=self._profile),
                instance_initiated_shutdown_behavior="terminate",
                # One hop: what runs in a container on the node gets no credentials of the node's role.
                metadata_options=_Template.MetadataOptionsProperty(
                    http_tokens="required", http_put_response_hop_limit=1, instance_metadata_tags="enabled"
                ),
                block_device_mappings=[
                    _Template.BlockDeviceMappingProperty(
                        device_name="/dev/sda1",
                        ebs=_Template.EbsProperty(
                            volume_size=lab.volume_gib, volume_type="gp3", encrypted=True, delete_on_termination=True
                        ),
                    )
                ],
                network_interfaces=[
                    self._primary(lab.interfaces[0], primary),
                    *(self._interface(interface) for interface in lab.interfaces[1:]),
                ],
                placement=_Template.PlacementProperty(group_name=self._group) if self._group else None,
                capacity_reservation_specification=capacity.reservation(lab),
                instance_market_options=capacity.market(lab),
                tag_specifications=[
                    _Template.TagSpecificationProperty(resource_type="instance", tags=own),
                    _Template.TagSpecificationProperty(resource_type="volume", tags=_marks(lab)),
                    _Template.TagSpecificationProperty(resource_type="network-interface", tags=_marks(lab)),
                ],
                user_data=Fn.base64(self._user_data),
            ),
            tag_specifications=[
                _Template.LaunchTemplateTagSpecificationProperty(resource_type="launch-template", tags=_marks(lab))
            ],
        )
        # Nodes and fleets refer to their template, so they wait for all of this without 64 copies of the list.
        template.node.add_dependency(*self._after)
        return named(template, id)

    def _primary(
        self, interface: Interface, made: ec2.CfnNetworkInterface | None
    ) -> _Template.NetworkInterfaceProperty:
        """The interface that has the node's addresses; `made` is it where it exists before the node."""
        if made is not None:
            return _Template.NetworkInterfaceProperty(
                network_card_index=0, device_index=0, network_interface_id=made.ref, delete_on_termination=False
            )
        if self._lab.way == "address":
            return self._interface(interface, associate_public_ip_address=True)
        return self._interface(interface, ipv6_address_count=1)

    def _interface(self, interface: Interface, **address: Any) -> _Template.NetworkInterfaceProperty:
        return _Template.NetworkInterfaceProperty(
            network_card_index=interface.card,
            device_index=interface.device,
            interface_type=interface.kind,
            groups=[self._network.security_group_id],
            # A fleet states the subnet in its override instead.
            subnet_id=None if capacity.is_spot(self._lab) else self._network.subnet_id,
            delete_on_termination=True,
            **address,
        )

    def _shared(self, text: str) -> str:
        """The same text with its longer pieces in a mapping: where every node has a template, they stand once."""
        pieces = dict(enumerate(_TOKEN.split(text)))
        long = {f"p{index}": piece for index, piece in pieces.items() if len(piece) > 100}
        mapping = named(CfnMapping(self, "Boot", mapping={"Text": long}, lazy=False), "Boot")
        # CfnMapping.find_in_map would put the text back in its place.
        found = {key: Fn.find_in_map(mapping.logical_id, "Text", key) for key in long}
        return "".join(found.get(f"p{index}", piece) for index, piece in pieces.items())
