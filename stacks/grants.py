"""What whoever operates labs may do: one grant a statement, each with its reason. See `stacks.operator`.

Which actions honour a tag, and of what:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html and its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labs import names
from stacks.permissions import ADOPT, LOOK, REMOVE

_LABS = "Lab?Stack*"
_GUARD = names.GUARD_STACK


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One statement, and why it is there."""

    sid: str
    reason: str
    actions: Sequence[str]
    on: Sequence[str] = ("*",)
    """Resources: ARNs without "arn:PARTITION:"."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Condition keys and the patterns that they must match."""

    def statement(self, partition: str) -> dict[str, Any]:
        """As IAM reads it."""
        resources = ["*" if one == "*" else f"arn:{partition}:{one}" for one in self.on]
        made: dict[str, Any] = {"Sid": self.sid, "Effect": "Allow", "Action": list(self.actions), "Resource": resources}
        return {**made, "Condition": {"StringLike": dict(self.where)}} if self.where else made


OURS = {f"aws:ResourceTag/{names.TAG_STACK}": _LABS}
"""On things that carry a lab's tag."""
AS_OURS = {f"aws:RequestTag/{names.TAG_STACK}": _LABS}
"""For making things that carry it from their first moment."""
BAKED = {f"aws:ResourceTag/{names.TAG_BAKED}": "*"}
AS_BAKED = {f"aws:RequestTag/{names.TAG_BAKED}": "*"}
_MAKE = (
    "ec2:AllocateAddress",
    "ec2:CreateEgressOnlyInternetGateway",
    "ec2:CreateFleet",
    "ec2:CreateInstanceConnectEndpoint",
    "ec2:CreateInternetGateway",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateNetworkInterface",
    "ec2:CreatePlacementGroup",
    "ec2:CreateRouteTable",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSubnet",
    "ec2:CreateVpc",
    "ec2:CreateVpcEndpoint",
    "ec2:RunInstances",
    "fsx:CreateDataRepositoryAssociation",
    "fsx:CreateFileSystem",
)
_CHANGE = (
    "ec2:AssociateAddress",
    "ec2:AssociateRouteTable",
    "ec2:AssociateSubnetCidrBlock",
    "ec2:AssociateVpcCidrBlock",
    "ec2:AttachInternetGateway",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:CreateRoute",
    "ec2:CreateTags",
    "ec2:DeleteTags",
    "ec2:DisassociateSubnetCidrBlock",
    "ec2:GetConsoleOutput",
    "ec2:ModifyFleet",
    "ec2:ModifyInstanceAttribute",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:ModifySubnetAttribute",
    "ec2:ModifyVpcAttribute",
    "ec2:ModifyVpcEndpoint",
    "ec2:ReplaceRoute",
    "ec2:ReplaceRouteTableAssociation",
    "ec2:UpdateSecurityGroupRuleDescriptions*",
    "fsx:TagResource",
    "fsx:UntagResource",
    "fsx:UpdateDataRepositoryAssociation",
    "fsx:UpdateFileSystem",
)
_SERVICE_ROLES = ("ec2-instance-connect", "ec2fleet", "fsx", "s3.data-source.lustre.fsx", "spot")
"""Services whose own role an account may still lack when the first lab is made."""

GRANTS = (
    Grant(
        sid="Look",
        reason="To describe takes no resource, and shows what may bill wherever it came from.",
        actions=(
            *(action for action in LOOK if action.partition(":")[0] != "cloudformation"),
            "cloudformation:DescribeStacks",
            "cloudformation:ListStacks",
            "ec2:GetSpotPlacementScores",
            "iam:ListInstanceProfiles",
            "iam:ListRoles",
            "lambda:ListFunctions",
            "logs:DescribeIndexPolicies",
            "logs:DescribeResourcePolicies",
            "pricing:GetProducts",
            "resource-groups:ListGroupResources",
            "s3:ListAllMyBuckets",
            "scheduler:ListSchedules",
            "servicequotas:GetAWSDefaultServiceQuota",
            "servicequotas:GetServiceQuota",
            "servicequotas:ListAWSDefaultServiceQuotas",
            "servicequotas:ListServiceQuotas",
            "sns:ListSubscriptions",
            "sns:ListTopics",
            "sts:GetCallerIdentity",
        ),
    ),
    Grant(
        sid="Stacks",
        reason="What the cdk CLI and fab ask of CloudFormation, of our stacks by name.",
        actions=(
            "cloudformation:CreateChangeSet",
            "cloudformation:CreateStack",
            "cloudformation:DeleteChangeSet",
            "cloudformation:DeleteStack",
            "cloudformation:DescribeChangeSet",
            "cloudformation:DescribeEvents",
            "cloudformation:DescribeStackEvents",
            "cloudformation:DescribeStackResources",
            "cloudformation:ExecuteChangeSet",
            "cloudformation:GetTemplate",
            "cloudformation:GetTemplateSummary",
            "cloudformation:ListStackResources",
            "cloudformation:RollbackStack",
            "cloudformation:TagResource",
            "cloudformation:UntagResource",
            "cloudformation:UpdateStack",
            "cloudformation:UpdateTerminationProtection",
        ),
        on=(f"cloudformation:*:*:stack/{_GUARD}/*", f"cloudformation:*:*:stack/{_LABS}/*"),
    ),
    Grant(
        sid="Make",
        reason="What a lab is made of, if it carries the lab's tag from its first moment.",
        actions=(*_MAKE, *ADOPT),
        where=AS_OURS,
    ),
    Grant(
        sid="Within", reason="What is made lies in a lab's network, or is of its template.", actions=_MAKE, where=OURS
    ),
    Grant(
        sid="With",
        reason="What an instance is started from belongs to AWS or to the account, and cannot carry the lab's tag.",
        actions=("ec2:CreateFleet", "ec2:RunInstances"),
        on=(
            "ec2:*::image/*",
            "ec2:*::snapshot/*",
            "ec2:*:*:capacity-reservation/*",
            "ec2:*:*:placement-group/*",
            "ec2:*:*:spot-instances-request/*",
        ),
    ),
    Grant(
        sid="Untagged",
        reason="A rule has no tag, its group has; what an Instance Connect Endpoint makes itself has none.",
        actions=(
            "ec2:AuthorizeSecurityGroup*",
            "ec2:CreateNetworkInterface",
            "ec2:RevokeSecurityGroup*",
            "ec2:UpdateSecurityGroupRuleDescriptions*",
        ),
        on=("ec2:*:*:security-group-rule/*", "ec2:*:*:network-interface/*"),
    ),
    Grant(sid="Change", reason="Only what carries a lab's tag.", actions=_CHANGE, where=OURS),
    Grant(sid="Remove", reason="Only what carries a lab's tag.", actions=REMOVE, where=OURS),
    Grant(
        sid="ServiceRoles",
        reason="AWS's own roles, which the first lab of an account may have to make.",
        actions=("iam:CreateServiceLinkedRole",),
        on=("iam::*:role/aws-service-role/*",),
        where={"iam:AWSServiceName": "*.amazonaws.com"},
    ),
    Grant(
        sid="DataRole",
        reason="FSx's own role learns the bucket of -c data=…, see https://docs.aws.amazon.com/fsx/latest/LustreGuide/"
        "setting-up.html#fsx-adding-permissions-s3",
        actions=("iam:AttachRolePolicy", "iam:PutRolePolicy"),
        on=("iam::*:role/aws-service-role/s3.data-source.lustre.fsx.amazonaws.com/*",),
    ),
    Grant(
        sid="Buckets",
        reason="FSx checks in the caller's name that the bucket of -c data=… can be listed.",
        actions=("s3:GetBucketLocation", "s3:GetBucketPolicy", "s3:ListBucket"),
    ),
    Grant(
        sid="Roles",
        reason="The roles of GuardStack, which CloudFormation names after it.",
        actions=(
            "iam:AddRoleToInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:CreateRole",
            "iam:DeleteInstanceProfile",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:GetInstanceProfile",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListInstanceProfilesForRole",
            "iam:ListRolePolicies",
            "iam:PutRolePolicy",
            "iam:RemoveRoleFromInstanceProfile",
            "iam:TagInstanceProfile",
            "iam:TagRole",
            "iam:UntagInstanceProfile",
            "iam:UntagRole",
            "iam:UpdateAssumeRolePolicy",
            "iam:UpdateRole",
            "iam:UpdateRoleDescription",
        ),
        on=(f"iam::*:role/{_GUARD}-*", f"iam::*:instance-profile/{_GUARD}-*"),
    ),
    *(
        Grant(
            sid=f"Pass{service.capitalize()}",
            reason="A role goes only to the service that it is for.",
            actions=("iam:PassRole",),
            on=(f"iam::*:role/{_GUARD}-{role}*",),
            where={"iam:PassedToService": f"{service}.amazonaws.com"},
        )
        for service, role in (("ec2", "NodeRole"), ("lambda", "GuardRole"), ("scheduler", "ScheduleRole"))
    ),
    Grant(
        sid="Guard",
        reason="The guard's function, schedule, topic and logs, by their names.",
        actions=(
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:Get*",
            "lambda:InvokeFunction",
            "lambda:ListTags",
            "lambda:TagResource",
            "lambda:UntagResource",
            "lambda:UpdateFunctionCode",
            "lambda:UpdateFunctionConfiguration",
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:DeleteRetentionPolicy",
            "logs:FilterLogEvents",
            "logs:GetDataProtectionPolicy",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
            "scheduler:CreateSchedule",
            "scheduler:DeleteSchedule",
            "scheduler:GetSchedule",
            "scheduler:UpdateSchedule",
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:Get*",
            "sns:ListSubscriptionsByTopic",
            "sns:ListTagsForResource",
            "sns:SetSubscriptionAttributes",
            "sns:SetTopicAttributes",
            "sns:Subscribe",
            "sns:TagResource",
            "sns:Unsubscribe",
            "sns:UntagResource",
        ),
        on=(
            f"lambda:*:*:function:{_GUARD}-*",
            "logs:*:*:log-group:/rooflab/*",
            f"scheduler:*:*:schedule/default/{_GUARD}-*",
            f"sns:*:*:{_GUARD}-*",
        ),
    ),
    Grant(
        sid="Results",
        reason="The results bucket, which CloudFormation names after GuardStack: made, read, emptied at the very end.",
        actions=(
            "s3:CreateBucket",
            "s3:DeleteBucket*",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:Get*",
            "s3:List*",
            "s3:PutBucketPolicy",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:PutEncryptionConfiguration",
            "s3:PutLifecycleConfiguration",
            "s3:PutObject",
            "s3:TagResource",
            "s3:UntagResource",
        ),
        on=(f"s3:::{_GUARD.lower()}-*",),
    ),
    Grant(
        sid="Parameters",
        reason="Deadlines, and the images that were baked.",
        actions=("ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:GetParameter*", "ssm:PutParameter"),
        on=("ssm:*:*:parameter/rooflab/*",),
    ),
    Grant(
        sid="PublicImages",
        reason="Which image AWS and Canonical publish; EC2 resolves resolve:ssm: in the caller's name.",
        actions=("ssm:GetParameter*",),
        on=("ssm:*:*:parameter/aws/service/*",),
    ),
    Grant(
        sid="Reach",
        reason="Tunnels to a lab's own nodes, where they have no public address.",
        actions=("ec2-instance-connect:OpenTunnel", "ssm:StartSession"),
        on=("ec2:*:*:instance-connect-endpoint/*", "ec2:*:*:instance/*"),
        where=OURS,
    ),
    Grant(
        sid="Session",
        reason="The one document that carries SSH, and the end of one's own sessions.",
        actions=("ssm:ResumeSession", "ssm:StartSession", "ssm:TerminateSession"),
        on=("ssm:*:*:document/AWS-StartSSHSession", "ssm:*:*:session/${aws:userid}-*"),
    ),
    Grant(
        sid="Bake",
        reason="An image of a lab's node, which carries the tag of what was baked.",
        actions=("ec2:CreateImage", "ec2:CreateTags"),
        on=("ec2:*::image/*", "ec2:*::snapshot/*"),
        where=AS_BAKED,
    ),
    Grant(
        sid="BakeFrom",
        reason="Only of a lab's node.",
        actions=("ec2:CreateImage",),
        on=("ec2:*:*:instance/*", "ec2:*:*:volume/*"),
        where=OURS,
    ),
    Grant(
        sid="Unbake",
        reason="What was baked, and nothing else of the account's images.",
        actions=("ec2:DeleteSnapshot", "ec2:DeregisterImage"),
        where=BAKED,
    ),
)
"""Every statement. A write on any resource holds only where a tag says whose it is."""
