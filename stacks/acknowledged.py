"""Findings of cdk-nag that a lab leaves as they are, each with its reason."""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct

_ARN = "arn:<AWS::Partition>"
_HERE = "<AWS::Region>:<AWS::AccountId>"
_DEADLINES = f"{_ARN}:ssm:{_HERE}:parameter/rooflab/deadline/*"
_TOLD = f"{_ARN}:ssm:{_HERE}:parameter/rooflab/told/*"
_LABS = f"{_ARN}:cloudformation:{_HERE}:stack/Lab?Stack*/*"
_LOGS = f"{_ARN}:logs:{_HERE}:log-group:/rooflab/Lab?Stack*"

NETWORK = {
    "AwsSolutions-VPC7": "Flow logs bill by the gigabyte; a lab lives for hours and admits one address.",
}
NODE = {
    "AwsSolutions-EC28": "Detailed monitoring bills by the instance; workloads take their own, finer samples.",
    "AwsSolutions-EC29": "A node is disposable: whatever protects it from termination keeps it billing.",
}
BUCKET = {
    "AwsSolutions-S1": "Access logs would need a second bucket that outlives labs; one account writes to this one.",
}
FUNCTION = {
    "AwsSolutions-L1": "Pinned to the Python that the guard is tested with, so that synthesis stays deterministic.",
}
NODE_ROLE = {
    "AwsSolutions-IAM5[Resource::*]": "The Session Manager actions of a managed node take no resource.",
    "AwsSolutions-IAM5[Resource::<Results25575328.Arn>/results/*]": "Below results/ of one bucket, and only to add.",
    f"AwsSolutions-IAM5[Resource::{_DEADLINES}]": "A node reads its lab's deadline; labs come and go by name.",
    f"AwsSolutions-IAM5[Resource::{_LABS}]": "A node asks when its lab's stack was made.",
}
_REMOVE = "Actions that describe take no resource; those that remove hold only where a lab's tag is on the resource."
GUARD_ROLE = {
    "AwsSolutions-IAM5[Resource::*]": _REMOVE,
    "AwsSolutions-IAM5[Action::ec2:Describe*]": "The guard looks for whatever may bill; looking changes nothing.",
    f"AwsSolutions-IAM5[Resource::{_DEADLINES}]": "The guard reads the deadlines of all labs, nothing else.",
    f"AwsSolutions-IAM5[Resource::{_LABS}]": "The guard ends labs' stacks, which it knows by name.",
    f"AwsSolutions-IAM5[Resource::{_LOGS}]": "The guard removes labs' logs, which it knows by name.",
}
NOTICES = {
    f"AwsSolutions-IAM5[Resource::{_TOLD}]": "The guard keeps what it told of each lab, by the lab's name.",
}
TOPIC = {
    "AwsSolutions-SNS2": "Notices hold a stack's name, times and ids; a key of one's own costs a dollar a month.",
    "AwsSolutions-SNS3": "The guard is the only publisher, and its SDK speaks nothing but TLS.",
}


def acknowledge(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Record each finding's id with its reason on the construct, so that cdk-nag passes it over."""
    Validations.of(construct).acknowledge(
        *(Acknowledgment(id=finding, reason=reason) for finding, reason in reasons.items())
    )
