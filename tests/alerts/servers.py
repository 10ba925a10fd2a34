"""Servers on the loopback that channels of alerts talk to: good ones, a deaf one, one that never ends its answer."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.clock import SystemClock


@dataclass
class WebServer:
    """Remembers what was posted and answers with ``status`` and ``answer``."""

    url: str
    status: int = 200
    answer: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def web_server() -> Iterator[WebServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.posts.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(state.answer)))
            self.end_headers()
            self.wfile.write(state.answer)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = WebServer(url=f"http://127.0.0.1:{server.server_port}/services/T0/B0/s3cret-path")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join(5)


@dataclass
class MailServer:
    """Keeps the mails it took; refuses ``unknown`` recipients, and the data with ``refusal``, if set."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    refusal: str = ""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: N802
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refusal:
            return self.refusal
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = SystemClock().now()
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "loopback.pem"
    path.write_bytes(private + signed.public_bytes(encoding))
    return path


@contextmanager
def mail_server(password: str = "", *, starttls: Path | None = None, tls: Path | None = None) -> Iterator[MailServer]:
    """With ``starttls`` or ``tls`` (a certificate) it takes mail over an encrypted connection only."""

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
        return AuthResult(success=data.login == b"desk" and data.password == password.encode(), handled=False)

    state = MailServer(port=free_port())
    asked = {"authenticator": authenticate, "auth_require_tls": False} if password else {}
    if starttls is not None:
        asked = {"tls_context": server_context(starttls), "require_starttls": True}
    if tls is not None:
        asked = {"ssl_context": server_context(tls)}
    controller = Controller(state, hostname="127.0.0.1", port=state.port, ready_timeout=10, server_hostname="localhost", **asked)
    controller.start()
    try:
        yield state
    finally:
        controller.stop()


def server_context(certified: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified)
    return context


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def bare_server(says: bytes = b"", every_seconds: float = 0.05) -> Iterator[int]:
    """Takes connections and says nothing, or ``says`` one byte at a time, over and over; its port."""
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            place = 0
            while not over.wait(every_seconds):
                if says:
                    connection.sendall(says[place % len(says) :][:1])
                    place += 1

    def listen() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = server.accept()
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        threads: list[threading.Thread] = []
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            for thread in [listener, *threads]:
                thread.join(5)
