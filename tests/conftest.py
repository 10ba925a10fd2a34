"""What every test can rely on: no network, no settings of the machine, reproducible examples, a data root of its own."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

REPOSITORY = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"

# Set before anything is imported that reads them.
os.environ.setdefault("NUMBA_CACHE_DIR", str(REPOSITORY / "build" / "numba"))
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # one worker a core: more threads would only wait for each other
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GX_ANALYTICS_ENABLED": "false", "DAGSTER_DISABLE_TELEMETRY": "1"}
for variable in [name for name in os.environ if name.upper().startswith("AFTERCLOSE") or name == "DAGSTER_HOME"]:
    del os.environ[variable]

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile(
    "here", deadline=timedelta(seconds=5), database=DirectoryBasedExampleDatabase(REPOSITORY / ".hypothesis" / "examples")
)
hypothesis.settings.load_profile("ci" if IN_CI else "here")


class NetworkBlocked(BaseException):
    """A test reached for the network; not an Exception, so that no retry or fallback of the code under test swallows it."""


def _is_local(host: object) -> bool:
    if host in {None, "", "localhost", b"localhost", socket.gethostname()}:
        return True
    try:
        return ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _guarded(method: str) -> None:
    original = getattr(socket.socket, method)

    def checked(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(address[0]):
            raise NetworkBlocked(f"expected no network but the loopback in a test, found {method} to {address}")
        return original(self, address)

    setattr(socket.socket, method, checked)


def _guarded_names() -> None:
    original = socket.getaddrinfo

    def checked(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            raise NetworkBlocked(f"expected no network but the loopback in a test, found a look-up of {host!r}")
        return original(host, *args, **kwargs)

    socket.getaddrinfo = checked


def pytest_configure() -> None:
    _guarded("connect")
    _guarded("connect_ex")
    _guarded_names()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the repository that are too large to ship; the test is skipped where they are absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets of ../shared/data are not on this machine")
    return folder


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root that this process, and what it starts, works on."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("AFTERCLOSE_DATA", str(root))
    return root
