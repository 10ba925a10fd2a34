from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import yaml

from orchestration import launcher
from quant.errors import InputError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(root: Path) -> list[psutil.Process]:
    """Processes that work on the Dagster home of ``root``, found without the launcher's own means."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("DAGSTER_HOME") == str(root / "dagster"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_each_data_root_is_an_instance_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "another, {odd}: one"):
        environment = launcher.prepare_environment(tmp_path / name)
        written = (tmp_path / name / "dagster" / "dagster.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(written)["storage"]["sqlite"]["base_dir"] == environment["DAGSTER_HOME"] == str(tmp_path / name / "dagster")
        assert yaml.safe_load(written)["compute_logs"]["config"]["base_dir"] == str(tmp_path / name / "dagster" / "logs")
        assert "data/dagster" not in written
        assert environment["AFTERCLOSE_DATA"] == str(tmp_path / name)


def test_preparing_twice_writes_once_and_mends_what_was_changed(tmp_path: Path) -> None:
    launcher.prepare_environment(tmp_path)
    target = tmp_path / "dagster" / "dagster.yaml"
    shipped, first = target.read_text(encoding="utf-8"), target.stat().st_mtime_ns
    launcher.prepare_environment(tmp_path)
    assert target.stat().st_mtime_ns == first
    target.write_text("telemetry: {enabled: true}\n", encoding="utf-8")
    launcher.prepare_environment(tmp_path)
    assert target.read_text(encoding="utf-8") == shipped


def test_a_relative_profile_reaches_the_server_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFTERCLOSE_PROFILE", "mine.toml")
    assert launcher.prepare_environment(tmp_path / "data")["AFTERCLOSE_PROFILE"] == str(tmp_path / "mine.toml")


def test_a_record_of_a_server_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    launcher.prepare_environment(tmp_path)
    record = {"token": "gone", "port": 3000, "folder": str(tmp_path / "sockets")}
    (tmp_path / "dagster" / "server.json").write_text(json.dumps(record), encoding="utf-8")
    assert launcher.status(tmp_path).startswith("Not running")
    assert launcher.stop(tmp_path) == "Not running."


def test_a_data_root_that_never_ran_says_so(tmp_path: Path) -> None:
    assert launcher.status(tmp_path / "none").startswith("Not running")
    assert launcher.stop(tmp_path / "none") == "Not running."
    assert launcher.address(tmp_path / "none") is None
    with pytest.raises(InputError, match="make start"):
        launcher.logs(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("port", [0, 70000])
def test_a_port_that_cannot_be_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InputError, match="port"):
        launcher.start(tmp_path, port)
    assert processes_of(tmp_path) == []


@pytest.mark.services
@pytest.mark.smoke
def test_the_server_starts_answers_and_stops_and_twice_is_harmless(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other_program:
        other_program.bind(("127.0.0.1", 0))
        other_program.listen()
        taken = other_program.getsockname()[1]
        try:
            told = launcher.start(tmp_path, taken)
            address = launcher.address(tmp_path)
            assert address is not None
            assert address in told
            assert f"port {taken} is taken" in told
            before = {process.pid for process in processes_of(tmp_path)}
            assert len(before) >= 4  # supervisor, code server, UI, daemon

            assert launcher.start(tmp_path, taken).startswith(f"Already running at {address}")
            assert {process.pid for process in processes_of(tmp_path)} >= before
            assert "page, definitions and daemon are well" in launcher.status(tmp_path)
            launcher.logs(tmp_path)
            assert "Serving dagster-webserver" in capfd.readouterr().out
        finally:
            told = launcher.stop(tmp_path)
    assert told == f"Stopped {address}."
    assert processes_of(tmp_path) == []
    assert launcher.stop(tmp_path) == "Not running."
    assert launcher.status(tmp_path).startswith("Not running")


@pytest.mark.services
def test_definitions_that_do_not_load_are_told_and_leave_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "broken.toml"
    profile.write_text("[source\n", encoding="utf-8")
    monkeypatch.setenv("AFTERCLOSE_PROFILE", str(profile))
    try:
        with pytest.raises(launcher.ServerError, match=r"definitions do not load(?s:.*)broken\.toml"):
            launcher.start(tmp_path, free_port())
        assert processes_of(tmp_path) == []
    finally:
        launcher.stop(tmp_path)


@pytest.mark.services
def test_nothing_is_started_on_an_instance_that_is_not_in_order(tmp_path: Path) -> None:
    history = Path(launcher.prepare_environment(tmp_path)["DAGSTER_HOME"]) / "history"
    history.write_text("a file where a folder has to be", encoding="utf-8")
    try:
        with pytest.raises(launcher.ServerError, match=r"its processes ended(?s:.*)history") as told:
            launcher.start(tmp_path, free_port())
        assert "code proxy server" not in str(told.value)  # opens the instance, too: both at once make a fresh one twice
        assert "code proxy server" not in (tmp_path / "dagster" / "logs" / "server.log").read_text(encoding="utf-8")
        assert processes_of(tmp_path) == []
    finally:
        launcher.stop(tmp_path)


@pytest.mark.services
@pytest.mark.chaos
def test_what_a_killed_supervisor_leaves_is_found_and_ended(tmp_path: Path) -> None:
    try:
        launcher.start(tmp_path, free_port())
        (supervisor,) = [process for process in processes_of(tmp_path) if "orchestration.supervisor" in process.cmdline()]
        supervisor.send_signal(signal.SIGKILL)
        assert launcher.status(tmp_path).startswith("Running")
    finally:
        launcher.stop(tmp_path)
    assert [process for process in processes_of(tmp_path) if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.services
@pytest.mark.chaos
def test_a_server_without_its_page_ends_whole_and_starts_again(tmp_path: Path) -> None:
    try:
        launcher.start(tmp_path, free_port())
        (page,) = [process for process in processes_of(tmp_path) if any("dagster-webserver" in word for word in process.cmdline())]
        page.kill()
        deadline = time.monotonic() + 20
        while processes_of(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert launcher.status(tmp_path).startswith("Not running")
        assert launcher.start(tmp_path, free_port()).startswith("Running at")
    finally:
        launcher.stop(tmp_path)
