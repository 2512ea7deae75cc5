"""Who is told: SNS topics, their subscriptions and policies."""

import json
from collections.abc import Mapping
from typing import Any

from rehearsal.resources.handler import Call, Handler

Given = Mapping[str, Any]


class Topic(Handler):
    type = "AWS::SNS::Topic"
    replaces = ("TopicName",)
    updates = ("DisplayName", "KmsMasterKeyId")
    fixed = ("Subscription", "Tags")
    attributes = ("TopicArn", "TopicName")
    named_by = "TopicName"

    def create(self, call: Call, given: Given) -> str:
        attributes = {name: given[name] for name in self.updates if name in given} or None
        answer = call.api("sns", "create_topic", Name=given.get("TopicName") or call.name(256, False),
                          Attributes=attributes, Tags=given.get("Tags") or None)  # fmt: skip
        return str(answer["TopicArn"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for wanted in given.get("Subscription") or ():
            call.api("sns", "subscribe", TopicArn=physical_id, **wanted)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"TopicArn": physical_id, "TopicName": physical_id.rsplit(":", 1)[1]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        for name in self.updates:
            if old.get(name) != new.get(name):
                call.api("sns", "set_topic_attributes", TopicArn=physical_id, AttributeName=name,
                         AttributeValue=new.get(name, ""))  # fmt: skip

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("sns", "delete_topic", TopicArn=physical_id)


class Subscription(Handler):
    """An e-mail address has to confirm; until then SNS answers "pending confirmation" and cannot take it back."""

    type = "AWS::SNS::Subscription"
    replaces = ("Endpoint", "Protocol", "TopicArn")
    attributes = ("Arn",)

    def create(self, call: Call, given: Given) -> str:
        return str(call.api("sns", "subscribe", ReturnSubscriptionArn=True, **given)["SubscriptionArn"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Arn": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("sns", "unsubscribe", SubscriptionArn=physical_id)


class TopicPolicy(Handler):
    type = "AWS::SNS::TopicPolicy"
    updates = ("PolicyDocument", "Topics")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        self.update(call, "", {}, given)
        return call.name(100, False)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        for topic in set(old.get("Topics") or ()) - set(new["Topics"]):
            self._restore(call, topic)
        for topic in new["Topics"]:
            call.api("sns", "set_topic_attributes", TopicArn=topic, AttributeName="Policy",
                     AttributeValue=json.dumps(new["PolicyDocument"]))  # fmt: skip

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        for topic in given["Topics"]:
            self._restore(call, topic)

    @staticmethod
    def _restore(call: Call, topic: str) -> None:
        """A topic always has a policy: without one of its own, that which lets its owner do everything."""
        policy = {"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [{
            "Sid": "__default_statement_ID", "Effect": "Allow", "Principal": {"AWS": "*"},
            "Action": [f"SNS:{action}" for action in (
                "GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic",
                "Subscribe", "ListSubscriptionsByTopic", "Publish")],
            "Resource": topic, "Condition": {"StringEquals": {"AWS:SourceOwner": call.account}},
        }]}  # fmt: skip
        call.remove("sns", "set_topic_attributes", TopicArn=topic, AttributeName="Policy",
                    AttributeValue=json.dumps(policy))  # fmt: skip


HANDLERS = (Topic, Subscription, TopicPolicy)
