"""A stand-in for a node's instance metadata service, version 2 only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Metadata:
    """What the service says, and how often it was asked for a spot notice."""

    def __init__(self) -> None:
        self.launched = ""
        """When the node was launched, ISO 8601 UTC."""
        self.action = ""
        """The body of spot/instance-action; empty: there is no notice."""
        self.looks = 0
        self.token = "first"
        """The one token that is valid."""
        self.address = ""

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, str]:
        """HTTP status and body."""
        if path == "/latest/api/token":
            return (200, self.token) if method == "PUT" else (405, "")
        if token != self.token:
            return 401, ""
        if path == "/latest/dynamic/instance-identity/document":
            return 200, f'{{\n  "pendingTime" : "{self.launched}",\n  "region" : "x"\n}}'
        if path == "/latest/meta-data/spot/instance-action":
            self.looks += 1
            return (200, self.action) if self.action else (404, "<html>Not Found</html>")
        return 404, ""


@contextmanager
def serve() -> Iterator[Metadata]:
    """A running service."""
    said = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.reply()

        def do_GET(self) -> None:
            self.reply()

        def reply(self) -> None:
            status, body = said.answer(self.command, self.path, self.headers["X-aws-ec2-metadata-token"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    said.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
