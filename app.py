"""The CDK app: GuardStack and one stack per lab. The only place that reads CDK context.

Context keys are the fields of `labs.catalog.Lab` that may be replaced (`-c nodes=4 -c capacity=spot`),
`ssh_public_key`, and `notify`, the address that GuardStack mails. The fields apply to every lab's stack. A lab that
cannot take them stays in the app as a stack that can be destroyed and says why it cannot be deployed; where no lab can,
that line is all that is printed.
"""

import os
import re
import sys
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from aws_cdk import App, Validations

from labs.catalog import LABS, Lab
from labs.names import GUARD_STACK, stack_name
from stacks.guard import GuardStack
from stacks.lab import LabStack, RefusedStack

_PUBLIC_KEY_FILE = Path(__file__).resolve().parent / ".rooflab" / "id_ed25519.pub"
_PUBLIC_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+=*( [\w.@+:-]*)?")
OVERRIDES = tuple(field.name for field in fields(Lab) if field.name not in ("number", "title", "workloads"))
"""Context keys that replace a field of every lab."""


def build(app: App) -> None:
    """Put every stack into `app`.

    Raises:
        ValueError: a context key is unknown, a value malformed, or no lab can take it.
    """
    given = _overrides(app)
    key = _public_key(app)
    guard = GuardStack(app, GUARD_STACK, notify=str(app.node.try_get_context("notify") or ""))
    refused: dict[int, str] = {}
    for lab in LABS.values():
        try:
            LabStack(app, f"Lab{lab.number}Stack", lab=lab.override(**given), guard=guard, ssh_public_key=key)
        except ValueError as error:
            refused[lab.number] = str(error)
    if len(refused) == len(LABS):
        raise ValueError(next(iter(refused.values())))
    for number, reason in refused.items():
        RefusedStack(app, f"Lab{number}Stack", stack_name=stack_name(number, str(given.get("name", ""))), reason=reason)


def _overrides(app: App) -> dict[str, object]:
    known = (*OVERRIDES, "ssh_public_key", "notify")
    given = app.node.get_all_context()
    for key in given:
        # CDK's own keys hold a colon, a slash or an @; lookups and feature flags do too.
        if re.fullmatch(r"[A-Za-z_]+", key.replace("-", "_")) and key not in (*known, "acknowledged-issue-numbers"):
            near = get_close_matches(key.replace("-", "_").lower(), known, n=1)
            raise ValueError(f"context {key!r} is not known: write {near[0] if near else ' | '.join(known)}")
    return {key: given[key] for key in OVERRIDES if key in given}


def _public_key(app: App) -> str:
    given = app.node.try_get_context("ssh_public_key")
    if given is None and not _PUBLIC_KEY_FILE.is_file():
        return ""
    key = (str(given) if given is not None else _PUBLIC_KEY_FILE.read_text()).strip()
    if key and not _PUBLIC_KEY.fullmatch(key):
        raise ValueError(f"ssh_public_key={key[:40]!r}… is no OpenSSH public key: write one line 'ssh-ed25519 AAAA…'")
    return key


def main() -> int:
    """Synthesise the app; what `cdk` runs."""
    app = App(analytics_reporting=False, tree_metadata=False, stack_traces=False)
    try:
        build(app)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if os.environ.get("CDK_VALIDATION") != "false":
        from cdk_nag import AwsSolutionsChecks  # here, for importing it takes as long as aws_cdk's own core

        Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # The CLI believes whatever report lies there, and a synthesis without validation writes none.
    Path(app.outdir, "validation-report.json").unlink(missing_ok=True)
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
