"""A node's sshd through Session Manager: AWS's own session-manager-plugin, started as the AWS CLI starts it.

As a socket for Fabric and, run as `python -m operate.plugin`, as OpenSSH's ProxyCommand. The plugin's arguments and
its variable are those of https://github.com/aws/aws-cli/blob/v2/awscli/customizations/sessionmanager.py. The session's
token goes by that variable alone, for every user of this machine may read a command line; plugins that do not know it
(up to 1.2.497.0) are refused.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from operate.account import explain
from operate.line import Line
from operate.problem import Problem
from operate.shell import Unreachable

PROGRAM = "session-manager-plugin"
_VARIABLE = "AWS_SSM_START_SESSION_RESPONSE"
_OLDEST = (1, 2, 497, 0)
_LAST_WORDS_S = 5.0
_INSTALL = (
    "install it: https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """The plugin, ready to start."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def find_plugin() -> str:
    """Path of the plugin.

    Raises:
        Problem: it is not installed, or too old to take its token in secret.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise Problem(f"{PROGRAM} is not installed, and this lab is reached through it alone", _INSTALL)
    _check(path)
    return path


@cache
def _check(path: str) -> None:
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem(f"{path} does not run ({error})", _INSTALL) from None
    version = tuple(map(int, re.findall(r"\d+", told)[:4]))
    if version <= _OLDEST:
        raise Problem(f"{path} is of version {told.strip() or 'unknown'}, older than 1.2.498", _INSTALL)


def start_session(ssm: Any, instance: str, port: int, *, profile: str = "") -> Command:
    """Start a session to `port` of `instance`: what speaks for it is the command that is returned.

    Raises:
        Unreachable: the node's SSM agent has not reported yet.
        Problem: no plugin, no credentials, or AWS refuses.
    """
    path = find_plugin()
    asked = {"Target": instance, "DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": [str(port)]}}
    try:
        answer = ssm.start_session(**asked)
    except ClientError as error:
        if error.response["Error"]["Code"] == "TargetNotConnected":
            raise Unreachable(
                f"the SSM agent of {instance} has not reported to Session Manager",
                "is it still booting? try again; its role must hold AmazonSSMManagedInstanceCore",
            ) from None
        raise explain(error) from error
    except BotoCoreError as error:
        raise explain(error) from error
    response = json.dumps({name: answer[name] for name in ("SessionId", "TokenValue", "StreamUrl")})
    meta = ssm.meta
    words = (path, _VARIABLE, meta.region_name, "StartSession", profile, json.dumps(asked), meta.endpoint_url)
    return Command(words=words, environment={_VARIABLE: response})


def open_line(ssm: Any, instance: str, port: int, *, profile: str = "") -> Line:
    """The session as a socket, carried by the plugin. Raises: as `start_session`."""
    command = start_session(ssm, instance, port, profile=profile)
    near, far = socket.socketpair()
    with far:
        process = subprocess.Popen(
            command.words,
            env={**os.environ, **command.environment},
            stdin=far.fileno(),
            stdout=far.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is fab's to handle
        )
    said: list[str] = []

    def watch() -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                said[:] = [line.decode("utf-8", "replace").strip() or "".join(said)]
        process.wait()

    watcher = threading.Thread(target=watch, name=f"session-{instance}", daemon=True)
    watcher.start()

    def why() -> str:
        watcher.join(_LAST_WORDS_S)  # where the plugin has ended, its last words are about to be read
        return "".join(said)

    def close() -> None:
        near.close()
        if process.poll() is None:
            process.terminate()

    return Line(socket=near, why=why, close=close)


def main() -> None:
    """Become the plugin of the session that the arguments name. Raises: Problem: it cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m operate.plugin", description="An OpenSSH ProxyCommand.")
    parser.add_argument("--instance", required=True)
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--region", required=True)
    parser.add_argument("--profile", default="")
    parser.add_argument("--endpoint-url")
    given = parser.parse_args()
    try:
        session = boto3.Session(profile_name=given.profile or None, region_name=given.region)
        ssm = session.client("ssm", endpoint_url=given.endpoint_url)
    except BotoCoreError as error:
        raise explain(error) from error
    command = start_session(ssm, given.instance, given.port, profile=given.profile)
    os.execve(command.words[0], command.words, {**os.environ, **command.environment})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Problem as problem:
        sys.exit(f"problem: {problem}")
