"""FSx for Lustre beside the nodes, with its own security group; it is deleted with the lab."""

from dataclasses import dataclass

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_fsx as fsx
from constructs import Construct

from stacks.network import Network

VERSION = "2.15"
"""Lustre version: the default of scratch systems, 2.10, has no client for today's kernels."""
_PORTS = (ec2.Port.tcp(988), ec2.Port.tcp_range(1018, 1023))
"""https://docs.aws.amazon.com/fsx/latest/LustreGuide/limit-access-security-groups.html"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one value of `-c storage=` means."""

    deployment: str
    """DeploymentType."""
    capacity_gib: int
    """The smallest that AWS sells of it."""
    mbps_per_tib: int | None
    """PerUnitStorageThroughput; None for scratch, where it is fixed at 200."""
    efa: bool = False
    """Whether clients reach it over EFA."""


SIZES: dict[str, Size] = {
    "scratch": Size(deployment="SCRATCH_2", capacity_gib=1200, mbps_per_tib=None),
    "persistent-125": Size(deployment="PERSISTENT_2", capacity_gib=1200, mbps_per_tib=125),
    "persistent-250": Size(deployment="PERSISTENT_2", capacity_gib=1200, mbps_per_tib=250),
    "persistent-500": Size(deployment="PERSISTENT_2", capacity_gib=1200, mbps_per_tib=500),
    "persistent-1000": Size(deployment="PERSISTENT_2", capacity_gib=1200, mbps_per_tib=1000),
    "efa": Size(deployment="PERSISTENT_2", capacity_gib=4800, mbps_per_tib=1000, efa=True),
}
"""By `labs.catalog.STORAGE`, without "none". Capacity steps:
https://docs.aws.amazon.com/fsx/latest/LustreGuide/increase-storage-capacity.html"""


class Storage(Construct):
    """One Lustre file system of the given size, reachable from the lab's nodes only."""

    def __init__(self, scope: Construct, id: str, *, network: Network, size: Size) -> None:
        super().__init__(scope, id)
        group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=network.vpc,
            description="FSx for Lustre of a lab: its own servers and the nodes",
            allow_all_outbound=False,
        )
        # With EFA the whole group must be open to itself and to its clients, or the creation fails.
        for port in (ec2.Port.all_traffic(),) if size.efa else _PORTS:
            group.connections.allow_internally(port, "Lustre among its servers")
            group.connections.allow_from(network.security_group, port, "Lustre from the nodes")
            group.connections.allow_to(network.security_group, port, "Lustre to the nodes")
        persistent = size.deployment.startswith("PERSISTENT")
        self.file_system = fsx.CfnFileSystem(
            self,
            "FileSystem",
            file_system_type="LUSTRE",
            file_system_type_version=VERSION,
            storage_type="SSD",
            storage_capacity=size.capacity_gib,
            subnet_ids=[network.subnet.subnet_id],
            security_group_ids=[group.security_group_id],
            lustre_configuration=fsx.CfnFileSystem.LustreConfigurationProperty(
                deployment_type=size.deployment,
                data_compression_type="LZ4",
                per_unit_storage_throughput=size.mbps_per_tib,
                automatic_backup_retention_days=0 if persistent else None,
                efa_enabled=True if size.efa else None,
                metadata_configuration=(
                    fsx.CfnFileSystem.MetadataConfigurationProperty(mode="AUTOMATIC") if size.efa else None
                ),
            ),
        )
        self.file_system.apply_removal_policy(RemovalPolicy.DESTROY)
        self.file_system.node.add_dependency(group, network.security_group)  # the rules, not only the groups

    @property
    def dns_name(self) -> str:
        """Host name that a node mounts."""
        return self.file_system.attr_dns_name

    @property
    def mount_name(self) -> str:
        """Lustre's name of the file system behind that host."""
        return self.file_system.attr_lustre_mount_name
