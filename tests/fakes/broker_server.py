"""The product's own stand-in for a broker, run in a thread of the test."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvicorn

from adapters.clock import SystemClock
from quant.calendar import exchange_calendar
from quant.trading.exchange import ExchangeRules
from quant.trading.execution import CostSettings
from services.broker.faults import FaultPlan
from services.broker.house import ControlledClock, House, Log
from services.broker.server import BrokerServer, bind, configured

DAY, NEXT = date(2020, 1, 2), date(2020, 1, 3)
EVENING = datetime(2020, 1, 3, 1, 30, tzinfo=UTC)  # of DAY, 20:30 New York
BARS = {symbol: {"open": 50.0, "high": 51.0, "low": 49.0, "close": 50.5, "volume": 1e6} for symbol in ("AAA", "BBB", "CCC")}
FREE = CostSettings(commission_per_share_usd=0.0, commission_minimum_usd=0.0, borrow_rate_annual=0.0)  # as Alpaca's paper account


class RunningBroker:
    """Serves from ``with`` to its end; at the evening of DAY, with three symbols listed, unless told otherwise."""

    def __init__(
        self, *, log: Path | None = None, rules: ExchangeRules | None = None, symbols: Sequence[str] = tuple(BARS), at: datetime = EVENING
    ) -> None:
        self.house = House(
            calendar=exchange_calendar(),
            rules=rules or ExchangeRules(costs=FREE, deposit=Decimal(1_000_000), pieces_ratio=1.0),
            symbols=symbols,
            bars=None,
            clock=ControlledClock(SystemClock(), at),
            log=Log(log),
        )

    def __enter__(self) -> RunningBroker:
        self._socket = bind(0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server: uvicorn.Server = configured(BrokerServer(self.house, FaultPlan()))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def control(self, what: str, asked: Mapping[str, Any] | Sequence[Mapping[str, Any]] = {}) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_control/{what}", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def run(self, session: date = NEXT, phase: str = "both", bars: Mapping[str, Any] = BARS) -> None:
        """Run a session's auctions."""
        self.control("session", {"session": session.isoformat(), "phase": phase, "bars": bars})


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Until it holds; fails if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
