"""What the two roles may do. The guard looks everywhere, and ends only what carries a lab's tags.

Which actions honour a tag of their resource: the service authorization reference,
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html and its neighbours.
"""

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from labs import names

_LABS = "Lab?Stack*"
"""Names of labs' stacks, as IAM matches them."""
TOLD = "/rooflab/told"
"""Parameters below this name hold what the guard told of each lab."""

LOOK = (
    "cloudformation:DescribeStacks",
    "cloudformation:ListStackResources",
    "ec2:Describe*",
    "elasticloadbalancing:DescribeLoadBalancers",
    "fsx:DescribeBackups",
    "fsx:DescribeDataRepositoryAssociations",
    "fsx:DescribeFileSystems",
    "logs:DescribeLogGroups",
    "logs:ListTagsForResource",
)
REMOVE = (
    "ec2:CancelCapacityReservation",
    "ec2:CancelSpotInstanceRequests",
    "ec2:DeleteEgressOnlyInternetGateway",
    "ec2:DeleteFleets",
    "ec2:DeleteInstanceConnectEndpoint",
    "ec2:DeleteInternetGateway",
    "ec2:DeleteLaunchTemplate",
    "ec2:DeleteNatGateway",
    "ec2:DeleteNetworkAcl",
    "ec2:DeleteNetworkInterface",
    "ec2:DeletePlacementGroup",
    "ec2:DeleteRoute",
    "ec2:DeleteRouteTable",
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSnapshot",
    "ec2:DeleteSubnet",
    "ec2:DeleteVolume",
    "ec2:DeleteVpc",
    "ec2:DeleteVpcEndpoints",
    "ec2:DeregisterImage",
    "ec2:DetachInternetGateway",
    "ec2:DetachNetworkInterface",
    "ec2:DisassociateAddress",
    "ec2:DisassociateRouteTable",
    "ec2:DisassociateVpcCidrBlock",
    "ec2:ReleaseAddress",
    "ec2:RevokeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:TerminateInstances",
    "elasticloadbalancing:DeleteLoadBalancer",
    "fsx:DeleteBackup",
    "fsx:DeleteDataRepositoryAssociation",
    "fsx:DeleteFileSystem",
)
"""What the guard does itself, and what CloudFormation does in its name when it deletes a lab's stack."""
ADOPT = ("ec2:CreateTags", "elasticloadbalancing:AddTags", "fsx:TagResource")
SESSION = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


def deadline_parameters(stack: Stack) -> str:
    """ARN pattern of the parameters that hold labs' deadlines."""
    path = names.DEADLINE_PARAMETER.format(stack="*").lstrip("/")
    return stack.format_arn(service="ssm", resource="parameter", resource_name=path)


def lab_stacks(stack: Stack) -> str:
    """ARN pattern of labs' stacks."""
    return stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{_LABS}/*")


def node_statements(stack: Stack, bucket: s3.Bucket) -> list[iam.PolicyStatement]:
    """The policy of the nodes' role: be reached through Session Manager, send results, know their deadline."""
    return [
        iam.PolicyStatement(sid="Send", actions=["s3:PutObject"], resources=[bucket.arn_for_objects("results/*")]),
        iam.PolicyStatement(sid="Deadline", actions=["ssm:GetParameter"], resources=[deadline_parameters(stack)]),
        iam.PolicyStatement(sid="Life", actions=["cloudformation:DescribeStacks"], resources=[lab_stacks(stack)]),
        # The whole of Session Manager, and none of the parameters that AmazonSSMManagedInstanceCore would open:
        # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
        iam.PolicyStatement(sid="Session", actions=list(SESSION), resources=["*"]),
    ]


def guard_statements(stack: Stack) -> list[iam.PolicyStatement]:
    """The policy of the guard's role."""
    tagged = {"StringLike": {f"aws:ResourceTag/{names.TAG_STACK}": _LABS}}
    tagging = {"StringLike": {f"aws:RequestTag/{names.TAG_STACK}": _LABS}}
    return [
        iam.PolicyStatement(sid="Look", actions=list(LOOK), resources=["*"]),
        iam.PolicyStatement(
            sid="Deadline",
            # Put: where a capacity block ends a lab, its nodes are to know.
            actions=["ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"],
            resources=[deadline_parameters(stack)],
        ),
        iam.PolicyStatement(
            sid="End",
            actions=["cloudformation:DeleteStack"],
            resources=[lab_stacks(stack)],
        ),
        iam.PolicyStatement(sid="Remove", actions=list(REMOVE), resources=["*"], conditions=tagged),
        # What was made by hand inside a lab is tagged as the lab's first, and removed with it.
        iam.PolicyStatement(sid="Adopt", actions=list(ADOPT), resources=["*"], conditions=tagging),
        iam.PolicyStatement(
            sid="Logs",
            actions=["logs:DeleteLogGroup"],
            resources=[
                stack.format_arn(
                    service="logs",
                    resource="log-group",
                    resource_name=f"/rooflab/{_LABS}",
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                )
            ],
        ),
    ]


def notice_statements(stack: Stack, topic: sns.ITopic) -> list[iam.PolicyStatement]:
    """What the guard's role may do besides, to tell whoever wants to be mailed."""
    path = TOLD.lstrip("/")
    told = [stack.format_arn(service="ssm", resource="parameter", resource_name=name) for name in (path, f"{path}/*")]
    return [
        iam.PolicyStatement(sid="Tell", actions=["sns:Publish"], resources=[topic.topic_arn]),
        iam.PolicyStatement(sid="Told", actions=["ssm:GetParametersByPath"], resources=told[:1]),
        iam.PolicyStatement(sid="Keep", actions=["ssm:PutParameter", "ssm:DeleteParameter"], resources=told[1:]),
    ]
