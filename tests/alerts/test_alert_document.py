"""What docs/alerts.md says works as it stands there."""

from __future__ import annotations

import json
import re
import time
import tomllib
from typing import Any

import pytest

from adapters.clock import SystemClock
from adapters.notify import WebhookNotifier
from orchestration.settings import AlertSettings
from quant.alerts.alert import Alert, AlertKind
from tests.alerts.notices import notice
from tests.alerts.servers import web_server
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")
SECRET = "a secret of the test"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_profile_of_the_page_is_accepted_with_the_secrets_of_the_page():
    given: dict[str, Any] = tomllib.loads(block("toml"))["alerts"]
    for section, key in re.findall(r"AFTERCLOSE__ALERTS__(\w+?)__(\w+)=", block("bash")):
        given.setdefault(section.lower(), {})[key.lower()] = SECRET
    settings = AlertSettings.model_validate(given)
    assert set(settings.channels) == {"email", "slack", "webhook"}
    assert settings.slack is not None


def test_the_page_checks_a_signature_and_tells_a_forged_an_old_and_a_changed_one(monkeypatch: pytest.MonkeyPatch):
    names: dict[str, Any] = {}
    exec(block("python"), names)
    genuine = names["genuine"]
    with web_server() as server:
        WebhookNotifier(url=server.url, secret=SECRET, timeout_seconds=5, clock=SystemClock()).notify(notice(), "http://127.0.0.1:3000")
        headers, body = server.posts[0]
    header = headers["Afterclose-Signature"]
    assert genuine(body, header, SECRET)
    assert not genuine(body, header, "another secret")
    assert not genuine(body.replace(b"AAPL", b"MSFT"), header, SECRET)
    monkeypatch.setattr(time, "time", lambda: SystemClock().now().timestamp() + 301)
    assert not genuine(body, header, SECRET)


def test_the_page_names_every_kind_and_every_part_of_an_alert_and_its_times():
    assert {kind.value for kind in AlertKind} <= set(re.findall(r"\w+", PAGE))
    with web_server() as server:
        WebhookNotifier(url=server.url, secret=SECRET, timeout_seconds=5, clock=SystemClock()).notify(notice(), "")
        (sent,) = json.loads(server.posts[0][1])["alerts"]
    assert set(sent) == (set(Alert.__slots__) - {"path"}) | {"state", "link"}
    assert [name for name in sent if name not in PAGE] == []
    defaults = AlertSettings()
    assert f"{defaults.freshness_minutes} minutes (`freshness_minutes`)" in PAGE
    assert f"{defaults.dead_man_minutes} minutes (`dead_man_minutes`)" in PAGE
