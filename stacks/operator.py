"""The policy of whoever operates labs: what fab calls, what cdk calls, and what CloudFormation does in their name.

    python -m stacks.operator             # the documents as JSON, by name
    python -m stacks.operator FOLDER      # one file each, and the commands that make them policies

It is written out, not derived: tests hold it against the permissions that CloudFormation's registry names for every
type in a template of ours, and against every call of a rehearsed life. No document was tried in AWS. Whoever holds it
can make roles named GuardStack-… with any policy: give it to people you would let administer an account for labs.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stacks.grants import GRANTS

LIMIT = 6144
"""Characters of a managed policy, white space not counted.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""


def documents(partition: str = "aws") -> dict[str, dict[str, Any]]:
    """Policy documents by name, as few as IAM's limit allows; together they are the operator's policy."""
    made: list[list[dict[str, Any]]] = [[]]
    for grant in GRANTS:
        statement = grant.statement(partition)
        if size(_document([*made[-1], statement])) > LIMIT:
            made.append([])
        made[-1].append(statement)
    return {f"rooflab-{index}": _document(statements) for index, statements in enumerate(made, start=1)}


def size(document: Mapping[str, Any]) -> int:
    """Characters of a document as IAM counts them."""
    return len(json.dumps(document, separators=(",", ":")))


def _document(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def main(arguments: Sequence[str]) -> int:
    """What the command does; see above. Returns its exit code."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(f"{' '.join(arguments)!r} is not allowed: write one folder, or nothing", file=sys.stderr)
        return 1
    if not arguments:
        print(json.dumps(documents(), indent=1))
        return 0
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"aws iam create-policy --policy-name {name} --policy-document file://{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
