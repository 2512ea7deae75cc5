"""The nodes of a lab: launch templates, placement group, instances or a spot fleet, and their addresses."""

from aws_cdk import CfnMapping, CfnTag, Fn
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, IDependable

from labs import names
from labs.catalog import Lab
from labs.interfaces import Interface, layout
from stacks import capacity
from stacks.acknowledged import NODE, acknowledge
from stacks.boot import UserData
from stacks.network import Network

_GPU_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
_CPU_IMAGE = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
_Template = ec2.CfnLaunchTemplate


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
        self._user_data = user_data
        self._after = (network.ready, *after)
        self._group = ec2.CfnPlacementGroup(self, "PlacementGroup", strategy="cluster") if lab.placement_group else None
        self.fleet: ec2.CfnEC2Fleet | None = None
        interfaces = layout(lab.instance, lab.efas)
        if capacity.is_spot(lab):
            template = self._template("Template", interfaces, f"{lab.stack} node")
            self.fleet = capacity.spot_fleet(
                self, "Fleet", lab=lab, template=template, subnet_ids=[network.subnet_id], tags=_marks(lab)
            )
        elif len(interfaces) == 1:
            template = self._template("Template", interfaces, f"{lab.stack} node")
            for index in range(lab.nodes):
                self._instance(index, template)
        else:
            for index in range(lab.nodes):
                self._addressed_instance(index, interfaces)

    def _instance(self, index: int, template: _Template) -> ec2.CfnInstance:
        instance = ec2.CfnInstance(
            self,
            f"Node{index}",
            launch_template=ec2.CfnInstance.LaunchTemplateSpecificationProperty(
                launch_template_id=template.ref, version=template.attr_latest_version_number
            ),
            tags=[
                CfnTag(key="Name", value=f"{self._lab.stack} node{index}"),
                CfnTag(key=names.TAG_NODE, value=str(index)),
            ],
        )
        acknowledge(instance, NODE)
        return instance

    def _addressed_instance(self, index: int, interfaces: tuple[Interface, ...]) -> None:
        """A node of several interfaces: EC2 gives it no public address, so it brings its own primary interface."""
        name = f"{self._lab.stack} node{index}"
        primary = ec2.CfnNetworkInterface(
            self,
            f"Primary{index}",
            subnet_id=self._network.subnet_id,
            group_set=[self._network.security_group_id],
            description=f"{name}, primary",
        )
        address = ec2.CfnEIP(self, f"Address{index}", domain="vpc")
        address.node.add_dependency(self._network.ready)
        association = ec2.CfnEIPAssociation(
            self, f"Association{index}", allocation_id=address.attr_allocation_id, network_interface_id=primary.ref
        )
        template = self._template(f"Template{index}", interfaces, name, primary=primary)
        instance = self._instance(index, template)
        instance.node.add_dependency(association)  # the first boot needs its way out

    def _template(
        self, id: str, interfaces: tuple[Interface, ...], name: str, primary: ec2.CfnNetworkInterface | None = None
    ) -> _Template:
        lab = self._lab
        marked = [CfnTag(key="Name", value=name), *_marks(lab)]
        template = _Template(
            self,
            id,
            launch_template_data=_Template.LaunchTemplateDataProperty(
                image_id=f"resolve:ssm:{_GPU_IMAGE if lab.instance.gpus else _CPU_IMAGE}",
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
                    self._interface(interface, alone=len(interfaces) == 1, primary=primary) for interface in interfaces
                ],
                placement=_Template.PlacementProperty(group_name=self._group.ref) if self._group else None,
                capacity_reservation_specification=capacity.reservation(lab),
                instance_market_options=capacity.market(lab),
                tag_specifications=[
                    _Template.TagSpecificationProperty(resource_type=kind, tags=marked)
                    for kind in ("instance", "volume", "network-interface")
                ],
                user_data=Fn.base64(self._boot_text()),
            ),
            tag_specifications=[
                _Template.LaunchTemplateTagSpecificationProperty(resource_type="launch-template", tags=marked)
            ],
        )
        # Nodes and fleets refer to their template, so they wait for all of this without 64 copies of the list.
        template.node.add_dependency(*self._after)
        return template

    def _interface(
        self, interface: Interface, *, alone: bool, primary: ec2.CfnNetworkInterface | None
    ) -> _Template.NetworkInterfaceProperty:
        if primary is not None and (interface.card, interface.device) == (0, 0):
            return _Template.NetworkInterfaceProperty(
                network_card_index=0, device_index=0, network_interface_id=primary.ref, delete_on_termination=False
            )
        return _Template.NetworkInterfaceProperty(
            network_card_index=interface.card,
            device_index=interface.device,
            interface_type=interface.kind,
            groups=[self._network.security_group_id],
            # A fleet states the subnet in its override instead.
            subnet_id=None if capacity.is_spot(self._lab) else self._network.subnet_id,
            associate_public_ip_address=True if alone else None,
            delete_on_termination=True,
        )

    def _boot_text(self) -> str:
        """User data; where every node has a template of its own, the compressed part stands once, in a mapping."""
        if capacity.is_spot(self._lab) or len(layout(self._lab.instance, self._lab.efas)) == 1:
            return self._user_data.text(self._user_data.packed)
        mapping = self.node.try_find_child("Boot")
        if mapping is None:
            mapping = CfnMapping(self, "Boot", mapping={"UserData": {"packed": self._user_data.packed}}, lazy=False)
        assert isinstance(mapping, CfnMapping)
        # CfnMapping.find_in_map would put the text back in its place.
        return self._user_data.text(Fn.find_in_map(mapping.logical_id, "UserData", "packed"))
