"""What this machine needs for a lab: programs, and the operator's key."""

import shutil
import subprocess
from pathlib import Path

from labs.catalog import Lab
from operate import laptop
from operate.check import Check, failed, passed, warned

_SETUP = "run ./setup.sh, and source .venv/bin/activate"
_PLUGIN = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
)
_VERSION_S = 20


def check_tools(lab: Lab) -> list[Check]:
    """Whether the programs and the key are here that deploying and reaching the lab takes."""
    wanted = {
        "cdk": (("--version",), _SETUP),
        "node": (("--version",), _SETUP),
        "ssh": (("-V",), "install OpenSSH's client"),
        "git": (("--version",), "install git"),
    }
    if lab.way == "session":
        wanted["session-manager-plugin"] = (("--version",), f"install it: {_PLUGIN}")
    return [*(_program(name, words, remedy) for name, (words, remedy) in wanted.items()), _key()]


def cdk() -> str:
    """Path of the CDK CLI: the one on the PATH, else the clone's own; "" where there is none."""
    return shutil.which("cdk") or shutil.which("cdk", path=str(laptop.ROOT / ".venv" / "bin")) or ""


def _program(name: str, words: tuple[str, ...], remedy: str) -> Check:
    path = cdk() if name == "cdk" else shutil.which(name)
    # The clone's cdk brings its own node beside it.
    if not path and name == "node" and cdk():
        path = shutil.which(name, path=str(Path(cdk()).parent))
    if not path:
        return failed("tools", f"{name} is not here", remedy)
    try:
        told = subprocess.run([path, *words], capture_output=True, text=True, timeout=_VERSION_S, check=False)
    except subprocess.TimeoutExpired:
        return warned("tools", f"{name} does not say its version in {_VERSION_S} s", "is this machine overloaded?")
    except OSError as error:
        return failed("tools", f"{path} cannot be run ({error.strerror})", remedy)
    said = (told.stdout or told.stderr).strip().splitlines()
    if told.returncode:
        return failed("tools", f"{path} fails ({said[-1] if said else f'exit code {told.returncode}'})", remedy)
    return passed("tools", said[0] if said and name in said[0].lower() else f"{name} {said[0] if said else ''}".strip())


def _key() -> Check:
    private = laptop.private_key()
    public = private.with_suffix(".pub")
    if private.is_file() and public.is_file():
        return passed("key", f"{public} goes to the nodes")
    missing = private if not private.is_file() else public
    return failed("key", f"{missing} is not here, so no node would let you in", "run ./setup.sh, which makes it")
