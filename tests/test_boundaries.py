"""The arrows between the rooms, as the README's design notes draw them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STANDARD = sys.stdlib_module_names
ROOMS = {"labs", "stacks", "guard", "workloads", "operate", "rehearsal", "fabfile", "app", "benchmarks", "tests"}

ALLOWED = {
    "labs": {"labs"},
    "guard": {"guard", "boto3", "botocore"},
    "stacks": {"stacks", "labs", "aws_cdk", "constructs", "cdk_nag", "jsii"},
    "workloads": {
        "workloads",
        "labs",
        "torch",
        "numpy",
        "transformers",
        *("safetensors", "huggingface_hub", "tokenizers"),  # transformers cannot be installed without them
        *("torchao", "vllm"),  # inside functions: what they measure is not applicable where they are absent
    },
    "operate": {
        "operate",
        "labs",
        "guard",
        "boto3",
        "botocore",
        "fabric",
        "invoke",
        "paramiko",
        "rich",
        "matplotlib",
        "websockets",
    },
    "rehearsal": {
        "rehearsal",
        "labs",
        "moto",
        "boto3",
        "botocore",
        "werkzeug",
        "cryptography",
        "yaml",
        "responses",
        "websockets",
    },
    "app.py": {"stacks", "labs", "aws_cdk", "cdk_nag"},
    "fabfile.py": {"operate", "labs", "rehearsal", "fabric", "invoke", "rich"},
}
"""Room -> what its files may import beside the standard library."""


def sources(room: str) -> list[Path]:
    return [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """First components of all that a file imports."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    files = sources(room)
    assert files, f"{room} holds no Python file"
    for path in files:
        strange = imports(path) - set(STANDARD) - ALLOWED[room]
        assert not strange, f"{path.relative_to(ROOT)} imports {', '.join(sorted(strange))}"


def test_the_verbs_reach_the_rehearsal_only_from_inside_a_verb() -> None:
    assert "rehearsal" not in imports(ROOT / "fabfile.py", top_level_only=True)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fabfile", ("aws_cdk", "moto", "torch")),
        ("stacks.lab", ("fabric", "moto", "torch")),
        ("workloads.gemm", ("fabric", "boto3", "aws_cdk", "moto", "rich")),
        ("workloads.ddp", ("fabric", "boto3", "aws_cdk", "moto", "rich")),
        ("workloads.fp8_training", ("torchao", "vllm")),
        ("operate.ship", ("fabric", "rich", "torch", "matplotlib")),
        ("operate.watch", ("fabric", "rich", "torch", "boto3")),
        ("labs.catalog", ("boto3", "fabric", "torch", "aws_cdk")),
        ("guard.tick", ("fabric", "rich", "labs")),
    ],
)
def test_a_room_can_be_imported_where_other_rooms_packages_are_absent(module: str, absent: tuple[str, ...]) -> None:
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}"
    outcome = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_no_file_is_named_after_nothing() -> None:
    vague = {"utils", "common", "helpers", "base", "misc"}
    for room in ROOMS:
        for path in sources(f"{room}.py" if (ROOT / f"{room}.py").exists() else room):
            assert path.stem not in vague, path
