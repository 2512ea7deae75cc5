"""`python app.py` beside the barest CDK app that makes the same resources.

The bare app holds one CfnResource for each of ours, with the same type and the same properties, in as many stacks.
What ours takes longer is what constructs, tags, user data and cdk-nag cost; with CDK_VALIDATION=false both leave out
the check of the templates, and ours cdk-nag as well.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.result import Result, in_turn
from labs.catalog import LABS
from operate.laptop import ROOT

ROUNDS = 3

_ONE = """\
import json, pathlib, sys
from aws_cdk import App
from labs.catalog import LABS
from stacks.guard import GuardStack
from stacks.lab import LabStack

app = App(context=json.loads(pathlib.Path("cdk.json").read_text())["context"], analytics_reporting=False,
          tree_metadata=False)
LabStack(app, f"Lab{sys.argv[1]}Stack", lab=LABS[int(sys.argv[1])], guard=GuardStack(app, "GuardStack"))
app.synth()
"""

_BARE = """\
import json, pathlib, sys
from aws_cdk import App, CfnResource, LegacyStackSynthesizer, Stack

app = App(analytics_reporting=False, tree_metadata=False)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.template.json")):
    stack = Stack(app, path.name.split(".")[0], synthesizer=LegacyStackSynthesizer())
    for name, resource in json.loads(path.read_text())["Resources"].items():
        CfnResource(stack, name, type=resource["Type"], properties=resource.get("Properties"))
app.synth()
"""


def run() -> list[Result]:
    """Wall seconds of a whole Python process."""
    with tempfile.TemporaryDirectory(prefix="rooflab-bench-") as name:
        folder = Path(name)
        bare = folder / "bare.py"
        bare.write_text(_BARE)
        _python(folder / "ours", [str(ROOT / "app.py")], check=True)
        templates = list((folder / "ours").glob("*.template.json"))
        count = sum(len(json.loads(path.read_text())["Resources"]) for path in templates)
        subjects = {
            f"{who}-{check}": (
                lambda words=words, check=check, out=folder / f"out-{who}-{check}": _python(out, words, check=check)
            )
            for who, words in (("ours", [str(ROOT / "app.py")]), ("bare", [str(bare), str(folder / "ours")]))
            for check in (True, False)
        }
        samples = in_turn(subjects, rounds=ROUNDS)
        alone = [_alone(number, folder) for number in LABS]
    peer = f"a bare app of {count} resources in {len(templates)} stacks"
    return [
        Result(name=name, samples_s=samples[f"ours-{check}"], peer=peer, peer_samples_s=samples[f"bare-{check}"])
        for name, check in (("synthesis, with cdk-nag", True), ("synthesis, without validation", False))
    ] + alone


def _alone(number: int, folder: Path) -> Result:
    """Lab `number` and GuardStack, without validation."""
    one, bare = folder / "one.py", folder / "bare.py"
    one.write_text(_ONE)
    made, out = folder / f"lab{number}", folder / f"bare{number}"
    _python(made, [str(one), str(number)], check=False)
    count = sum(len(json.loads(path.read_text())["Resources"]) for path in made.glob("*.template.json"))
    samples = in_turn(
        {
            "ours": lambda: _python(made, [str(one), str(number)], check=False),
            "bare": lambda: _python(out, [str(bare), str(made)], check=False),
        },
        rounds=ROUNDS,
    )
    return Result(
        name=f"synthesis of Lab {number} and its guard",
        samples_s=samples["ours"],
        peer=f"a bare app of {count} resources in 2 stacks",
        peer_samples_s=samples["bare"],
    )


def _python(out: Path, words: list[str], *, check: bool) -> None:
    environment = os.environ | {
        "CDK_OUTDIR": str(out),
        "PYTHONPATH": str(ROOT),
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    }
    if not check:
        environment["CDK_VALIDATION"] = "false"
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
