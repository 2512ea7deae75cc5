"""Mail about a lab's end, where GuardStack was deployed with an address for it; each notice goes out once.

What was told stands in an SSM parameter a lab, written before the mail goes: a notice may be lost, never repeated.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from guard.inventory import UNANSWERED, Clients, everything, iso, why

TOLD = "/rooflab/told/"
"""SSM parameters below this name hold what was told of a stack's end."""
AHEAD = timedelta(hours=1)
"""So long before the deadline comes the first notice."""
PATIENCE = timedelta(hours=1)
"""What is not gone so long after its end began is stuck."""


class Notices:
    """What one tick tells."""

    def __init__(self, clients: Clients, topic: str, now: datetime) -> None:
        """`topic`: ARN of the SNS topic; "" tells nobody, and asks AWS nothing."""
        self.clients, self.topic, self.now = clients, topic, now
        self.told: dict[str, dict[str, Any]] = {}
        """Stack -> of which end, since when, and which notices."""
        try:
            rows = everything(clients("ssm"), "get_parameters_by_path", "Parameters", Path=TOLD[:-1]) if topic else ()
            for row in rows:
                self.told[row["Name"].removeprefix(TOLD)] = json.loads(row["Value"])
        except (*UNANSWERED, ValueError) as error:
            self.topic = ""  # without what was told, every notice would go out again and again
            print(f"no notices: {why(error, 'ssm')}")

    def of(self, lab: dict[str, Any]) -> None:
        """Tell what is new about one lab, as the tick describes it."""
        name, deadline, at_once = lab["stack"], lab["deadline"], lab["at_once"]
        known = self.told.get(name, {})
        ending = "ends" in known.get("told", ())
        end = known["of"] if ending and at_once else lab["by"] if at_once else deadline
        if known.get("of") != end:  # another life of this lab, or its deadline was moved
            known = self.told[name] = {"of": end, "since": iso(self.now), "told": []}
        left, refused = f"{lab['things']} things", "; ".join(lab.get("refused", ())) or "nothing was refused"
        if not lab["over"]:
            if datetime.fromisoformat(deadline) - self.now <= AHEAD:
                self.tell(name, "soon", f"{name} ends at {deadline} ({lab['by']}). fab extend moves that.")
        elif not ending:
            if at_once:
                self.tell(name, "orphans", f"{left} of {name} were found, and {lab['by']}: removing them.")
            else:
                self.tell(name, "begins", f"{name} is at its deadline, {deadline} ({lab['by']}): ending {left}.")
            known["since"] = iso(self.now)
            self.keep(name, "ends")
        elif self.now - datetime.fromisoformat(known["since"]) >= PATIENCE:
            self.tell(name, "stuck", f"{left} of {name} are left since {known['since']}: {refused}. See fab audit.")

    def finish(self, here: set[str]) -> None:
        """Tell of labs of which nothing is left, and forget them; `here` are those of which something is."""
        for name in sorted(set(self.told) - here):
            if "ends" in self.told[name]["told"] and self.topic:
                self.tell(name, "done", f"Nothing is left of {name}: its residual is $0.00 per hour.")
            self.ask("ssm", "delete_parameter", Name=TOLD + name)

    def tell(self, name: str, notice: str, text: str) -> None:
        """Send one notice, unless it was sent."""
        if notice not in self.told[name]["told"] and self.keep(name, notice):
            subject = f"Rooflab: {name}, {notice}"
            self.ask("sns", "publish", TopicArn=self.topic, Subject=subject, Message=text)

    def keep(self, name: str, notice: str) -> bool:
        """Write down that a notice goes out."""
        self.told[name]["told"].append(notice)
        value = json.dumps(self.told[name])
        return self.ask("ssm", "put_parameter", Name=TOLD + name, Value=value, Type="String", Overwrite=True)

    def ask(self, service: str, operation: str, **params: Any) -> bool:
        """Make one request, where there is somebody to tell. A refusal is printed: the guard has more to do."""
        try:
            if self.topic:
                getattr(self.clients(service), operation)(**params)
        except UNANSWERED as error:
            print(f"no notice: {why(error, service)}")
            return False
        return bool(self.topic)
