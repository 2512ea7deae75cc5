"""FSx for Lustre beside the nodes, with its own security group; it is deleted with the lab."""

from typing import Any

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_fsx as fsx
from constructs import Construct, IDependable

from labs.storage import Size
from stacks.network import Network, named

VERSION = "2.15"
"""Lustre version: the default of scratch systems, 2.10, has no client for today's kernels."""
_PORTS: tuple[dict[str, Any], ...] = (
    {"ip_protocol": "tcp", "from_port": 988, "to_port": 988},
    {"ip_protocol": "tcp", "from_port": 1018, "to_port": 1023},
)
"""https://docs.aws.amazon.com/fsx/latest/LustreGuide/limit-access-security-groups.html"""
_ALL: tuple[dict[str, Any], ...] = ({"ip_protocol": "-1"},)


class Storage(Construct):
    """One Lustre file system of the given size, reachable from the lab's nodes only."""

    def __init__(
        self, scope: Construct, id: str, *, network: Network, size: Size, capacity_gib: int, data: str = ""
    ) -> None:
        """`data` is what it shows below /data: "s3://BUCKET/PREFIX", or "" for nothing."""
        super().__init__(scope, id)
        # With EFA the whole group must be open to itself and to its clients, or the creation fails.
        ports = _ALL if size.efa else _PORTS
        nodes = network.security_group_id
        group = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=network.vpc.vpc_id,
            group_description="FSx for Lustre of a lab: its own servers and the nodes",
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    source_security_group_id=nodes, description="Lustre from the nodes", **port
                )
                for port in ports
            ],
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    destination_security_group_id=nodes, description="Lustre to the nodes", **port
                )
                for port in ports
            ],
        )
        rules = [rule for index, port in enumerate(ports) for rule in self._rules(str(index), group.ref, nodes, port)]
        if size.efa:
            # An EFA's traffic leaves the nodes only by a rule that names the group it goes to.
            to_it = ec2.CfnSecurityGroupEgress(
                self, "FromNodes", group_id=nodes, destination_security_group_id=group.ref,
                description="Lustre from the nodes", **_ALL[0],
            )  # fmt: skip
            rules.append(to_it)
        persistent = size.deployment.startswith("PERSISTENT")
        self.file_system = fsx.CfnFileSystem(
            self,
            "FileSystem",
            file_system_type="LUSTRE",
            file_system_type_version=VERSION,
            storage_type="SSD",
            storage_capacity=capacity_gib,
            subnet_ids=[network.subnet_id],
            security_group_ids=[group.ref],
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
        named(self.file_system, "FileSystem").apply_removal_policy(RemovalPolicy.DESTROY)
        self.file_system.node.add_dependency(*rules)  # its creation fails while a rule is missing
        self.ready: tuple[IDependable, ...] = (self.file_system, *((self._import(data),) if data else ()))
        """What a node waits for, so that no GPU is paid while Lustre is made."""

    def _rules(self, id: str, group: str, nodes: str, port: dict[str, Any]) -> tuple[IDependable, ...]:
        """What the servers' group cannot say of itself while it is made, and what the nodes' group admits."""
        within = {"description": "Lustre among its servers", **port}
        return (
            ec2.CfnSecurityGroupIngress(
                self, f"FromServers{id}", group_id=group, source_security_group_id=group, **within
            ),
            ec2.CfnSecurityGroupEgress(
                self, f"ToServers{id}", group_id=group, destination_security_group_id=group, **within
            ),
            ec2.CfnSecurityGroupIngress(
                self, f"ToNodes{id}", group_id=nodes, source_security_group_id=group,
                **{**within, "description": "Lustre to the nodes"},
            ),
        )  # fmt: skip

    def _import(self, data: str) -> fsx.CfnDataRepositoryAssociation:
        """Shows the objects below `data` as files in /data. Nothing is ever exported: that is asynchronous, and
        what a lab measured must not hang on it; records reach the bucket by themselves."""
        return fsx.CfnDataRepositoryAssociation(
            self,
            "Import",
            file_system_id=self.file_system.ref,
            file_system_path="/data",
            data_repository_path=data if data.endswith("/") else f"{data}/",
            batch_import_meta_data_on_create=True,
            s3=fsx.CfnDataRepositoryAssociation.S3Property(
                auto_import_policy=fsx.CfnDataRepositoryAssociation.AutoImportPolicyProperty(
                    events=["NEW", "CHANGED", "DELETED"]
                )
            ),
        )

    @property
    def dns_name(self) -> str:
        """Host name that a node mounts."""
        return self.file_system.attr_dns_name

    @property
    def mount_name(self) -> str:
        """Lustre's name of the file system behind that host."""
        return self.file_system.attr_lustre_mount_name
