from __future__ import annotations

import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.conftest import NetworkBlocked


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_test_cannot_connect_to_another_machine(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as outward, pytest.raises(NetworkBlocked, match="no network"):
        outward.connect((host, 80))


def test_a_test_cannot_look_up_a_name() -> None:
    with pytest.raises(NetworkBlocked, match="look-up"):
        http.client.HTTPConnection("example.invalid", timeout=1).request("GET", "/")


def test_the_loopback_stays_open() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        connection = http.client.HTTPConnection("localhost", server.server_port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 204
        connection.close()
