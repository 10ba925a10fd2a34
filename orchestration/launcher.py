"""Starts and stops the UI and the daemon of one data root in the background.

A server is a supervisor (orchestration.supervisor) and what it starts. All of them carry the server's token in their environment,
which is how they are found again: a recycled process id never has it, an orphan always does.
"""

import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from quant.errors import AftercloseError, InputError, expected

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEFAULT_PORT = 3000
READY_SECONDS = 90.0
TERM_SECONDS = 20.0
KILL_SECONDS = 20.0  # what is being swapped in or written out dies late
_PORTS_TRIED = 20
_WELL = "page, definitions and daemon are well"
_TOKEN = "SERVER_TOKEN"  # noqa: S105  a name, no secret
_HEALTH = """{
  workspaceOrError { __typename
    ... on PythonError { message causes { message } }
    ... on Workspace { locationEntries { locationOrLoadError { __typename ... on PythonError { message causes { message } } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""


class ServerError(AftercloseError):
    """Fix: the UI or the daemon could not be started or stopped; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A started server as its file remembers it; whether it lives is asked of the operating system."""

    token: str
    port: int
    folder: str  # of its sockets: paths of Unix sockets are short by law (104 bytes), so not under the data root

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"


def prepare_environment(data_root: Path) -> dict[str, str]:
    """Make the data root's Dagster home and return the variables that every process working on this data root needs.

    ``<data_root>/dagster/dagster.yaml`` is the repository's dagster.yaml with absolute folders, so each data root is an instance of
    its own.
    """
    root = data_root.resolve()
    home = root / "dagster"
    (home / "logs").mkdir(parents=True, exist_ok=True)
    _write_instance_file(home)
    environment = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "AFTERCLOSE_DATA": str(root),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        # Compiled kernels depend on the machine, not on the data: one cache for all data roots.
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(REPOSITORY / "build" / "numba")),
    }
    if profile := os.environ.get("AFTERCLOSE_PROFILE"):
        environment["AFTERCLOSE_PROFILE"] = str(Path(profile).resolve())
    return environment


def start(data_root: Path, port: int = DEFAULT_PORT) -> str:
    """Start the server and wait until its page answers and its definitions are loaded; a sentence with the address.

    One whose page answers is left alone; what is left of one whose page does not is ended first. If ``port`` is taken, the next free
    one is used. Raises ServerError if the server is not ready after READY_SECONDS; nothing is left running then.
    """
    environment = prepare_environment(data_root)
    home = Path(environment["DAGSTER_HOME"])
    with _alone(home):
        last = _recorded(home)
        if last is not None and _processes(last) and _answer(last) is not None:
            return f"Already running at {last.url} since {_since(home)}: {_problem(last) or _WELL}."
        if last is not None:
            _end(last, home)
        server = Server(token=uuid.uuid4().hex, port=_free_port(port), folder=tempfile.mkdtemp(prefix="afterclose-"))
        _spawn(server, home, environment)
        try:
            _wait_until_ready(server, home)
        except BaseException:
            _end(server, home)
            raise
    taken = "" if server.port == port else f" (port {port} is taken)"
    return f"Running at {server.url}{taken}. Data in {data_root.resolve()}; `make stop` ends it."


def stop(data_root: Path) -> str:
    """End every process of the data root's server: TERM, then KILL, both bounded. Not running is fine. A sentence for people."""
    home = data_root.resolve() / "dagster"
    if not home.is_dir():
        return "Not running."
    with _alone(home):
        server = _recorded(home)
        return "Not running." if server is None or not _end(server, home) else f"Stopped {server.url}."


def status(data_root: Path) -> str:
    """Whether the data root's server runs, where, since when, and what is wrong with it. A sentence for people."""
    home = data_root.resolve() / "dagster"
    server = _running(home)
    if server is None:
        return "Not running; `make start` starts it."
    return f"Running at {server.url} since {_since(home)}: {_problem(server) or _WELL}."


def address(data_root: Path) -> str | None:
    """Address of the running UI; None if it does not run."""
    server = _running(data_root.resolve() / "dagster")
    return None if server is None else server.url


def last_address(data_root: Path) -> str:
    """Address of the UI that runs or ran last; without one, where `start` would put it."""
    server = _recorded(data_root.resolve() / "dagster")
    return f"http://{HOST}:{DEFAULT_PORT}" if server is None else server.url


def logs(data_root: Path, follow: bool = False, lines: int = 200) -> None:
    """Print the end of the server's log; with ``follow`` keep printing until interrupted."""
    log = _log(data_root.resolve() / "dagster")
    if not log.exists():
        raise InputError(expected("a server log", found="no such file", where=str(log), do="run `make start` first"))
    with suppress(KeyboardInterrupt):
        subprocess.run(["tail", f"-n{lines}", *(["-F"] if follow else []), str(log)], check=True)


def _write_instance_file(home: Path) -> None:
    import yaml

    def absolute(node: object) -> object:
        if isinstance(node, dict):
            return {key: absolute(value) for key, value in node.items()}
        if isinstance(node, str) and (node == "data/dagster" or node.startswith("data/dagster/")):
            return str(home / node.removeprefix("data/dagster").lstrip("/"))
        return node

    shipped = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text(encoding="utf-8"))
    text = "# Made from the repository's dagster.yaml at every start: edit that one.\n" + yaml.safe_dump(absolute(shipped), sort_keys=False)
    target = home / "dagster.yaml"
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return
    beside = home / f".dagster.yaml.{os.getpid()}"
    beside.write_text(text, encoding="utf-8")
    beside.replace(target)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One start or stop of a data root at a time; the lock ends with this process."""
    with (home / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(
                expected("one start or stop at a time", found="another one under way", where=str(home), do="wait for it, then try again")
            ) from None
        yield


def _spawn(server: Server, home: Path, environment: dict[str, str]) -> None:
    log = _log(home)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    record = home / f".server.json.{os.getpid()}"
    record.write_text(json.dumps(asdict(server)), encoding="utf-8")
    record.replace(home / "server.json")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.supervisor", HOST, str(server.port), server.folder],
            cwd=REPOSITORY,
            env={**os.environ, **environment, _TOKEN: server.token},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # It outlives this process, which therefore never waits for it.


def _wait_until_ready(server: Server, home: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    problem = "nothing yet"
    while time.monotonic() < deadline:
        if not _processes(server):
            problem = "its processes ended"
            break
        found = _problem(server)
        if found is None:
            return
        problem = found
        if problem.startswith("definitions"):
            break
        time.sleep(0.2)
    uncoloured = re.sub(r"\x1b\[[0-9;]*m", "", _log(home).read_text(encoding="utf-8", errors="replace"))
    tail = "\n".join(uncoloured.splitlines()[-30:])
    raise ServerError(
        expected(f"a UI at {server.url} within {READY_SECONDS:.0f} s", found=problem, where=str(_log(home)), do="fix what its log says")
        + f":\n{tail}"
    )


def _problem(server: Server) -> str | None:
    """None if the page answers, the definitions are loaded and the daemon is healthy."""
    answer = _answer(server)
    if answer is None:
        return "the page does not answer"
    workspace = answer["workspaceOrError"]
    for entry in workspace.get("locationEntries", [workspace]):
        location = entry.get("locationOrLoadError", entry)
        if location is None:
            return "code is being loaded"
        if location["__typename"] == "PythonError":
            innermost = [location, *location["causes"]][-1]
            return f"definitions do not load: {innermost['message'].strip()}"
    ill = [d["daemonType"] for d in answer["instance"]["daemonHealth"]["allDaemonStatuses"] if d["required"] and not d["healthy"]]
    return f"no heartbeat from {', '.join(ill).lower()}" if ill else None


def _answer(server: Server) -> dict[str, Any] | None:
    """The page's answer to _HEALTH; None if there is none. http.client, because a proxy has no business on the loopback."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        connection.request("POST", "/graphql", json.dumps({"query": _HEALTH}), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())["data"]
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _end(server: Server, home: Path) -> bool:
    """End every process of ``server``; whether there was one."""
    found = bool(_processes(server))
    for signal_them, seconds in ((psutil.Process.terminate, TERM_SECONDS), (psutil.Process.kill, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        while (left := _processes(server)) and time.monotonic() < deadline:
            for process in left:
                try:
                    signal_them(process)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=min(seconds, 5.0))
    if left := _processes(server):
        found_ids = ", ".join(str(process.pid) for process in left)
        raise ServerError(expected("no process left", found=found_ids, where=server.url, do="end them by hand"))
    shutil.rmtree(server.folder, ignore_errors=True)
    (home / "server.json").unlink(missing_ok=True)
    return found


def _running(home: Path) -> Server | None:
    server = _recorded(home)
    return server if server is not None and _processes(server) else None


def _recorded(home: Path) -> Server | None:
    try:
        return Server(**json.loads((home / "server.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _processes(server: Server) -> list[psutil.Process]:
    """Live processes with the server's token in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_TOKEN) == server.token:
                found.append(process)
        except (psutil.Error, OSError):  # gone, a zombie, or another user's
            continue
    return found


def _free_port(first: int) -> int:
    if not 1 <= first <= 65535:
        raise InputError(expected("a port from 1 to 65535", found=first, where="--port", do="choose one"))
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError:
                raise InputError(expected("a port that you may use", found=port, where="--port", do="choose one above 1023")) from None
            except OSError:
                continue
            return port
    raise InputError(
        expected(f"a free port from {first} on", found=f"the next {_PORTS_TRIED} are taken", where="--port", do="choose another one")
    )


def _since(home: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((home / "server.json").stat().st_mtime))


def _log(home: Path) -> Path:
    return home / "logs" / "server.log"
