"""One lab's stack: everything of it that bills by the hour, and nothing that must outlive it."""

from aws_cdk import Annotations, CfnOutput, CfnWaitConditionHandle, LegacyStackSynthesizer, Stack, Tags
from constructs import Construct

from labs import names
from labs.catalog import Lab
from labs.prices import REGION, cost_of, dollars, total
from labs.storage import SIZES
from stacks.boot import user_data
from stacks.cluster import Cluster, tags
from stacks.guard import GuardStack
from stacks.network import Network
from stacks.storage import Storage


class LabStack(Stack):
    """Network, storage and nodes of one lab. It depends on GuardStack, so no lab stands unguarded."""

    def __init__(self, scope: Construct, id: str, *, lab: Lab, guard: GuardStack, ssh_public_key: str = "") -> None:
        """`ssh_public_key` is the operator's, in OpenSSH's one-line form; empty authorises none."""
        super().__init__(
            scope,
            id,
            stack_name=lab.stack,
            description=f"Rooflab lab {lab.number}: {lab.title}",
            synthesizer=LegacyStackSynthesizer(),
            tags=tags(lab),
            suppress_template_indentation=True,
        )
        self.add_stack_dependency(guard)
        network = Network(self, "Network", zone=lab.zone, way=lab.way)
        storage = None
        if lab.storage != "none":
            size = SIZES[lab.storage]
            results = f"s3://{guard.bucket.bucket_name}/results/"
            data = results if lab.data == "results" else lab.data
            storage = Storage(self, "Storage", network=network, size=size, capacity_gib=lab.capacity_gib, data=data)
        cluster = Cluster(
            self,
            "Cluster",
            lab=lab,
            network=network,
            instance_profile=guard.instance_profile.ref,
            user_data=user_data(
                lab,
                region=self.region,
                bucket=guard.bucket.bucket_name,
                ssh_public_key=ssh_public_key,
                mount=(storage.dns_name, storage.mount_name) if storage else None,
            ),
            after=storage.ready if storage else (),
        )
        for key, value in tags(lab).items():
            # Instances have them from their launch template and the stack: 64 copies would not fit into a template.
            Tags.of(self).add(key, value, exclude_resource_types=["AWS::EC2::Instance"])
        outputs = {
            names.Output.NODES: str(lab.nodes),
            names.Output.INSTANCE_TYPE: lab.instance_type,
            names.Output.CAPACITY: lab.capacity,
            names.Output.ACCESS: lab.way,
            names.Output.VPC: network.vpc.vpc_id,
            names.Output.SECURITY_GROUP: network.security_group_id,
        }
        if network.endpoint:
            outputs[names.Output.ENDPOINT] = network.endpoint.ref
        if cluster.fleet:
            outputs[names.Output.FLEET] = cluster.fleet.attr_fleet_id
        if storage:
            outputs[names.Output.FILE_SYSTEM] = storage.file_system.ref
        for key, value in outputs.items():
            CfnOutput(self, key, value=value)
        Annotations.of(self).add_info(price(lab))


def price(lab: Lab) -> str:
    """What the lab will cost, in one line for who deploys it."""
    cost = cost_of(lab)
    known = total(line.usd_per_hour for line in cost.lines if line.usd_per_hour is not None) or 0.0
    unknown = [f"{line.what} ({line.source})" for line in cost.lines if line.usd_per_hour is None]
    hours = f"{dollars(known)} an hour, {dollars(known * lab.ttl_hours)} in its {lab.ttl_hours:g} hours"
    most = "at most " if lab.capacity == "spot" else ""
    besides = f", besides {' and '.join(unknown)}, whose price is not known" if unknown else ""
    return f"{lab.stack} costs {most}{hours}, by {REGION}'s list prices{besides}; `fab cost` has the region's own"


class RefusedStack(Stack):
    """A lab that cannot take what the context asks of it: it can be destroyed, and deploying it says why not."""

    def __init__(self, scope: Construct, id: str, *, stack_name: str, reason: str) -> None:
        super().__init__(scope, id, stack_name=stack_name, synthesizer=LegacyStackSynthesizer())
        CfnWaitConditionHandle(self, "Refused")  # a template without any resource is an error of every stack's synth
        Annotations.of(self).add_error(reason)
