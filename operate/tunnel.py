"""A node's sshd through an EC2 Instance Connect Endpoint: the websocket tunnel that `aws ec2-instance-connect
open-tunnel` opens, as a socket for Fabric and, run as `python -m operate.tunnel`, as OpenSSH's ProxyCommand.

The endpoint's protocol as the AWS CLI speaks it (https://github.com/aws/aws-cli/tree/v2/awscli/customizations/
ec2instanceconnect): GET /openTunnel presigned for the service "ec2-instance-connect", then binary frames of TCP's bytes
both ways. A refusal is an HTTP answer whose body is {"ErrorCode", "Message"}; a node that cannot be reached is a close
code other than 1000 with the reason. No tunnel lives longer than an hour.

It starts once for every ssh, so it imports little: no boto3, no rich.
"""

import argparse
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from operate.line import Line
from operate.problem import Problem
from operate.shell import Unreachable

LIFETIME_S = 3599
"""What is asked for: a second less than the most that the CLI allows, for 3600 itself was seen refused."""
_OPEN_S = 15.0
_SIGNED_S = 60
_PIECE = 1 << 15
_DENIED = (401, 403)
_LOGIN = "run `aws sso login`, or export AWS_PROFILE or the keys that fab was run with"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One node behind one endpoint."""

    server: str
    """The endpoint's own server: wss://eice-….ec2-instance-connect-endpoint.REGION.amazonaws.com."""
    endpoint: str
    """eice-…"""
    region: str
    address: str
    """The node's private IPv4 address."""
    port: int = 22
    """AWS tunnels to 22 and 3389 alone."""


def signed_url(target: Target, credentials: Any) -> str:
    """The URL that opens the tunnel, good for a minute; `credentials` are botocore's."""
    scheme, _, host = target.server.partition("://")
    asked = {
        "instanceConnectEndpointId": target.endpoint,
        "maxTunnelDuration": LIFETIME_S,
        "privateIpAddress": target.address,
        "remotePort": target.port,
    }
    # botocore drops a scheme's usual port from the signed Host header, as the websocket client does, but knows no ws
    http = {"ws": "http", "wss": "https"}[scheme]
    request = AWSRequest(method="GET", url=f"{http}://{host}/openTunnel?{urlencode(asked)}")
    frozen = credentials.get_frozen_credentials()
    SigV4QueryAuth(frozen, "ec2-instance-connect", target.region, expires=_SIGNED_S).add_auth(request)
    return f"{scheme}{str(request.url).removeprefix(http)}"


@contextmanager
def dial(target: Target, credentials: Any) -> Iterator[ClientConnection]:
    """The tunnel, open until the end.

    Raises:
        Unreachable: no answer, or a refusal that may pass.
        Problem: AWS denies it to these credentials.
    """
    secure = target.server.startswith("wss:")
    with ExitStack() as standing:
        try:
            tunnel = standing.enter_context(
                connect(
                    signed_url(target, credentials),
                    ssl=_trusted() if secure else None,
                    # an endpoint of one's own on plain http is on this machine: no proxy leads there
                    proxy=True if secure else None,
                    compression=None,
                    max_size=None,
                    open_timeout=_OPEN_S,
                    close_timeout=2,
                    # ssh asks every 15 s whether the node is there; that the endpoint answers pings is not documented
                    ping_interval=None,
                )
            )
        except InvalidStatus as error:
            raise _refusal(target, error.response.status_code, bytes(error.response.body or b"")) from None
        except BotoCoreError as error:
            raise Problem(f"AWS credentials could not be had ({error})", _LOGIN) from None
        except (InvalidHandshake, OSError, EOFError) as error:
            raise Unreachable(
                f"{target.endpoint} does not answer at {target.server} ({error or type(error).__name__})",
                "check the network; behind a proxy, set HTTPS_PROXY",
            ) from None
        yield tunnel


def _refusal(target: Target, status: int, body: bytes) -> Problem:
    try:
        told = json.loads(body)
        said = f"{told['ErrorCode']}: {told['Message']}"
    except (ValueError, KeyError, TypeError):
        said = " ".join(body.decode("utf-8", "replace").split())[:200] or "no reason given"
    cause = f"{target.endpoint} refuses a tunnel to {target.address} port {target.port} (HTTP {status}, {said})"
    if status in _DENIED:
        return Problem(
            cause,
            "are the AWS credentials of this shell valid, and do they allow ec2-instance-connect:OpenTunnel there?",
        )
    return Unreachable(cause, "fab nodes shows whether the endpoint and the node are there")


def _trusted() -> ssl.SSLContext:
    """The authorities that boto3 trusts too: AWS_CA_BUNDLE, else those that botocore brings."""
    bundle = os.environ.get("AWS_CA_BUNDLE") or Path(botocore.__file__).with_name("cacert.pem")
    return ssl.create_default_context(cafile=bundle)


def open_line(target: Target, credentials: Any) -> Line:
    """The tunnel as a socket, carried by two threads. Raises: as `dial`."""
    standing = ExitStack()
    tunnel = standing.enter_context(dial(target, credentials))
    near, far = socket.socketpair()
    reasons: list[str] = []

    def up() -> None:
        _carry(tunnel, lambda: far.recv(_PIECE))

    def down() -> None:
        with standing:
            reasons.append(_deliver(tunnel, far.sendall))
            with suppress(OSError):  # macOS, where the other end is closed already
                far.shutdown(socket.SHUT_RDWR)  # wakes `up`
            far.close()

    for work in (up, down):
        threading.Thread(target=work, name=f"tunnel-{target.address}", daemon=True).start()
    return Line(socket=near, why=lambda: "".join(reasons), close=near.close)


def _carry(tunnel: ClientConnection, read: Callable[[], bytes]) -> None:
    """Send what `read` gives until it gives nothing, then close the tunnel."""
    try:
        while piece := read():
            tunnel.send(piece)
    except (ConnectionClosed, OSError):
        return  # the other direction knows why
    tunnel.close()


def _deliver(tunnel: ClientConnection, write: Callable[[bytes], object]) -> str:
    """Hand on what the tunnel brings until it is closed; why, where that was not as it should be."""
    while True:
        try:
            message = tunnel.recv()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return "" if closed.sent else "it broke off"
            return closed.rcvd.reason or ("" if closed.rcvd.code == 1000 else f"close code {closed.rcvd.code}")
        if isinstance(message, str):
            tunnel.close(1003)
            return "the endpoint sent text where bytes belong"
        try:
            write(message)
        except OSError:  # the reader is gone
            tunnel.close()
            return ""


def main() -> None:
    """Join stdin and stdout to the tunnel that the arguments name.

    Raises:
        Problem: it cannot be opened, or the endpoint ended it and said why.
    """
    parser = argparse.ArgumentParser(prog="python -m operate.tunnel", description="An OpenSSH ProxyCommand.")
    for name in ("server", "endpoint", "region", "address"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--profile")
    given = vars(parser.parse_args())
    credentials = _credentials(given.pop("profile"))
    target = Target(**given)
    with dial(target, credentials) as tunnel:
        threading.Thread(target=_carry, args=(tunnel, lambda: os.read(0, _PIECE)), daemon=True).start()
        why = _deliver(tunnel, _write)
    if why:
        raise Problem(f"{target.endpoint} ended the tunnel to {target.address} ({why})", "fab nodes shows the node")


def _credentials(profile: str | None) -> Any:
    from botocore.session import Session

    try:
        found = Session(profile=profile).get_credentials()
    except BotoCoreError as error:
        raise Problem(f"AWS credentials could not be had ({error})", _LOGIN) from None
    if found is None:
        raise Problem("no AWS credentials were found", _LOGIN)
    return found


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Problem as problem:
        sys.exit(f"problem: {problem}")
