"""The names that every room agrees on: stacks, tags, parameters, paths on a node.

A lab's number runs through all of them: `Lab3Stack`, `rooflab:lab=3`, `--lab 3`, `LABS[3]`.
The guard repeats the few it needs (its text runs alone in the account); a test keeps the two equal.
"""

import re

GUARD_STACK = "GuardStack"

TAG_LAB = "rooflab:lab"
"""The lab's number, "0" to "4". On everything that a lab creates and that can carry a tag."""
TAG_STACK = "rooflab:stack"
"""The stack that made it, for example "Lab3Stack-alice": what a sweep groups by."""
TAG_OWNER = "rooflab:owner"
"""Who deployed it, as given by `-c owner=`."""
TAG_TTL_HOURS = "rooflab:ttl-hours"
"""Hours the lab may live, counted from the stack's creation."""
TAG_NODE = "rooflab:node"
"""Index of a node among its lab's, from 0; fleets cannot set it."""
TAG_BAKED = "rooflab:baked"
"""On an image that `fab bake` made, and on its snapshots: the lab's number. They outlive the lab on purpose."""
TAG_SSH_USER = "rooflab:ssh-user"
"""Login on this node where it is not the image's usual `ubuntu`."""
TAG_SSH_PORT = "rooflab:ssh-port"
"""Port of this node's sshd where it is not 22."""

DEADLINE_PARAMETER = "/rooflab/deadline/{stack}"
"""SSM parameter that `fab extend` writes: an ISO 8601 UTC time that replaces creation + ttl."""

IMAGE_PARAMETER = "/rooflab/image/{kind}"
"""SSM parameter that `fab bake` writes: the id of the image for `-c image=baked`; kind is "gpu" or "cpu"."""
PUBLIC_IMAGES = {
    "gpu": "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    "cpu": "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
}
"""SSM parameters of AWS's and Canonical's own that name the newest image, by the same kind."""

NODE_ENV_FILE = "~/.rooflab/env.sh"
"""Written on a node by its user data; every command that Rooflab runs there sources it, if it exists."""
NODE_READY_FILE = "~/.rooflab/ready"
"""Holds "ok" when user data has finished, or "failed: STEP: reason"."""
NODE_BOOT_FILE = "~/.rooflab/boot/seconds"
"""What each step of a node's set-up took: "STEP SECONDS" a line, in order."""
NODE_TREE = "~/rooflab"
"""Where the pushed tree lies on a node."""
NODE_RUNS = "~/rooflab-runs"
"""Where runs lie on a node: RUN/run.sh, RUN/logs, RUN/records, RUN/exit."""

_LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


def stack_name(lab: int, name: str = "") -> str:
    """Name of a lab's stack. `name` lets two people hold the same lab in one account.

    Raises:
        ValueError: `name` is not 1 to 20 characters of a-z, 0-9 and -, starting with a letter.
    """
    if not name:
        return f"Lab{lab}Stack"
    if not _LAB_NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: write 1 to 20 characters of a-z, 0-9 and -, starting with a letter")
    return f"Lab{lab}Stack-{name}"


class Output:
    """Names of a lab stack's CloudFormation outputs: how the verbs learn what the stack was meant to be."""

    NODES = "Nodes"
    """Nodes asked for, so that a fleet that came up short is seen."""
    INSTANCE_TYPE = "InstanceType"
    CAPACITY = "Capacity"
    ACCESS = "Access"
    """`labs.catalog.Lab.way`: how its nodes are reached."""
    ENDPOINT = "InstanceConnectEndpointId"
    """Only where that is "endpoint"."""
    VPC = "VpcId"
    SECURITY_GROUP = "SecurityGroupId"
    FLEET = "FleetId"
    """Only on spot capacity."""
    FILE_SYSTEM = "FileSystemId"
    """Only where the lab has FSx for Lustre."""
    RESULTS_BUCKET = "ResultsBucket"
    """Of GuardStack: where finished records go."""
