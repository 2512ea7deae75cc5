"""The clone of a soak's user: a small git tree with two workloads that take no time, and the key to the nodes."""

import shutil
import subprocess
from pathlib import Path

from tests.operate import made_run

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path) -> str:
    """Make the clone; returns its public key."""
    (folder / "operate").mkdir(parents=True)
    for path in (ROOT / "operate").glob("*.py"):  # what a node runs of it: to ship, and to tell how the run gets on
        shutil.copy(path, folder / "operate")
    shutil.copy(Path(__file__).with_name("quick.sh"), folder)
    for name, record in (("gemm", made_run.gemm("NODE")), ("ddp", made_run.gemm("NODE"))):
        made = record.write(folder / "made")
        made.rename(folder / f"{name}.json")
    (folder / "made").rmdir()
    (folder / ".gitignore").write_text(".rooflab/\nresults/\n")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / ".rooflab").mkdir()
    key = folder / ".rooflab" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "soak", "-f", str(key)], check=True)
    return key.with_suffix(".pub").read_text().strip()


def copy(folder: Path, to: Path) -> None:
    """A life's own copy of the clone."""
    shutil.copytree(folder, to, symlinks=True)
