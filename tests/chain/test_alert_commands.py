"""`afterclose alerts`, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.clock import SystemClock
from adapters.ledger import open_outbox
from quant.alerts.alert import Observation
from tests.alerts.notices import alert
from tests.alerts.servers import free_port, web_server
from tests.chain.command_line import PROFILE, afterclose

SLACK = """
[alerts]
channels = ["log", "slack"]
timeout_seconds = 1
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE + SLACK)
    return path


@pytest.mark.slow
def test_every_channel_is_tried_and_one_that_fails_is_named(profile: Path, tmp_path: Path):
    root = tmp_path / "root"
    with web_server() as server:
        well = afterclose(root, "alerts", "test", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL=server.url)
        assert (well.returncode, well.stdout.splitlines()) == (0, ["log: sent", "slack: sent"])
        assert b"test of the channel" in server.posts[0][1]
    secret = f"http://127.0.0.1:{free_port()}/services/s3cret"
    broken = afterclose(root, "alerts", "test", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL=secret)
    assert broken.returncode == 1
    assert broken.stdout.startswith("log: sent\nslack: failed: expected an answer in the webhook at 127.0.0.1, found ConnectionError")
    assert "failed: slack did not take the test notice" in broken.stderr
    assert "s3cret" not in broken.stdout + broken.stderr
    assert not (root / "ledger.sqlite").exists()


@pytest.mark.slow
def test_what_waits_is_listed_and_drained_and_what_is_left_is_named(profile: Path, tmp_path: Path):
    root = tmp_path / "root"
    nothing = afterclose(root, "alerts", "list", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL="http://127.0.0.1:9/x")
    assert nothing.stdout.startswith("No data in")
    outbox = open_outbox(f"sqlite:///{root / 'ledger.sqlite'}", SystemClock(), ["log", "slack"])
    outbox.observe([Observation(scope="check/a", alerts=(alert("x"),))])
    broken = afterclose(root, "alerts", "drain", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL=f"http://127.0.0.1:{free_port()}/x")
    assert broken.returncode == 1
    assert "failed: still to be sent: 2 to slack" in broken.stderr  # the alert, and that the channel failed
    assert "No table or session is late: the source sample ends with 2013-02-28." in broken.stderr
    with web_server() as server:
        well = afterclose(root, "alerts", "drain", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL=server.url)
        assert well.returncode == 0, well.stderr
        assert len(server.posts) == 3  # and that it works again
    listed = afterclose(root, "alerts", "list", profile=profile, AFTERCLOSE__ALERTS__SLACK__URL=server.url).stdout
    assert listed.startswith("1 open\nERROR session 2013-02-07, symbol AAPL, rule r03_high_is_highest, since ")
    assert "log sent; slack sent" in listed
    assert "CLEARED rule channel slack" in listed
