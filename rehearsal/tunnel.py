"""The Instance Connect tunnel: a websocket whose binary frames are a TCP connection to a node.

What the AWS CLI's `ec2-instance-connect open-tunnel` speaks: {wss}://HOST/openTunnel?instanceConnectEndpointId=…&
privateIpAddress=…&remotePort=…&maxTunnelDuration=…, presigned with SigV4 for service ec2-instance-connect. Limits:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/eice-quotas.html. AWS does not publish the statuses, codes and texts
of its refusals: those here are modelled on its other services.
"""

import hmac
import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rehearsal import clock

if TYPE_CHECKING:  # loaded when the server starts: a rehearsal without endpoints does not need it
    from websockets.http11 import Request, Response
    from websockets.sync.server import Server, ServerConnection

SERVICE = "ec2-instance-connect"
LONGEST_S = 3600
CONNECTIONS = 20
"""Connections that an endpoint carries at a time."""
_LOOK_S = 0.25
_QUIET = logging.Logger("tunnel", logging.CRITICAL)


class Refusal(Exception):
    """The tunnel is not opened: an HTTP status, and AWS's ErrorCode and Message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


Check = Callable[[str, str, int], None]
"""Looks at endpoint, address and port before the handshake.

Raises:
    Refusal: they do not fit.
"""
Connect = Callable[[str, str, int], socket.socket]
"""Leads to the node.

Raises:
    ConnectionRefusedError: nothing answers there, or a security group lets nothing through.
"""


class Tunnel:
    """The server; it starts when an endpoint is first described."""

    def __init__(self, *, key: str, secret: str, region: str, check: Check, connect: Connect) -> None:
        self._credentials = Credentials(key, secret)
        self._region = region
        self._check, self._connect = check, connect
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._open: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """DnsName of every endpoint: host and port of this server."""
        from websockets.sync.server import serve

        with self._lock:
            if self._server is None:
                self._server = serve(
                    self._carry, "127.0.0.1", 0, process_request=self._admit, compression=None, max_size=None,
                    logger=_QUIET,
                )  # fmt: skip
                threading.Thread(target=self._server.serve_forever, name="tunnel", daemon=True).start()
            return f"localhost:{self._server.socket.getsockname()[1]}"

    def close(self) -> None:
        """End the server."""
        if self._server:
            self._server.shutdown()

    def _admit(self, connection: "ServerConnection", request: "Request") -> "Response | None":
        try:
            self._demand_signed(request)
            id, address, port, _ = _asked(request)
            self._check(id, address, port)
            with self._lock:
                if self._open[id] >= CONNECTIONS:
                    raise Refusal(429, "TooManyConnections", f"The endpoint '{id}' carries {CONNECTIONS} connections")
                self._open[id] += 1
        except Refusal as refusal:
            text = json.dumps({"ErrorCode": refusal.code, "Message": refusal.message})
            return connection.respond(refusal.status, text)
        return None

    def _demand_signed(self, request: "Request") -> None:
        url = urlsplit(request.path)
        given = dict(parse_qsl(url.query))
        key, *scope = given.get("X-Amz-Credential", "").split("/")
        if key != self._credentials.access_key:
            raise Refusal(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        signature = given.pop("X-Amz-Signature", "")
        begun = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) > begun + timedelta(seconds=int(given["X-Amz-Expires"])):  # signed by the laptop's clock
            raise Refusal(403, "AccessDenied", "Signature expired")
        signer = SigV4QueryAuth(self._credentials, SERVICE, self._region)
        host = request.headers["Host"]
        signed = AWSRequest("GET", f"ws://{host}{url.path}?{urlencode(given)}", headers={"host": host})
        signed.context["timestamp"] = given["X-Amz-Date"]
        text = signer.string_to_sign(signed, signer.canonical_request(signed))
        right = hmac.compare_digest(signer.signature(text, signed), signature)
        if url.path != "/openTunnel" or scope[1:] != [self._region, SERVICE, "aws4_request"] or not right:
            raise Refusal(403, "InvalidSignatureException", "The request signature we calculated does not match the "
                          "signature you provided.")  # fmt: skip

    def _carry(self, connection: "ServerConnection") -> None:
        request = connection.request
        assert request is not None
        id, address, port, longest = _asked(request)
        try:
            try:
                node = self._connect(id, address, port)
            except (ConnectionRefusedError, Refusal):
                connection.close(1011, "Unable to connect to target")
                return
            with node:
                until = clock.now() + timedelta(seconds=longest)
                back = threading.Thread(target=_bring_back, args=(connection, node), daemon=True)
                back.start()
                _take_there(connection, node, until)
                back.join()
        finally:
            with self._lock:
                self._open[id] -= 1


def _asked(request: "Request") -> tuple[str, str, int, int]:
    """Endpoint, address, port and seconds that a request names.

    Raises:
        Refusal: it names them wrongly.
    """
    given = dict(parse_qsl(urlsplit(request.path).query))
    try:
        port, longest = int(given["remotePort"]), int(given.get("maxTunnelDuration") or LONGEST_S)
        if not 1 <= longest <= LONGEST_S:
            raise Refusal(400, "InvalidParameter", f"maxTunnelDuration must be from 1 to {LONGEST_S}, not {longest}")
        return given["instanceConnectEndpointId"], given["privateIpAddress"], port, longest
    except (KeyError, ValueError) as error:
        raise Refusal(400, "InvalidParameter", f"The request is not valid: {error}") from None


def _take_there(connection: "ServerConnection", node: socket.socket, until: datetime) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            try:
                node.sendall(_bytes(connection.recv(_LOOK_S)))
            except TimeoutError:
                if clock.now() >= until:
                    connection.close(1000, "Maximum tunnel duration reached")
                    break
    except (ConnectionClosed, OSError):  # either side has ended: the other is told below
        pass
    try:
        node.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return


def _bytes(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()


def _bring_back(connection: "ServerConnection", node: socket.socket) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while data := node.recv(1 << 16):
            connection.send(data)
    except (ConnectionClosed, OSError):  # the client has gone, or the node was ended
        return
    connection.close(1000)
