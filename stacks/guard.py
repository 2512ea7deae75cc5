"""GuardStack, one per account and region: the guard, the role of the nodes, and the results bucket.

It stands while labs come and go and costs cents a month. Every lab's stack depends on it.
"""

import ast
import re
from pathlib import Path

from aws_cdk import CfnDeletionPolicy, CfnOutput, Duration, LegacyStackSynthesizer, RemovalPolicy, Stack, Tags
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from constructs import Construct

from labs import names
from stacks.acknowledged import BUCKET, FUNCTION, GUARD_ROLE, NODE_ROLE, NOTICES, TOPIC, acknowledge
from stacks.permissions import guard_statements, node_statements, notice_statements

_GUARD = Path(__file__).resolve().parent.parent / "guard"
SOURCES = ("inventory.py", "order.py", "removal.py", "notice.py", "tick.py")
"""Files of `guard/` in the order in which each needs only those before it."""
LIMIT_BYTES = 32_000
"""Of the Lambda's text: the template that carries it must stay below CloudFormation's 50 KiB."""


def guard_source(folder: Path = _GUARD) -> str:
    """The Lambda's one file: the guard's files one after another, without docstrings and imports among themselves.

    Raises:
        ValueError: a file is missing, or the whole is too long to stand in a template.
    """
    missing = [name for name in SOURCES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"guard/{missing[0]} is missing: the guard is made of {', '.join(SOURCES)}")
    text = "\n".join(line for name in SOURCES for line in _spare((folder / name).read_text())) + "\n"
    if len(text.encode()) > LIMIT_BYTES:
        raise ValueError(f"guard/ is {len(text.encode())} bytes long: at most {LIMIT_BYTES} fit into the template")
    return text


def _spare(text: str) -> list[str]:
    """Lines of a file that run: without docstrings, comments of their own line, and imports from the same room."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            said |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    kept = [line for number, line in lines if number not in said and not re.match(r"from guard\.|\s*#", line)]
    return [line for line in kept if line.strip()]


class GuardStack(Stack):
    """What stands when no lab does."""

    def __init__(self, scope: Construct, id: str, *, notify: str = "") -> None:
        """`notify`: address that is mailed about labs' ends, from then on; "" adds nobody and takes nobody away.

        Raises:
            ValueError: `notify` is no address.
        """
        if notify and not re.fullmatch(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+", notify):
            raise ValueError(f"notify={notify!r} is no mail address: write notify=me@example.org")
        super().__init__(
            scope,
            id,
            stack_name=names.GUARD_STACK,
            description="Rooflab: the guard that ends labs, the nodes' role, the results bucket",
            # The others name roles that only `cdk bootstrap` makes, BootstraplessSynthesizer too.
            synthesizer=LegacyStackSynthesizer(),
            tags={names.TAG_STACK: names.GUARD_STACK},
        )
        Tags.of(self).add(names.TAG_STACK, names.GUARD_STACK)
        self.bucket = s3.Bucket(
            self,
            "Results",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            # Kept when the stack goes; gone when the stack's own creation fails, which would leave one bucket a try.
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            lifecycle_rules=[
                s3.LifecycleRule(
                    prefix="results/",
                    expiration=Duration.days(30),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
            ],
        )
        acknowledge(self.bucket, BUCKET)
        role = self._node_role()
        self.instance_profile = iam.CfnInstanceProfile(self, "NodeProfile", roles=[role.role_name])
        self._guard(self._topic(notify))
        CfnOutput(self, names.Output.RESULTS_BUCKET, value=self.bucket.bucket_name)
        # Exported whichever labs stand in the app, so that one lab's overrides never change this template.
        self.export_value(self.bucket.bucket_name)
        self.export_value(self.instance_profile.ref)

    def _node_role(self) -> iam.Role:
        role = iam.Role(self, "NodeRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        for statement in node_statements(self, self.bucket):
            role.add_to_policy(statement)
        acknowledge(role, NODE_ROLE)
        return role

    def _topic(self, notify: str) -> sns.Topic:
        """The topic always stands: a deploy that does not know the address must not silence the guard."""
        topic = sns.Topic(self, "Notices", display_name="Rooflab: labs' ends")
        acknowledge(topic, TOPIC)
        if notify:
            mail = sns.CfnSubscription(self, "Mail", topic_arn=topic.topic_arn, protocol="email", endpoint=notify)
            # Kept by a template that lacks it, replaced by one with another address; it goes with the topic at last.
            mail.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
            mail.cfn_options.update_replace_policy = CfnDeletionPolicy.DELETE
        return topic

    def _guard(self, topic: sns.Topic) -> None:
        log = logs.LogGroup(
            self,
            "GuardLog",
            log_group_name=f"/rooflab/{names.GUARD_STACK}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(self, "GuardRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log.grant_write(role)
        for statement in guard_statements(self):
            role.add_to_policy(statement)
        for statement in notice_statements(self, topic):
            role.add_to_policy(statement)
        acknowledge(role, GUARD_ROLE | NOTICES)
        function = lambda_.Function(
            self,
            "Guard",
            description="Ends labs whose time is up, and removes what they left",
            runtime=lambda_.Runtime.PYTHON_3_12,
            handler="index.handler",
            code=lambda_.Code.from_inline(guard_source()),
            role=role,
            log_group=log,
            memory_size=256,
            environment={"TOPIC": topic.topic_arn},
            timeout=Duration.minutes(4),  # below the schedule's period: two ticks never overlap
        )
        caller = iam.Role(self, "ScheduleRole", assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"))
        caller.add_to_policy(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function.function_arn]))
        acknowledge(function, FUNCTION)
        schedule = scheduler.CfnSchedule(
            self,
            "Tick",
            description="Every five minutes: which lab's time is up?",
            schedule_expression="rate(5 minutes)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=function.function_arn,
                role_arn=caller.role_arn,
                input='{"time": "<aws.scheduler.scheduled-time>"}',
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=300, maximum_retry_attempts=2
                ),
            ),
        )
        schedule.node.add_dependency(role, caller)  # the first tick must find its permissions
