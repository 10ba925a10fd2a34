"""The broker that the profile names is the one that the chain is bound to, and real money is refused before anything is written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from adapters.brokers.alpaca import AlpacaBroker
from adapters.clock import SystemClock
from orchestration.definitions import bar_source, build_chain
from orchestration.settings import Settings
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.trading.market import SessionMarket
from tests.conftest import REPOSITORY


def bound(tmp_path: Path, **broker: object):
    profile = tomllib.loads((REPOSITORY / "afterclose.toml").read_text())
    settings = Settings(**{**profile, "broker": broker})
    chain = build_chain(settings, bar_source(settings, exchange_calendar()), SystemClock(), tmp_path)
    return chain.broker(lambda session: SessionMarket(session=session))


def test_kind_alpaca_binds_the_account_and_asks_it_nothing_yet(tmp_path: Path):
    broker = bound(tmp_path, kind="alpaca", never_books=["dividend"])
    assert isinstance(broker, AlpacaBroker)
    assert broker.capabilities.never_books == {"dividend"}
    assert bound(tmp_path, kind="simulated").capabilities.embedded
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_real_money_is_refused_unless_both_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    live = {"kind": "alpaca", "url": "https://api.alpaca.markets"}
    for allowed, number in ((False, None), (True, None), (False, "123")):
        if number:
            monkeypatch.setenv("AFTERCLOSE_LIVE_ACCOUNT", number)
        with pytest.raises(InputError, match="a paper account"):
            bound(tmp_path, **live, allow_live=allowed)
    assert isinstance(bound(tmp_path, **live, allow_live=True), AlpacaBroker)
