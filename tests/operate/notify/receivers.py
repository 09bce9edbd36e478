"""Real receivers on loopback: a webhook that remembers, one that hangs, and Slack behind TLS."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Received:
    """What came, in order; `answers` are the status codes to give, then 200."""

    port: int = 0
    paths: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(body) for body in self.bodies]

    @property
    def titles(self) -> list[str]:
        return [document["title"] for document in self.documents]

    def url(self, path: str = "hook") -> str:
        return f"json://user:geheim@127.0.0.1:{self.port}/{path}"


def _handler(received: Received) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = received.answers.pop(0) if received.answers else 200
            if status == 200:
                received.paths.append(self.path)
                received.hosts.append(self.headers.get("Host", ""))
                received.bodies.append(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler


@contextlib.contextmanager
def webhook() -> Iterator[Received]:
    received = Received()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(received))
    received.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def certificate(folder: Path) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.slack.com")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "slack.pem"
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem.write_bytes(key.private_bytes(encoding, form, plain) + made.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@contextlib.contextmanager
def proxy_to_slack(folder: Path) -> Iterator[Received]:
    """An HTTP proxy that is itself what it connects to: whoever asks for a host over TLS gets it
    here. `paths` and `hosts` say what was asked for.
    """
    received = Received()
    context = certificate(folder)
    plain = _handler(received)

    class Proxy(plain):  # type: ignore[misc, valid-type]
        def do_CONNECT(self) -> None:
            self.send_response(200, "connected")
            self.end_headers()
            secure = context.wrap_socket(self.request, server_side=True)
            self.connection = secure
            self.rfile = secure.makefile("rb", -1)
            self.wfile = secure.makefile("wb", 0)
            self.close_connection = False

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    received.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
