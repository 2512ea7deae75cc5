"""What stands at AWS's end of a tunnel: an Instance Connect Endpoint's server on loopback, which says no on demand."""

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve


@dataclass
class Gate:
    """Bridges tunnels to the machines it knows and remembers what it was asked."""

    machines: dict[tuple[str, int], tuple[str, int]]
    """By private address and port as tunnels name them: where that sshd really listens."""
    asked: list[dict[str, str]] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    """Host headers."""
    refusal: tuple[int, dict[str, str]] | None = None
    """Status and body instead of a tunnel."""
    hang_up: tuple[int, str] | None = None
    """Close code and reason instead of bytes, once the tunnel stands."""
    tunnels: list[ServerConnection] = field(default_factory=list)
    server: Server | None = None

    def start(self, ssl: Any = None) -> str:
        """Serve, and say where: HOST:PORT."""
        self.server = serve(self._bridge, "127.0.0.1", 0, process_request=self._check, compression=None, ssl=ssl)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"localhost:{self.server.socket.getsockname()[1]}"

    def stop(self) -> None:
        """End every tunnel and the server."""
        self.cut()
        if self.server is not None:
            self.server.shutdown()

    def cut(self) -> None:
        """Break every tunnel that stands, as at the end of its hour."""
        for tunnel in self.tunnels:
            with suppress(OSError):  # it has ended by itself
                tunnel.socket.shutdown(socket.SHUT_RDWR)
        self.tunnels.clear()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        self.asked.append({name: values[0] for name, values in parse_qs(url.query).items()} | {"path": url.path})
        self.hosts.append(request.headers["Host"])
        if self.refusal is None:
            return None
        status, body = self.refusal
        headers = Headers({"Content-Type": "application/json"})
        return Response(status, HTTPStatus(status).phrase, headers, json.dumps(body).encode())

    def _bridge(self, tunnel: ServerConnection) -> None:
        if self.hang_up is not None:
            tunnel.close(*self.hang_up)
            return
        assert tunnel.request is not None
        asked = parse_qs(urlsplit(tunnel.request.path).query)
        wanted = asked["privateIpAddress"][0], int(asked["remotePort"][0])
        self.tunnels.append(tunnel)
        with socket.create_connection(self.machines[wanted]) as machine:
            threading.Thread(target=self._up, args=(tunnel, machine), daemon=True).start()
            try:
                while piece := machine.recv(65536):
                    tunnel.send(piece)
            except (ConnectionClosed, OSError):
                return

    @staticmethod
    def _up(tunnel: ServerConnection, machine: socket.socket) -> None:
        with suppress(ConnectionClosed, OSError):
            for message in tunnel:
                assert isinstance(message, bytes)
                machine.sendall(message)
        with suppress(OSError):  # the machine hung up first, and the other direction closed the socket
            machine.shutdown(socket.SHUT_RDWR)
