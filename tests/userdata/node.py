"""A root directory in which boot files run for real; stand-ins only for commands that need hardware or AWS."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stacks.boot import spare

FOLDER = Path(__file__).resolve().parents[2] / "userdata"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
PASSIVE = ("systemctl", "apt-get", "apt-mark", "chown", "sshd", "mdadm", "mkfs.ext4", "mount", "shutdown")
"""Commands that only note that they were called."""


@dataclass
class Node:
    """A root directory with the boot files in place."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in ("opt/rooflab", "home/ubuntu", "bin", "etc"):
            (self.root / folder).mkdir(parents=True)
        for script in SCRIPTS:
            (self.here / script.name).write_text(spare(script.read_text()))
        for command in PASSIVE:
            self.command(command, "")
        self.command("dpkg-query", "exit 1")
        self.settings = {
            "ROOFLAB_STACK": "Lab3Stack", "ROOFLAB_TTL_HOURS": "4", "ROOFLAB_REGION": "us-east-1",
            "ROOFLAB_BUCKET": "results-bucket", "ROOFLAB_GPUS": "4", "ROOFLAB_EFAS": "1", "ROOFLAB_STEPS": "",
            "ROOFLAB_NOTICE_S": "600", "ROOFLAB_IPV6_ONLY": "0",
            "ROOFLAB_PACKAGES": "torch==2.13.0 numpy==2.4.6", "ROOFLAB_FSX_HOST": "fs-0.fsx.us-east-1.amazonaws.com",
            "ROOFLAB_FSX_NAME": "fsx", "ROOFLAB_STORAGE": "scratch", "ROOFLAB_STORAGE_GIB": "1200",
            "ROOFLAB_WAIT_S": "0", **self.settings,
        }  # fmt: skip

    @property
    def here(self) -> Path:
        return self.root / "opt/rooflab"

    @property
    def home(self) -> Path:
        return self.root / "home/ubuntu/.rooflab"

    @property
    def calls(self) -> list[str]:
        """Commands that were called, in order."""
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, name: str, body: str) -> None:
        """Put a stand-in on the PATH that notes its call and runs `body`."""
        path = self.root / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.root}/calls"\n{body}\n')
        path.chmod(0o755)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "ROOT": str(self.root), "HOME": str(self.root), **more}

    def boot(self, *steps: str) -> str:
        """Run boot.sh with these steps; returns what ~/.rooflab/ready then holds."""
        settings = {**self.settings, "ROOFLAB_STEPS": " ".join(steps)}
        (self.here / "boot.env").write_text("".join(f"{key}='{value}'\n" for key, value in settings.items()))
        subprocess.run(["bash", self.here / "boot.sh"], env=self.environment({}), check=False, capture_output=True)
        return (self.home / "ready").read_text().strip()

    def belt(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Arm the belt and run it once, as if it had not asked the account for a while."""
        self.boot("deadline")
        known = self.root / "var/lib/rooflab/deadline"
        if known.exists():
            os.utime(known, (0, 0))
        return self.belt_again(**more)

    def belt_again(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the belt as its timer does a minute later."""
        command = ["bash", str(self.here / "belt.sh")]
        return subprocess.run(command, env=self.environment(more), check=False, capture_output=True, text=True)

    def env(self) -> dict[str, str]:
        """What ~/.rooflab/env.sh sets."""
        clean = {"PATH": "/usr/bin:/bin"}
        script = f'set -eu; source "{self.home}/env.sh"; env'
        out = subprocess.run(["bash", "-c", script], env=clean, check=True, capture_output=True, text=True).stdout
        return dict(line.partition("=")[::2] for line in out.splitlines())
